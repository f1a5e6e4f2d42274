//! What a shard calls its own ops: their origin, sequence and time.
//!
//! Invariants:
//! - no dot is given twice: the next sequence of a slot lies beyond all that were ever here of the origin, those that were lost too;
//! - the next op is stamped later than all that was observed.

use std::ops::Range;

use super::dots::Dots;
use crate::core::op::Dot;
use crate::core::slot::SlotId;
use crate::core::stamp::{HybridClock, HybridTime, OriginId};
use crate::store::recover::{ClosedOrigins, Place};
use crate::types::WallMs;

pub(super) struct Naming {
    origin: OriginId,
    /// What the folder's former origins held when they ended.
    closed: ClosedOrigins,
    first_slot: u16,
    /// The next sequence of this origin, per slot of the run.
    next_seq: Vec<u64>,
    clock: HybridClock,
}

impl Naming {
    /// To be followed by `set_origin`.
    pub fn found(origin: OriginId, closed: ClosedOrigins, slots: &Range<u16>, max_time: HybridTime) -> Self {
        let mut clock = HybridClock::default();
        clock.observe(max_time);
        Self {
            origin,
            closed,
            first_slot: slots.start,
            next_seq: vec![1; slots.len()],
            clock,
        }
    }

    /// Names by this origin from here on. `dots` is what is here when the ones before it end. Blocks on the disk.
    pub fn set_origin(&mut self, origin: OriginId, dots: &Dots, place: &Place) {
        if let Some(own) = &place.own_origins {
            let mut own = own.as_ref().clone();
            own.insert(self.origin);
            let (disk, dir) = (&*place.disk, &place.dir);
            if let Err(error) = self.closed.close(&own, origin, dots.covered(), disk, dir) {
                // Gaps that come from elsewhere will look like losses, until the other replicas were asked.
                tracing::warn!(shard = place.shard, %error, "it cannot be noted what former origins held");
            }
        }
        self.origin = origin;
        for (index, next) in self.next_seq.iter_mut().enumerate() {
            let slot = SlotId(self.first_slot + index as u16);
            *next = dots.last_of(slot, origin) + 1;
        }
    }

    pub fn origin(&self) -> OriginId {
        self.origin
    }

    /// The dot of the slot's next op. It is given again until it is used.
    pub fn next_dot(&self, slot: SlotId) -> Dot {
        Dot {
            origin: self.origin,
            slot,
            seq: self.next_seq[self.index(slot)],
        }
    }

    /// An op has the next dot of the slot.
    pub fn use_dot(&mut self, slot: SlotId) {
        let index = self.index(slot);
        self.next_seq[index] += 1;
    }

    fn index(&self, slot: SlotId) -> usize {
        usize::from(slot.0 - self.first_slot)
    }

    /// For an op that comes after `after`, and after all that was observed.
    pub fn next_time(&self, after: HybridTime, now: WallMs) -> HybridTime {
        self.clock.next_after(after, now)
    }

    pub fn observe(&mut self, time: HybridTime) {
        self.clock.observe(time);
    }

    pub fn highest_time(&self) -> HybridTime {
        self.clock.last()
    }
}
