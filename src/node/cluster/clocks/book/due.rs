//! Slots that are not in sync with a peer yet: what the two had when they compared, until all of it is here.
//!
//! In a slot that is written all the time, whatever moment is looked at, something is on its way: no comparison finds nothing lacking, and what
//! it finds lacking mostly comes by itself, by no pull. So a slot counts as synced as soon as this node's durable clock covers all that the peer
//! had at *some* comparison, whoever brought it since.
//!
//! Why that is no weaker than a comparison that finds nothing lacking, which does not ask either how it came:
//! - it says the same: all that the peer had when it told its clock, which was after its table named this node (`is_named`), is here. What was
//!   acknowledged with the one whose seat this node took was durable at the peer by then; what came later than that is acknowledged by who holds
//!   it. For how long it has been so makes no difference: a slot that is synced stays so as well, while the peer goes on;
//! - what this node itself had must still be here: all of it is due, not only what was lacking. What a reopened shard does not know any more
//!   is waited for;
//! - it was reconciled with the peer before it told what is due, or it is not noted: of what the peer had dropped by then nothing is left here. What
//!   came since came as what it was, or from somebody with whom the same was done first (`catch_up::pull`), or was given up by all;
//! - *damage*: what was due before a slot was damaged is due no more, as what was synced before counts no more: then it has to be reconciled
//!   anew. A disk that was *rolled back* is damage of all slots, also to a round that is under way;
//! - *a peer's new life*: what it had before may be more than it has now, never less than what counts. What it does not know any more was lost
//!   there, and is due no more (what this node has by then stays due);
//! - *other members*: what was due by another table is forgotten, for the peer may not be one to copy from any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ClockBook, Damage};
use crate::core::clock::Clock;
use crate::core::slot::SlotId;
use crate::node::cluster::members::Layout;
use crate::types::NodeId;

/// Of one peer.
#[derive(Default)]
pub(super) struct Due {
    /// By which they compared.
    layout: Option<Arc<Layout>>,
    pub(in crate::node::cluster) slots: BTreeMap<SlotId, Clock>,
}

impl Damage {
    /// Whether nothing of the slot was lost since `as_of`.
    pub(super) fn none_since(&self, slot: SlotId, as_of: u64) -> bool {
        let last = self.last.get(&slot).copied().unwrap_or_default();
        last.max(self.set_back) <= as_of
    }
}

impl ClockBook {
    /// Called after a comparison in which these slots differed and all of them may be copied: together, this node and
    /// the peer had `had`. A slot that already has something due keeps it: with the last comparison's, a busy slot
    /// would never be done. Slots not in the list have nothing due any more, nor do slots damaged since `as_of` (from
    /// `damages`).
    pub(in crate::node::cluster) fn note_due(
        &self,
        peer: NodeId,
        layout: &Arc<Layout>,
        slots: impl Iterator<Item = SlotId>,
        had: impl Fn(SlotId) -> Clock,
        as_of: u64,
    ) {
        let damage = self.damage.lock();
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        let mut before = std::mem::take(&mut page.due);
        if !before.layout.is_some_and(|before| Arc::ptr_eq(&before, layout)) {
            before.slots.clear();
        }
        let unsynced = slots.filter(|slot| !page.synced.contains(slot) && damage.none_since(*slot, as_of));
        let due = unsynced.map(|slot| match before.slots.remove(&slot) {
            Some(due) => (slot, due.meet(&had(slot))),
            None => (slot, had(slot)),
        });
        page.due = Due {
            slots: due.collect(),
            layout: Some(layout.clone()),
        };
    }

    /// The slots in which something is due from the peer.
    pub(in crate::node::cluster) fn due(&self, peer: NodeId) -> Vec<SlotId> {
        let pages = self.pages.lock();
        let slots = pages.get(&peer).map(|page| page.due.slots.keys().copied().collect());
        slots.unwrap_or_default()
    }

    /// That is `here` of these slots, unless they were damaged since `as_of`, which `damages` gave before it was looked: they are synced where it is
    /// all that is due. Whether any is.
    pub(in crate::node::cluster) fn note_here(
        &self,
        peer: NodeId,
        layout: &Arc<Layout>,
        here: &BTreeMap<SlotId, Clock>,
        as_of: u64,
    ) -> bool {
        let damage = self.damage.lock();
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        if !page.due.layout.as_ref().is_some_and(|by| Arc::ptr_eq(by, layout)) {
            page.due = Due::default();
        }
        let is_here = |slot: &SlotId, due: &mut Clock| {
            damage.none_since(*slot, as_of) && here.get(slot).is_some_and(|here| here.covers(due))
        };
        let came: Vec<SlotId> = page.due.slots.extract_if(.., is_here).map(|(slot, _)| slot).collect();
        page.synced.extend(&came);
        !came.is_empty()
    }
}
