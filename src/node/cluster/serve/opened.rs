//! What peers have open here: readers of keys, and pulls.
//!
//! Invariant: it is bounded in number and ends with the connection it came on, or when it was not used for `IDLE_MAX`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::node::hedged::ValueReader;
use crate::node::replica::Export;
use crate::types::NodeId;

/// Readers, and pulls, that one connection may have open; beyond it the oldest is closed.
const OPEN_MAX: usize = 1024;
/// One that was not used for so long is closed: it keeps what it reads from being freed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The number of something a peer has open: who, on which connection, and the number that the peer gave it.
pub(in crate::node::cluster) type OpenId = (NodeId, u64, u64);

pub(in crate::node::cluster) struct Open<T> {
    thing: Arc<tokio::sync::Mutex<T>>,
    used: Instant,
}

/// What peers have open here.
#[derive(Default)]
pub(in crate::node::cluster) struct Opened {
    pub(in crate::node::cluster) readers: Mutex<BTreeMap<OpenId, Open<ValueReader>>>,
    pub(super) pulls: Mutex<BTreeMap<OpenId, Open<Export>>>,
}

impl Opened {
    pub(super) fn end(&self, from: NodeId, connection: u64) {
        let stays = |(node, number, _): &OpenId| (*node, *number) != (from, connection);
        self.readers.lock().retain(|id, _| stays(id));
        self.pulls.lock().retain(|id, _| stays(id));
    }

    /// To be called again and again, so that what a peer forgot is closed although it opens nothing more.
    pub(in crate::node::cluster) fn close_idle(&self) {
        close_idle(&mut self.readers.lock());
        close_idle(&mut self.pulls.lock());
    }
}

fn close_idle<T>(opened: &mut BTreeMap<OpenId, Open<T>>) {
    opened.retain(|_, open| open.used.elapsed() < IDLE_MAX);
}

pub(super) fn put<T>(opened: &Mutex<BTreeMap<OpenId, Open<T>>>, id: OpenId, thing: T) {
    let mut opened = opened.lock();
    let now = Instant::now();
    let of_connection = opened.range((id.0, id.1, 0)..=(id.0, id.1, u64::MAX));
    if of_connection.count() >= OPEN_MAX {
        let oldest = opened.range((id.0, id.1, 0)..=(id.0, id.1, u64::MAX));
        if let Some(oldest) = oldest.min_by_key(|(_, open)| open.used).map(|(id, _)| *id) {
            opened.remove(&oldest);
        }
    }
    let thing = Arc::new(tokio::sync::Mutex::new(thing));
    opened.insert(id, Open { thing, used: now });
}

pub(super) fn get<T>(opened: &Mutex<BTreeMap<OpenId, Open<T>>>, id: OpenId) -> Option<Arc<tokio::sync::Mutex<T>>> {
    let mut opened = opened.lock();
    let open = opened.get_mut(&id)?;
    open.used = Instant::now();
    Some(open.thing.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_used_for_long_is_closed() {
        let opened = Mutex::default();
        for number in [1, 2] {
            put(&opened, (NodeId(1), 1, number), ());
        }
        for _ in 0..2 {
            tokio::time::advance(IDLE_MAX / 2).await;
            assert!(get(&opened, (NodeId(1), 1, 2)).is_some());
        }
        close_idle(&mut opened.lock());
        assert!(get(&opened, (NodeId(1), 1, 1)).is_none());
        assert!(get(&opened, (NodeId(1), 1, 2)).is_some());
    }
}
