//! Comparing with a peer what both hold, and what follows where a clear was missed.
//!
//! *Reconciling*: a clear that every replica knew is gone (it was collected), and of one that had a request id only that is left. Either
//! makes a clock cover the clear and removes nothing. So before a node takes what it lacks of a slot, it removes what the peer covers and
//! holds no more: where the peer has collected clears that this node did not know when they compared, and, once with each peer, where this
//! node lost something, for then nobody may be left who collected what it missed.

use std::collections::{BTreeMap, BTreeSet};

use super::pull::clock_bytes;
use super::settled::digest_of;
use super::sync::{Broken, PAGE_BYTES, ask};
use super::{Inner, count};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::{SLOT_COUNT, SYSTEM_SLOT, SlotId};
use crate::node::OpError;
use crate::node::local::Wanted;
use crate::node::peers::Peer;
use crate::planted::{Bug, planted};
use crate::shard::{WriteContext, WriteKind};
use crate::types::NodeId;
use crate::wire::{NOT_NAMED, Request, Response, WireClock};

/// Slots whose clocks go into one message, and about how many bytes of them.
const CLOCKS_MAX: usize = 256;
const CLOCKS_BYTES_MAX: usize = 1 << 20;

/// What an exchange of clocks with a peer showed.
#[derive(Default)]
pub(super) struct Compared {
    /// This node's clocks at the time.
    pub mine: SlotClocks,
    /// What the peer covers and this node does not.
    pub lacking: SlotClocks,
}

/// This node's clocks of some slots, and of these the peer's, with what it has collected.
type Exchanged = (BTreeMap<SlotId, Clock>, Vec<(u16, WireClock, WireClock)>);

/// Slots whose clocks are still to be exchanged.
pub(super) struct Portions<'s> {
    slots: &'s [SlotId],
    /// So many at a time.
    most: usize,
}

impl<'s> Portions<'s> {
    pub(super) fn of(slots: &'s [SlotId]) -> Self {
        let most = CLOCKS_MAX;
        Self { slots, most }
    }
}

impl Inner {
    /// The slots that both this node and the peer hold.
    pub(super) fn shared_slots(&self, peer: NodeId) -> Vec<SlotId> {
        let layout = self.layouts.current();
        let holds = |slot: &SlotId| {
            let replicas = layout.placement.replicas(*slot);
            replicas.contains(&self.me) && replicas.contains(&peer)
        };
        let mut slots: Vec<SlotId> = (0..SLOT_COUNT).map(SlotId).filter(holds).collect();
        // Everybody holds the system's slot; a member that is not in the table yet finds the table there.
        slots.push(SYSTEM_SLOT);
        slots
    }

    pub(super) fn digests(&self, slots: &[SlotId]) -> Result<BTreeMap<SlotId, u64>, OpError> {
        let wanted: BTreeSet<SlotId> = slots.iter().copied().collect();
        let readers = self.local.all_readers()?;
        let digests = readers.iter().flat_map(|reader| reader.durable_digests());
        Ok(digests.filter(|(slot, _)| wanted.contains(slot)).collect())
    }

    /// Exchanges the clocks of some slots, and reconciles those of which this node may have missed a clear. `before`: the clocks that tell
    /// which clears it knew; those of now if there are none.
    pub(super) async fn compare_clocks(
        &self,
        peer: &Peer,
        slots: &[SlotId],
        before: Option<&SlotClocks>,
    ) -> Result<Compared, Broken> {
        let mut compared = Compared::default();
        let mut left = Portions::of(slots);
        while let Some((mut mine, theirs)) = self.exchange_clocks(peer, &mut left).await? {
            for (slot, clock, collected) in theirs {
                let slot = SlotId(slot);
                let (clock, collected) = (clock.into_clock(), collected.into_clock());
                let Some(mine) = mine.remove(&slot) else {
                    continue;
                };
                let known = before.map(|before| before.get(slot).cloned().unwrap_or_default());
                self.reconcile_if_needed(peer, slot, known.as_ref().unwrap_or(&mine), collected)
                    .await?;
                self.clocks.note(peer.node(), slot, &clock);
                compared.lacking.join_slot(slot, &clock.minus(&mine));
                compared.mine.join_slot(slot, &mine);
            }
            if !mine.is_empty() {
                return Err(Broken::Answer);
            }
        }
        Ok(compared)
    }

