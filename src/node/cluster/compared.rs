//! What this node answers to a peer that compares clocks with it.

use super::Inner;
use super::settled::digest_of;
use crate::core::clock::Clock;
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::node::OpError;
use crate::types::NodeId;
use crate::wire::{Response, WireClock};

impl Inner {
    pub(super) fn answer_compare(&self, from: NodeId, digest: u64) -> Result<Response, OpError> {
        self.check_all_serve()?;
        if !self.layouts.current().table.is_up(from) {
            // Its table may be newer, and which slots both hold is not known here: none of them must look empty, and so equal, to it.
            let own = self.local.clocks();
            let differs = |slot| (slot, !own.get(SlotId(slot)).map_or(0, Clock::digest));
            return Ok(Response::Differ((0..=SYSTEM_SLOT.0).map(differs).collect()));
        }
        let mut digests = self.digests(&self.shared_slots(from));
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
