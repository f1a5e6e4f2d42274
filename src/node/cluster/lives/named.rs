//! Whether what a new member has on its disk makes a quorum, and which table a member may vote by.
//!
//! Members hear of a change one after the other. One that does not know yet who took a seat still counts on the one who had it: that one and itself are
//! a quorum by its table, the new one and a third are a quorum by theirs, and the two have nobody in common. So a new member acknowledges a write, and
//! counts its own disk for one, only where all other replicas of the slot go by a table that *names* it: none of them votes for the
//! replaced one any more. A member whose table has a record on its disk never lacks it again. One that is itself new goes by what it is told; started
//! anew, that may be less than it was told before, so it makes no quorum by a table that lacks somebody whom it has met.
//!
//! It need not have copied anything for that: what it acknowledged it holds when its word counts, and its word counts only with all that the
//! others hold. Who is not new has copied from all of them, by tables that named it (`catch_up::sync`).
//!
//! A member whose own table was lost to damage goes by what it is told, and who tells it first may have been replaced. Whoever makes a quorum has
//! introduced itself to all other replicas, and these have noted that beside the table (`file`). So by a table that lacks somebody who was met
//! nobody votes before the own one is whole again.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::node::cluster::Inner;
use crate::types::NodeId;

/// Peers whose tables named this node, since its start.
#[derive(Default)]
pub(in crate::node::cluster) struct Named(Mutex<BTreeSet<NodeId>>);

impl Named {
    pub(in crate::node::cluster) fn note(&self, peer: NodeId) {
        self.0.lock().insert(peer);
    }

    fn by_all(&self, mut peers: impl Iterator<Item = NodeId>) -> bool {
        let named = self.0.lock();
        peers.all(|peer| named.contains(&peer))
    }
}

impl Inner {
    /// Whether this node's disk is one of those that make a quorum of the slot's replicas, where it is one of them.
    pub(in crate::node::cluster) fn counts(&self, slot: SlotId) -> bool {
        if !self.clocks.is_new() {
            return true;
        }
        let layout = self.layout();
        let replicas = layout.placement.replicas(slot).iter().copied();
        // Who counts itself by a later table has been met.
        self.named.by_all(replicas.filter(|node| *node != self.me))
            && self.lives.all_met_are(|node| layout.table.get(node).is_some())
    }

    /// How many have to have a write durably for its level, this node included.
    pub(in crate::node::cluster) fn durable_need(&self, slot: SlotId, need: usize) -> usize {
        // At one, nobody else has to know of it.
        need + usize::from(need > 1 && !self.counts(slot))
    }

    /// Whether the table is this disk's own, or lacks nobody whom this node has met.
    pub(in crate::node::cluster) fn may_vote_by_table(&self) -> bool {
        self.local.is_whole(SYSTEM_SLOT) || {
            let layout = self.layout();
            self.lives.all_met_are(|node| layout.table.get(node).is_some())
        }
    }
}
