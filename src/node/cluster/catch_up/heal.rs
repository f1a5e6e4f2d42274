//! Healing: a slot that lost something is whole again when all that other replicas hold of it was copied (`sync`). What none of them holds is given up.
//!
//! What was lost without its name is in no clock: whatever comes up later is taken as anything else. What has a name is covered by this node's clock from
//! then on, and asked for no more. For this it is not enough that the durable clocks of all others lack it: one of them may be slow to make it
//! durable, or a copy may be on its way to one. So they promise first to take it from nobody (`give_up`), those too that lost something themselves, or
//! two of them would wait for each other.
//!
//! The system's slot is healed without promises: it is also pulled from who is no replica.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;

use super::give_up::Why;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::node::cluster::calls::Broken;
use crate::node::cluster::members::Layout;
use crate::node::cluster::{Inner, TICK};
use crate::planted::{Bug, planted};
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::types::NodeId;

/// So many slots are healed at once: each waits for what the replicas have at work.
const SLOTS_MAX: usize = 32;

/// Who has to have sent what it holds before a slot is whole.
pub(super) struct Sources {
    pub(in crate::node::cluster) layout: Arc<Layout>,
    me: NodeId,
    /// Nothing is left of these, and nothing of them is waited for.
    gone: BTreeSet<NodeId>,
}

impl Sources {
    /// The other replicas of the slot.
    pub(super) fn others(&self, slot: SlotId) -> impl Iterator<Item = NodeId> {
        let replicas = self.layout.placement.replicas(slot).iter();
        replicas.copied().filter(|node| *node != self.me)
    }

    /// Those of them that something is left of.
    fn of(&self, slot: SlotId) -> impl Iterator<Item = NodeId> {
        self.others(slot).filter(|node| !self.gone.contains(node))
    }
}

/// Of what a slot lost, what is known by its name.
fn named(lost: &Clock) -> Clock {
    let mut named = lost.clone();
    named.remove_origin(UNKNOWN_ORIGIN);
    named
}

/// Gives up what has a name, slot by slot, as soon as the others have promised.
pub(in crate::node::cluster) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(TICK).await;
        let lost = inner.local.lost();
        if lost.is_empty() {
            continue;
        }
        // What was copied before that is no proof of anything.
        inner.clocks.note_damaged(&lost);
        let sources = inner.sources(true).await;
        let heals = lost.slots().map(|(slot, lost)| inner.heal_named(slot, lost, &sources));
        let heals: Vec<_> = heals.collect();
        futures_util::stream::iter(heals)
            .for_each_concurrent(SLOTS_MAX, |heal| heal)
            .await;
    }
}

impl Inner {
    /// `waits`: whether there is anything to wait for.
    pub(super) async fn sources(&self, waits: bool) -> Sources {
        let layout = self.layout();
        let gone = match waits {
            true => self.lost_members().await,
            false => BTreeSet::new(),
        };
        Sources {
            layout,
            me: self.me,
            gone,
        }
    }

    /// Whether all that is left of the slot elsewhere was here. What nobody is left of was copied from nobody.
    pub(super) fn has_all(&self, slot: SlotId, sources: &Sources) -> bool {
        sources.of(slot).next().is_some() && self.clocks.has_all_of(slot, sources.of(slot))
    }

    /// Of what was `lost`, heals the slots in which nothing has a name: when all was copied, or at once where there is nothing to be copied.
    pub(super) fn heal_unnamed(&self, lost: SlotClocks, sources: &Sources) {
        let mut healed = lost.clone();
        healed.retain_slots(|slot| {
            let has_no_name = || lost.get(slot).is_none_or(|lost| named(lost).is_empty());
            (slot == SYSTEM_SLOT || has_no_name()) && (self.has_all(slot, sources) || self.is_of_others(slot, sources))
        });
        if !healed.is_empty() && !planted(Bug::NeverHealed) {
            self.local.heal(&healed);
        }
    }

    /// Whether the slot is none of this node's, by a member table that is whole here. Where a loss cannot be pinned to slots, all slots count as
    /// damaged, and none of the others' is ever compared or copied; but a shard lists no keys while any is.
    ///
    /// The table is read anew a moment after its records came: the one from before may lack what damage took of it.
    pub(super) fn is_of_others(&self, slot: SlotId, Sources { layout, me, .. }: &Sources) -> bool {
        let is_others = layout.table.is_up(*me) && !layout.placement.replicas(slot).contains(me);
        is_others && !self.clocks.is_new() && self.local.is_whole(SYSTEM_SLOT) && self.is_as_on_disk(layout)
    }

    async fn heal_named(&self, slot: SlotId, lost: &Clock, sources: &Sources) {
        let named = named(lost);
        let is_there = |node| self.peers.get(node).is_some_and(|peer| peer.is_up());
        if slot == SYSTEM_SLOT || named.is_empty() || !self.has_all(slot, sources) || !sources.of(slot).all(is_there) {
            return;
        }
        let from: Vec<NodeId> = sources.of(slot).collect();
        let given = self.promised(slot, named.clone(), &from, Why::Lost).await;
        let given = given.unwrap_or_else(|error: Broken| {
            tracing::debug!(slot = slot.0, %error, "what damage took cannot be given up now");
            Clock::default()
        });
        let left = named.minus(&given);
        // Somebody has these, or may, and they come from there.
        self.allow_dots(slot, &left);
        let mut healed = SlotClocks::default();
        healed.join_slot(slot, &lost.minus(&left));
        if !given.is_empty() && !planted(Bug::NeverHealed) {
            self.local.heal(&healed);
        }
    }
}