    /// Tells the peer some of these clocks, and hears its own; none when all were told.
    pub(super) async fn exchange_clocks(
        &self,
        peer: &Peer,
        left: &mut Portions<'_>,
    ) -> Result<Option<Exchanged>, Broken> {
        while !left.slots.is_empty() {
            let (mut mine, mut bytes) = (BTreeMap::new(), 0);
            for slot in left.slots.iter().take(left.most) {
                let clock = self.local.clock(*slot)?;
                bytes += clock_bytes(&clock);
                if bytes > CLOCKS_BYTES_MAX && !mine.is_empty() {
                    break;
                }
                mine.insert(*slot, clock);
            }
            let clocks = mine.iter().map(|(slot, clock)| (slot.0, WireClock::of(clock)));
            let request = Request::Clocks {
                slots: clocks.collect(),
            };
            match ask(peer, request).await {
                Ok(Response::Clocks(theirs)) => {
                    left.slots = left.slots.get(mine.len()..).unwrap_or_default();
                    return Ok(Some((mine, theirs)));
                }
                // Its own clocks may be larger.
                Err(Broken::Refused(_)) if mine.len() > 1 => left.most = mine.len() / 2,
                Ok(_) => return Err(Broken::Answer),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether a clear may be gone that this node's disk ought to know: it is an older copy or lost something, as far as was found.
    pub(super) fn may_have_missed_clears(&self, slot: SlotId) -> bool {
        self.clocks.is_new() || !self.local.is_whole(slot)
    }

    async fn reconcile_if_needed(
        &self,
        peer: &Peer,
        slot: SlotId,
        known: &Clock,
        collected: Clock,
    ) -> Result<(), Broken> {
        if self.local.clock(slot)?.is_empty() {
            // Nothing is held here, and nobody need look.
            return Ok(());
        }
        // Looked at after the clock: what is lost since is not lacking by it.
        let lost = self.local.lost_of(slot)?;
        let is_due = self.may_have_missed_clears(slot) || !known.covers(&collected);
        if !is_due || planted(Bug::ReconcileSkipped) || self.clocks.was_reconciled(peer.node(), slot, &collected, &lost)
        {
            return Ok(());
        }
        let as_of = self.clocks.damages();
        self.reconcile(peer, slot).await?;
        self.clocks.note_reconciled(peer.node(), slot, collected, lost, as_of);
        Ok(())
    }

    /// Removes what the peer covers of the slot and holds no more: it was cleared, and the clears may be gone.
    async fn reconcile(&self, peer: &Peer, slot: SlotId) -> Result<(), Broken> {
        let held = self.local.held_dots(slot).await?.texts;
        if held.is_empty() {
            return Ok(());
        }
        let Response::HeldDots { texts, covered } = ask(peer, Request::HeldDots { slot: slot.0 }).await? else {
            return Err(Broken::Answer);
        };
        let dropped = covered.into_clock().minus(&texts.into_clock());
        let gone = held.meet(&dropped);
        if gone.is_empty() {
            return Ok(());
        }
        count(&self.counters.reconciled_slots);
        tracing::warn!(peer = %peer.node(), slot = slot.0, ops = gone.count(), "ops that all others have dropped are removed");
        let mut wants = SlotClocks::default();
        wants.join_slot(slot, &gone);
        let mut export = self.local.ops_with(&wants)?;
        let mut by_key: BTreeMap<_, Clock> = BTreeMap::new();
        while let Some(ops) = export.next(PAGE_BYTES as usize).await? {
            for keyed in ops {
                let dots = by_key.entry((keyed.user, keyed.key)).or_default();
                dots.insert(keyed.op.dot.origin, keyed.op.dot.seq);
            }
        }
        for ((user, key), dots) in by_key {
            let wanted = Wanted {
                user: &user,
                key: &key,
                kind: WriteKind::ClearDots(dots),
                request_id: None,
            };
            self.local.write(wanted, WriteContext::default()).await?;
        }
        Ok(())
    }

    pub(super) fn answer_compare(&self, from: NodeId, digest: u64) -> Result<Response, OpError> {
        if !self.layouts.current().table.is_up(from) {
            // Its table may be newer, and which slots both hold is not known here: none of them must look empty, and so equal, to it.
            let own = self.local.all_clocks()?;
            let differs = |slot| (slot, !own.get(SlotId(slot)).map_or(0, Clock::digest));
            let differing = (0..=SYSTEM_SLOT.0).map(differs);
            return Ok(Response::Differ(differing.chain([(NOT_NAMED, 0)]).collect()));
        }
        let mut digests = self.digests(&self.shared_slots(from))?;
        // Of a slot in which this node is behind what the peer told in its life before, to hold the same proves nothing.
        let beyond = self.clocks.beyond(from, || self.local.clocks());
        if beyond.is_empty() && digest_of(&digests) == digest {
            return Ok(Response::Same);
        }
        for slot in beyond {
            let digest = digests.entry(slot).or_default();
            *digest = !*digest;
        }
        // The peer has something new, or lacks something.
        self.clocks.unsettle(from);
        let digests = digests.into_iter().map(|(slot, digest)| (slot.0, digest));
        Ok(Response::Differ(digests.collect()))
    }

    pub(super) fn answer_clocks(
        &self,
        (from, connection): (NodeId, u64),
        slots: Vec<(u16, WireClock)>,
    ) -> Result<Response, OpError> {
        let mut answer = Vec::with_capacity(slots.len());
        for (slot, clock) in slots {
            let Ok(slot) = crate::wire::slot_of(slot) else {
                continue;
            };
            self.clocks.hear(from, connection, slot, &clock.into_clock());
            // The clock first: what is collected afterwards is covered by it.
            let collected = self.local.collected(slot)?;
            let clock = self.local.clock(slot)?;
            answer.push((slot.0, WireClock::of(&clock), WireClock::of(&collected)));
        }
        Ok(Response::Clocks(answer))
    }
}

/// The slots whose digests are equal, and the others.
pub(super) fn split(
    slots: &[SlotId],
    mine: &BTreeMap<SlotId, u64>,
    theirs: &BTreeMap<SlotId, u64>,
) -> (Vec<SlotId>, Vec<SlotId>) {
    slots.iter().partition(|slot| mine.get(slot) == theirs.get(slot))
}
