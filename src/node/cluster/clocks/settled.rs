//! When a round of comparing with a peer can be left out: two that are in sync and idle have nothing to tell each other.
//!
//! Whoever has something new compares in its next round, and the answer shows both that they differ; so only one of the two has to notice.
//! What neither notices is a comparison that came out equal while something was on its way, so it is repeated after `SETTLED_MAX`.
//!
//! Invariant: whatever makes earlier rounds count no more (a damaged slot, a disk that starts over, another placement) ends this too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::digest_of;
use crate::core::clock::SlotClocks;
use crate::core::slot::SlotId;
use crate::node::cluster::Inner;
use crate::node::cluster::members::Layout;
use crate::types::NodeId;

/// A comparison costs some 300 bytes with all headers, and both of a pair make theirs: 0.6 KB/s if they did so each second, 0.1 KB/s
/// this way.
const SETTLED_MAX: Duration = Duration::from_secs(5);

/// A comparison that came out equal.
#[derive(Clone)]
pub(super) struct Settled {
    layout: Arc<Layout>,
    /// Of all that this node had, which is quickly looked at.
    all: u64,
    /// Of what the peer holds too.
    shared: u64,
    at: Instant,
}

#[cfg(test)]
impl Settled {
    pub(super) fn of(all: u64) -> Self {
        Self {
            layout: Arc::default(),
            all,
            shared: all,
            at: Instant::now(),
        }
    }
}

impl Inner {
    /// The peer had the same: of `clocks`, those in the slots that both hold have the digest `shared`. Counts unless something was damaged
    /// since `as_of`.
    pub(in crate::node::cluster) fn settle(
        &self,
        peer: NodeId,
        layout: Arc<Layout>,
        clocks: &SlotClocks,
        shared: u64,
        as_of: u64,
    ) {
        let all = clocks.slots().map(|(slot, clock)| (slot, clock.digest()));
        let settled = Settled {
            layout,
            all: digest_of(&all.collect()),
            shared,
            at: Instant::now(),
        };
        self.clocks.settle(peer, settled, as_of);
    }

    pub(in crate::node::cluster) fn is_settled(&self, peer: NodeId) -> bool {
        let Some(settled) = self.clocks.settled(peer) else {
            return false;
        };
        if settled.at.elapsed() >= SETTLED_MAX || !Arc::ptr_eq(&settled.layout, &self.layout()) {
            return false;
        }
        let Ok(readers) = self.local.all_readers() else {
            return false;
        };
        let all: BTreeMap<SlotId, u64> = readers.iter().flat_map(|reader| reader.durable_digests()).collect();
        let is_shared = |shared| digest_of(&shared) == settled.shared;
        digest_of(&all) == settled.all || self.digests(&self.shared_slots(peer)).is_ok_and(is_shared)
    }
}
