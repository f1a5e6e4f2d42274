//! Dots gathered in key order, to be added to a clock in one go. Key order is no order of sequences: added one by
//! one, they would keep splitting and joining the clock's ranges, moving half of them each time.

use std::collections::BTreeMap;

use super::clock::{Clock, SeqSet, SlotClocks};
use super::op::Dot;
use super::slot::SlotId;
use super::stamp::OriginId;

/// Of one slot; 8 bytes each until they are a clock.
#[derive(Default)]
pub struct SlotDots(BTreeMap<OriginId, Vec<u64>>);

impl SlotDots {
    pub fn add(&mut self, origin: OriginId, seq: u64) {
        self.0.entry(origin).or_default().push(seq);
    }

    pub fn into_clock(self) -> Clock {
        let mut clock = Clock::default();
        for (origin, mut seqs) in self.0 {
            seqs.sort_unstable();
            clock.join_origin(origin, &set_of(seqs));
        }
        clock
    }
}

/// Of many slots, one after the other.
#[derive(Default)]
pub struct Dots {
    clocks: SlotClocks,
    /// The slot that is coming in.
    slot: Option<SlotId>,
    of_slot: SlotDots,
}

impl Dots {
    pub fn add(&mut self, dot: Dot) {
        if self.slot != Some(dot.slot) {
            self.end_slot();
            self.slot = Some(dot.slot);
        }
        self.of_slot.add(dot.origin, dot.seq);
    }

    fn end_slot(&mut self) {
        if let Some(slot) = self.slot.take() {
            let ended = std::mem::take(&mut self.of_slot).into_clock();
            self.clocks.join_slot(slot, &ended);
        }
    }

    pub fn clocks(&mut self) -> &SlotClocks {
        self.end_slot();
        &self.clocks
    }

    pub fn into_clocks(mut self) -> SlotClocks {
        self.end_slot();
        self.clocks
    }
}

impl SlotClocks {
    /// Puts them in: sorted, in one go for each origin of a slot.
    pub fn insert_all(&mut self, dots: &[Dot]) {
        for same in dots.chunk_by(|a, b| (a.slot, a.origin) == (b.slot, b.origin)) {
            let Dot { slot, origin, .. } = same[0];
            self.join_origin(slot, origin, &set_of(same.iter().map(|dot| dot.seq)));
        }
    }
}

fn set_of(seqs: impl IntoIterator<Item = u64>) -> SeqSet {
    let mut set = SeqSet::default();
    for seq in seqs {
        set.insert(seq);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::clock::MOVED;

    fn dots(count: u64) -> Vec<Dot> {
        let dot = |index: u64| Dot {
            origin: OriginId(index % 2),
            slot: SlotId((index / (count / 2 + 1)) as u16),
            // In no order: the factor is prime.
            seq: 1 + index * 7_919 % count,
        };
        (0..count).map(dot).collect()
    }

    fn one_by_one(dots: &[Dot]) -> SlotClocks {
        let mut clocks = SlotClocks::default();
        for dot in dots {
            clocks.insert(dot.slot, dot.origin, dot.seq);
        }
        clocks
    }

    #[test]
    fn gathered_they_are_the_same_clock_and_no_range_is_moved() {
        let dots = dots(20_000);
        let expected = one_by_one(&dots);
        let before = MOVED.get();
        let mut gathered = Dots::default();
        dots.iter().for_each(|dot| gathered.add(*dot));
        assert_eq!(*gathered.clocks(), expected);
        assert_eq!(gathered.into_clocks(), expected);
        assert_eq!(MOVED.get(), before);
    }

    #[test]
    fn many_are_put_into_a_clock_in_one_pass() {
        let dots = dots(20_000);
        let expected = one_by_one(&dots);
        let before = MOVED.get();
        let mut clocks = SlotClocks::default();
        for some in dots.chunks(1_000) {
            let mut some = some.to_vec();
            some.sort_unstable();
            clocks.insert_all(&some);
        }
        assert_eq!(clocks, expected);
        assert!(MOVED.get() - before < 20 * 20_000, "{} moved", MOVED.get() - before);
    }
}
