//! Whose word counts for a slot: this node's own, to itself and to a peer that asks.

use crate::core::slot::SlotId;
use crate::node::cluster::Inner;
use crate::types::NodeId;

impl Inner {
    /// Whether this node's own word counts for the slot.
    pub(in crate::node::cluster) fn votes(&self, slot: SlotId) -> bool {
        self.may_vote() && self.is_ready_to_vote(slot)
    }

    /// The same, for a request of a peer: it has to know this node's life, and both have to be replicas by this node's table. One that was
    /// replaced, and runs on, gets no quorum, and one that goes by an older table counts on nobody who held the slot by that.
    pub(in crate::node::cluster) fn votes_for(&self, slot: SlotId, peer: NodeId) -> bool {
        self.votes(slot) && self.knows_replica(slot, peer)
    }

    pub(in crate::node::cluster) fn knows_replica(&self, slot: SlotId, peer: NodeId) -> bool {
        let are_replicas = || {
            let layout = self.layout();
            let replicas = layout.placement.replicas(slot);
            replicas.contains(&peer) && replicas.contains(&self.me)
        };
        self.lives.is_introduced(peer) && are_replicas()
    }

    /// Of those of the slots for which this node's own word counts, how many there are.
    pub(in crate::node::cluster) fn voting(&self, slots: &[SlotId]) -> usize {
        let is_ready = |slot: &&SlotId| self.is_ready_to_vote(**slot);
        if self.may_vote() {
            slots.iter().filter(is_ready).count()
        } else {
            0
        }
    }

    /// Whether this node's own word counts at all.
    fn may_vote(&self) -> bool {
        !self.clocks.is_new() && self.is_known() && self.may_vote_by_table()
    }

    /// Whether the slot itself does not keep this node's own word from counting.
    fn is_ready_to_vote(&self, slot: SlotId) -> bool {
        self.local.is_whole(slot) && self.was_told(slot)
    }

    /// Whether what this node lists counts.
    pub(in crate::node::cluster) fn may_list(&self) -> bool {
        !self.clocks.is_new() && self.is_known() && self.told_all() && self.may_vote_by_table()
    }

    /// Whether a clear may be gone that this node's disk ought to know: it is an older copy or lost something, as far as was found.
    pub(in crate::node::cluster) fn may_have_missed_clears(&self, slot: SlotId) -> bool {
        self.clocks.is_new() || !self.local.is_whole(slot)
    }
}
