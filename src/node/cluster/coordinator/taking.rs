//! Single flight for large transfers: while this node takes much of a key from its peers, other readers of the key wait, instead of taking
//! the same again.
//!
//! Invariant: each key has one taker at most, and those who wait hear of its end however that comes.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::types::{Key, UserId};
use crate::wire::WireOp;

/// Less is taken beside others: a key that is written all the time would be read one reader after the other.
const MUCH_BYTES: usize = 64 << 10;

/// The sender is dropped at the end.
#[derive(Default)]
pub(in crate::node::cluster) struct Taking(Mutex<BTreeMap<(UserId, Key), watch::Sender<()>>>);

/// While it is taken.
pub(super) struct Taker<'a> {
    taking: &'a Taking,
    of: (UserId, Key),
}

pub(super) fn is_much(ops: &[WireOp], more: bool) -> bool {
    more || ops.iter().map(WireOp::cost).sum::<usize>() > MUCH_BYTES
}

impl Taking {
    /// None while there is another one.
    pub(super) fn begin(&self, user: &UserId, key: &Key) -> Option<Taker<'_>> {
        let of = (user.clone(), key.clone());
        let mut takers = self.0.lock();
        if takers.contains_key(&of) {
            return None;
        }
        takers.insert(of.clone(), watch::Sender::new(()));
        Some(Taker { taking: self, of })
    }

    /// Returns when the present taker, if there is one, has ended.
    pub(super) async fn ended(&self, user: &UserId, key: &Key) {
        let ended = {
            let takers = self.0.lock();
            if takers.is_empty() {
                return;
            }
            takers.get(&(user.clone(), key.clone())).map(watch::Sender::subscribe)
        };
        if let Some(mut ended) = ended {
            // It never sends.
            let _ = ended.changed().await;
        }
    }
}

impl Drop for Taker<'_> {
    fn drop(&mut self) {
        self.taking.0.lock().remove(&self.of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_takes_and_the_others_wait_for_its_end() {
        let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
        let taking = Taking::default();
        taking.ended(&user, &key).await;
        let taker = taking.begin(&user, &key).unwrap();
        assert!(taking.begin(&user, &key).is_none());
        assert!(taking.begin(&user, &Key::new("other").unwrap()).is_some());
        let mut waits = Box::pin(taking.ended(&user, &key));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(taker);
        waits.await;
        assert!(taking.begin(&user, &key).is_some());
    }
}
