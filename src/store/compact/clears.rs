//! What the clears of a key remove, and which of them are still needed.

use crate::core::clock::{Clock, SeqSet};
use crate::core::op::{Body, Dot, Op};
use crate::core::stamp::HybridTime;
use crate::planted::{Bug, planted};

/// What an origin takes in a clock that is held in memory, and each of its ranges.
const ORIGIN_BYTES: usize = 96;
const RANGE_BYTES: usize = 16;

/// The clears of one key.
pub(super) struct KeyClears {
    pub(super) cleared: Clock,
    pub(super) last_time: HybridTime,
    /// Only those that no other one includes: of a key that is cleared again and again, each time with the whole clock of its slot, only
    /// the last.
    clears: Vec<(Dot, Clock)>,
}

impl KeyClears {
    /// `in_memory` is what those saw that are still in memtables.
    pub(super) fn new(in_memory: Option<&Clock>) -> Self {
        Self {
            cleared: in_memory.cloned().unwrap_or_default(),
            last_time: HybridTime::default(),
            clears: Vec::new(),
        }
    }

    /// The next op of the key, which need not be a clear.
    pub(super) fn see(&mut self, op: &Op) {
        let Body::Clear(seen) = &op.body else { return };
        self.cleared.join(seen);
        self.last_time = op.time.max(self.last_time);
        let is_copy = || self.clears.iter().any(|(dot, _)| *dot == op.dot);
        if is_copy() || self.saw(&op.dot, seen) {
            return;
        }
        self.clears.retain(|(dot, context)| !includes((dot, context), seen));
        self.clears.push((op.dot, seen.clone()));
    }

    /// Whether another clear of the key saw this one and all that it saw. (Then so does every clear that includes that other one.)
    pub(super) fn includes(&self, dot: &Dot, seen: &Clock) -> bool {
        planted(Bug::ClearDroppedEarly) || self.saw(dot, seen)
    }

    fn saw(&self, dot: &Dot, seen: &Clock) -> bool {
        // From the newest: mostly it saw all that came before it.
        let mut others = self.clears.iter().rev();
        others.any(|(other, context)| other != dot && includes((dot, seen), context))
    }
}

/// Whether this is the context of a clear that saw the other one and all that it saw.
fn includes((dot, seen): (&Dot, &Clock), context: &Clock) -> bool {
    context.contains(dot.origin, dot.seq) && context.covers(seen)
}

/// About what an op takes in memory that may take much: its text, or what it saw.
pub(super) fn held_bytes(op: &Op) -> usize {
    match &op.body {
        Body::Part(text) | Body::Value(text) => text.len(),
        Body::Clear(seen) => {
            let origin = |set: &SeqSet| ORIGIN_BYTES + RANGE_BYTES * set.ranges().len();
            seen.origins().map(|(_, set)| origin(set)).sum()
        }
        Body::Spent { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::slot::SlotId;
    use crate::core::stamp::OriginId;

    fn clear(origin: u64, seq: u64, seen: Clock) -> Op {
        Op {
            dot: Dot {
                origin: OriginId(origin),
                slot: SlotId(1),
                seq,
            },
            time: HybridTime(seq),
            request_id: None,
            body: Body::Clear(seen),
        }
    }

    fn all_before(seq: u64) -> Clock {
        let mut seen = Clock::default();
        seen.insert_range(OriginId(1), 1, seq - 1);
        seen
    }

    #[test]
    fn of_many_clears_of_a_key_the_last_one_is_held() {
        let mut clears = KeyClears::new(None);
        for seq in 2..1_000 {
            clears.see(&clear(1, seq, all_before(seq)));
        }
        assert_eq!(clears.clears.len(), 1);
        assert!((2..999).all(|seq| {
            let Op { dot, body, .. } = clear(1, seq, all_before(seq));
            matches!(body, Body::Clear(seen) if clears.includes(&dot, &seen))
        }));
    }

    proptest! {
        /// Each clear has seen some of those before it, and some of the values: in whatever order they come, those go that another one includes.
        #[test]
        fn what_is_not_held_is_missed_by_none(
            list in proptest::collection::vec((1u64..3, any::<u32>(), any::<bool>()), 0..20),
            order in any::<[prop::sample::Index; 20]>(),
        ) {
            let mut made: Vec<Op> = Vec::new();
            for (index, (origin, chance, sees_all)) in list.into_iter().enumerate() {
                let mut seen = Clock::default();
                for (at, before) in made.iter().enumerate().filter(|(at, _)| sees_all || chance >> at & 1 == 1) {
                    seen.insert(before.dot.origin, before.dot.seq);
                    // A clear that saw it mostly saw all that it saw.
                    if let Body::Clear(context) = &before.body && chance >> (at + 10) & 1 == 1 {
                        seen.join(context);
                    }
                }
                seen.insert_range(OriginId(9), 1, u64::from(chance >> 28));
                made.push(clear(origin, index as u64 + 1, seen));
            }
            let mut turns: Vec<&Op> = made.iter().collect();
            for (at, other) in order.iter().enumerate().take(turns.len()) {
                turns.swap(at, other.index(made.len()));
            }
            let mut clears = KeyClears::new(None);
            // Copies too.
            turns.iter().chain(turns.iter().take(3)).for_each(|op| clears.see(op));
            let mut cleared = Clock::default();
            for op in &made {
                let Body::Clear(seen) = &op.body else { unreachable!() };
                let is_included = made.iter().any(|other| {
                    matches!(&other.body, Body::Clear(context) if other.dot != op.dot && includes((&op.dot, seen), context))
                });
                prop_assert_eq!(clears.includes(&op.dot, seen), is_included);
                cleared.join(seen);
            }
            prop_assert_eq!(clears.cleared, cleared);
            prop_assert_eq!(clears.last_time, HybridTime(made.len() as u64));
        }
    }
}
