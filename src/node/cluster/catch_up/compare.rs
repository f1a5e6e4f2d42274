//! Comparing with a peer what both hold, and what follows where a clear was missed.
//!
//! *Reconciling*: a clear that every replica knew is gone (it was collected), and of one that had a request id only that is left. Either
//! makes a clock cover the clear and removes nothing. So before a node takes what it lacks of a slot, it removes what the peer covers and
//! holds no more: where the peer has collected clears that this node did not know when they compared, and, once with each peer, where this
//! node lost something, for then nobody may be left who collected what it missed. What the peer holds of a slot may take more than a message. Then
//! it is asked, piece by piece, which of the dots that are held here it has dropped.
//!
//! A slot that cannot be reconciled is left out, and keeps none of the others from being copied.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::SlotId;
use crate::node::OpError;
use crate::node::cluster::calls::{Broken, ask, error_of, refused};
use crate::node::cluster::clocks::{Portions, clock_bytes, portions};
use crate::node::cluster::{Inner, count};
use crate::node::local::Wanted;
use crate::node::peers::Peer;
use crate::planted::{Bug, planted};
use crate::shard::{WriteContext, WriteKind};
use crate::wire::{Request, Response, WireClock, WireError};

/// See `Inner::dots_bytes_max`.
pub(in crate::node::cluster) const DOTS_BYTES_MAX: usize = 1 << 20;

/// What an exchange of clocks with a peer showed.
#[derive(Default)]
pub(super) struct Compared {
    /// This node's clocks at the time.
    pub mine: SlotClocks,
    /// What the peer covers and this node does not.
    pub lacking: SlotClocks,
    /// Slots that could not be reconciled, and of which nothing may be copied.
    pub left_out: BTreeMap<SlotId, Broken>,
}

