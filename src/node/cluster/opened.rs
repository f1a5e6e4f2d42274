//! What peers have open here: readers of keys, and pulls.
//!
//! Invariant: it is bounded in number and ends with the connection it came on, or when it was not used for `IDLE_MAX`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::node::handle::ValueReader;
use crate::node::replica::Export;
use crate::types::NodeId;

/// Readers, and pulls, that one connection may have open; beyond it the oldest is closed.
const OPEN_MAX: usize = 1024;
/// One that was not used for so long is closed when room is looked for.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The number of something a peer has open: who, on which connection, and the number that the peer gave it.
pub(super) type OpenId = (NodeId, u64, u64);

pub(super) struct Open<T> {
    thing: Arc<tokio::sync::Mutex<T>>,
    used: Instant,
}

/// What peers have open here.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) readers: Mutex<BTreeMap<OpenId, Open<ValueReader>>>,
    pub(super) pulls: Mutex<BTreeMap<OpenId, Open<Export>>>,
}

impl Opened {
    pub(super) fn end(&self, from: NodeId, connection: u64) {
        let stays = |(node, number, _): &OpenId| (*node, *number) != (from, connection);
        self.readers.lock().retain(|id, _| stays(id));
        self.pulls.lock().retain(|id, _| stays(id));
    }
}

pub(super) fn put<T>(opened: &Mutex<BTreeMap<OpenId, Open<T>>>, id: OpenId, thing: T) {
    let mut opened = opened.lock();
    let now = Instant::now();
    opened.retain(|_, open| now.duration_since(open.used) < IDLE_MAX);
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