impl Inner {
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
                let known = known.as_ref().unwrap_or(&mine);
                match self.reconcile_if_needed(peer, slot, known, collected).await {
                    Ok(()) => {}
                    // That it takes too long says nothing of the others: of a peer that does not answer at all, the connection ends.
                    Err(error @ (Broken::Peer | Broken::Answer)) => return Err(error),
                    Err(error) => _ = compared.left_out.insert(slot, error),
                }
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
        let gone = match ask(peer, Request::HeldDots { slot: slot.0 }).await {
            Ok(Response::HeldDots { texts, covered }) => {
                let dropped = covered.into_clock().minus(&texts.into_clock());
                held.meet(&dropped)
            }
            Ok(Response::Failed(error)) => return Err(Broken::Refused(error_of(error).to_string())),
            Ok(_) => return Err(Broken::Answer),
            Err(Broken::Refused(_)) => self.dropped_at(peer, slot, held).await?,
            Err(error) => return Err(error),
        };
        if gone.is_empty() {
            return Ok(());
        }
        count(&self.counters.reconciled_slots);
        tracing::warn!(peer = %peer.node(), slot = slot.0, ops = gone.count(), "ops that all others have dropped are removed");
        let mut wants = SlotClocks::default();
        wants.join_slot(slot, &gone);
        let mut export = self.local.ops_with(&wants)?;
        let mut by_key: BTreeMap<_, Clock> = BTreeMap::new();
        while let Some(ops) = export.next(self.pages.pull_bytes).await? {
            for keyed in ops {
                let dots = by_key.entry((keyed.user, keyed.key)).or_default();
                dots.insert(keyed.op.dot.origin, keyed.op.dot.seq);
            }
        }
        for ((user, key), dots) in by_key {
            // Each has to fit into a message, with which others get it.
            for dots in self.pieces(slot, &dots) {
                let wanted = Wanted {
                    user: &user,
                    key: &key,
                    kind: WriteKind::ClearDots(dots),
                    request_id: None,
                };
                self.local.write(wanted, WriteContext::default()).await?;
            }
        }
        Ok(())
    }

    /// Which of these dots of texts the peer covers and holds no more, asked piece by piece.
    async fn dropped_at(&self, peer: &Peer, slot: SlotId, held: Clock) -> Result<Clock, Broken> {
        let mut dropped = Clock::default();
        let mut left = self.pieces(slot, &held);
        while let Some(piece) = left.pop() {
            let request = Request::Dropped {
                slot: slot.0,
                dots: WireClock::of(&piece),
            };
            match ask(peer, request).await {
                Ok(Response::Dropped(dots)) => dropped.join(&dots.into_clock().meet(&piece)),
                Ok(Response::Failed(error)) => return Err(Broken::Refused(error_of(error).to_string())),
                Ok(_) => return Err(Broken::Answer),
                // Of one range every second dot may be dropped.
                Err(Broken::Refused(_)) if piece.count() > 1 => left.extend(halves(&piece)),
                Err(error) => return Err(error),
            }
        }
        Ok(dropped)
    }

    /// The same dots, each time about as many as go into a message.
    fn pieces(&self, slot: SlotId, dots: &Clock) -> Vec<Clock> {
        let mut all = SlotClocks::default();
        all.join_slot(slot, dots);
        let portions = portions(&all, self.dots_bytes_max()).into_iter();
        portions.filter_map(|mut piece| piece.remove_slot(slot)).collect()
    }

    fn dots_bytes_max(&self) -> usize {
        self.dots_bytes_max.load(Ordering::Relaxed)
    }

    pub(in crate::node::cluster) async fn answer_held_dots(&self, slot: u16) -> Result<Response, OpError> {
        let slot = crate::wire::slot_of(slot).map_err(refused)?;
        let held = self.local.held_dots(slot).await?;
        if clock_bytes(&held.texts) + clock_bytes(&held.covered) > self.dots_bytes_max() {
            return Ok(too_much());
        }
        Ok(Response::HeldDots {
            texts: WireClock::of(&held.texts),
            covered: WireClock::of(&held.covered),
        })
    }

    pub(in crate::node::cluster) async fn answer_dropped(&self, slot: u16, dots: &Clock) -> Result<Response, OpError> {
        let slot = crate::wire::slot_of(slot).map_err(refused)?;
        let held = self.local.held_dots(slot).await?;
        let dropped = dots.meet(&held.covered).minus(&held.texts);
        Ok(match clock_bytes(&dropped) > 2 * self.dots_bytes_max() {
            true => too_much(),
            false => Response::Dropped(WireClock::of(&dropped)),
        })
    }
}

fn too_much() -> Response {
    let why = "what is held of the slot takes too much for one answer";
    Response::Failed(WireError::Refused(why.to_owned()))
}

/// The same dots, half of them each.
fn halves(dots: &Clock) -> [Clock; 2] {
    let mut first = Clock::default();
    let mut left = dots.count() / 2;
    for (origin, set) in dots.origins() {
        for &(from, to) in set.ranges() {
            let taken = left.min((to - from).saturating_add(1));
            if taken > 0 {
                first.insert_range(origin, from, from + (taken - 1));
            }
            left -= taken;
        }
    }
    let second = dots.minus(&first);
    [first, second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::stamp::OriginId;

    #[test]
    fn both_halves_together_are_the_whole() {
        let mut dots = Clock::default();
        dots.insert_range(OriginId(1), 1, 1);
        dots.insert_range(OriginId(2), 5, 9);
        dots.insert_range(OriginId(2), 20, u64::MAX - 1);
        let mut left = vec![dots.clone()];
        for _ in 0..100 {
            let most = left.pop().unwrap();
            let count = most.count();
            let [first, second] = halves(&most);
            assert_eq!((first.count(), second.count()), (count / 2, count - count / 2));
            assert!(!first.meets(&second));
            let mut both = first.clone();
            both.join(&second);
            assert_eq!(both, most);
            match second.count() > 1 {
                true => left.push(second),
                false => return,
            }
        }
        panic!("it does not end");
    }
}
