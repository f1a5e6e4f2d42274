//! Clocks: which sequences of which origins a replica holds or knows to be cleared.
//!
//! Laws (property-tested): `join` is commutative, associative and idempotent; `a.join(b)` covers exactly what `a` or `b`
//! covers; `a.minus(b)` covers exactly what `a` covers and `b` does not.

use std::collections::BTreeMap;

use super::slot::SlotId;
use super::stamp::OriginId;

/// A set of sequence numbers, as disjoint, non-adjacent, ascending inclusive ranges. Sequences start at 1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SeqSet {
    ranges: Vec<(u64, u64)>,
}

impl SeqSet {
    pub fn range(first: u64, last: u64) -> Self {
        let mut set = Self::default();
        set.insert_range(first, last);
        set
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Ascending, disjoint, inclusive.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// How many sequences it holds.
    pub fn count(&self) -> u64 {
        self.ranges.iter().fold(0, |sum: u64, (first, last)| {
            sum.saturating_add((last - first).saturating_add(1))
        })
    }

    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|range| range.1)
    }

    pub fn contains(&self, seq: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= seq);
        after > 0 && self.ranges[after - 1].1 >= seq
    }

    pub fn insert(&mut self, seq: u64) {
        self.insert_range(seq, seq);
    }

    /// Adds `first..=last`; nothing when `first > last`.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // The usual case, an append at the end, touches no other range.
        if let Some(tail) = self.ranges.last_mut()
            && first == tail.1.wrapping_add(1)
            && first > tail.0
        {
            tail.1 = last;
            return;
        }
        let from = self.ranges.partition_point(|range| range.1 < first.saturating_sub(1));
        let to = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        let mut merged = (first, last);
        for range in &self.ranges[from..to] {
            merged = (merged.0.min(range.0), merged.1.max(range.1));
        }
        self.ranges.splice(from..to, [merged]);
    }

    pub fn join(&mut self, other: &Self) {
        for &(first, last) in &other.ranges {
            self.insert_range(first, last);
        }
    }

    /// What `self` holds and `other` does not.
    pub fn minus(&self, other: &Self) -> Self {
        let mut result = Self::default();
        for &(first, last) in &self.ranges {
            let mut next = first;
            let overlap = other.ranges.partition_point(|range| range.1 < first);
            for &(hole_first, hole_last) in &other.ranges[overlap..] {
                if hole_first > last || next > last {
                    break;
                }
                if hole_first > next {
                    result.insert_range(next, hole_first - 1);
                }
                next = next.max(hole_last.saturating_add(1));
            }
            result.insert_range(next, last);
        }
        result
    }

    pub fn covers(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }
}

/// For each origin, a set of sequences, all of one slot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    origins: BTreeMap<OriginId, SeqSet>,
}

impl Clock {
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.origins.values().map(SeqSet::count).fold(0, u64::saturating_add)
    }

    pub fn origins(&self) -> impl Iterator<Item = (OriginId, &SeqSet)> {
        self.origins.iter().map(|(origin, set)| (*origin, set))
    }

    pub fn get(&self, origin: OriginId) -> Option<&SeqSet> {
        self.origins.get(&origin)
    }

    pub fn contains(&self, origin: OriginId, seq: u64) -> bool {
        self.origins.get(&origin).is_some_and(|set| set.contains(seq))
    }

    pub fn insert(&mut self, origin: OriginId, seq: u64) {
        self.insert_range(origin, seq, seq);
    }

    pub fn insert_range(&mut self, origin: OriginId, first: u64, last: u64) {
        if first <= last {
            self.origins.entry(origin).or_default().insert_range(first, last);
        }
    }

    pub fn join(&mut self, other: &Self) {
        for (origin, set) in &other.origins {
            self.origins.entry(*origin).or_default().join(set);
        }
    }

    /// What `self` covers and `other` does not.
    pub fn minus(&self, other: &Self) -> Self {
        let mut result = Self::default();
        for (origin, set) in &self.origins {
            let rest = match other.origins.get(origin) {
                Some(hole) => set.minus(hole),
                None => set.clone(),
            };
            if !rest.is_empty() {
                result.origins.insert(*origin, rest);
            }
        }
        result
    }

    pub fn covers(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }
}

/// The clocks of many slots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlotClocks {
    slots: BTreeMap<SlotId, Clock>,
}

impl SlotClocks {
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.slots.values().map(Clock::count).fold(0, u64::saturating_add)
    }

    pub fn slots(&self) -> impl Iterator<Item = (SlotId, &Clock)> {
        self.slots.iter().map(|(slot, clock)| (*slot, clock))
    }

    pub fn get(&self, slot: SlotId) -> Option<&Clock> {
        self.slots.get(&slot)
    }

    pub fn contains(&self, slot: SlotId, origin: OriginId, seq: u64) -> bool {
        self.slots.get(&slot).is_some_and(|clock| clock.contains(origin, seq))
    }

    pub fn insert(&mut self, slot: SlotId, origin: OriginId, seq: u64) {
        self.slots.entry(slot).or_default().insert(origin, seq);
    }

    pub fn insert_range(&mut self, slot: SlotId, origin: OriginId, first: u64, last: u64) {
        if first <= last {
            self.slots.entry(slot).or_default().insert_range(origin, first, last);
        }
    }

    pub fn join_slot(&mut self, slot: SlotId, clock: &Clock) {
        self.slots.entry(slot).or_default().join(clock);
    }

    pub fn join(&mut self, other: &Self) {
        for (slot, clock) in &other.slots {
            self.join_slot(*slot, clock);
        }
    }

    /// What `self` covers and `other` does not.
    pub fn minus(&self, other: &Self) -> Self {
        let mut result = Self::default();
        for (slot, clock) in &self.slots {
            let rest = match other.slots.get(slot) {
                Some(hole) => clock.minus(hole),
                None => clock.clone(),
            };
            if !rest.is_empty() {
                result.slots.insert(*slot, rest);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec(
            (1u64..60, 0u64..6).prop_map(|(first, more)| (first, first + more)),
            0..12,
        )
    }

    fn build(ranges: &[(u64, u64)]) -> (SeqSet, BTreeSet<u64>) {
        let mut set = SeqSet::default();
        let mut model = BTreeSet::new();
        for &(first, last) in ranges {
            set.insert_range(first, last);
            model.extend(first..=last);
        }
        (set, model)
    }

    fn listed(set: &SeqSet) -> BTreeSet<u64> {
        set.ranges().iter().flat_map(|&(first, last)| first..=last).collect()
    }

    proptest! {
        #[test]
        fn a_seq_set_is_a_set(a in ranges(), b in ranges()) {
            let ((set_a, model_a), (set_b, model_b)) = (build(&a), build(&b));
            prop_assert_eq!(listed(&set_a), model_a.clone());
            prop_assert!(set_a.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            prop_assert!((0..80).all(|seq| set_a.contains(seq) == model_a.contains(&seq)));
            prop_assert_eq!(set_a.count() as usize, model_a.len());
            let mut joined = set_a.clone();
            joined.join(&set_b);
            prop_assert_eq!(listed(&joined), &model_a | &model_b);
            prop_assert_eq!(listed(&set_a.minus(&set_b)), &model_a - &model_b);
            prop_assert_eq!(set_a.covers(&set_b), model_a.is_superset(&model_b));
        }

        #[test]
        fn join_is_commutative_associative_idempotent(a in ranges(), b in ranges(), c in ranges()) {
            let clock = |ranges: &[(u64, u64)]| {
                let mut clock = Clock::default();
                for &(first, last) in ranges {
                    clock.insert_range(OriginId(first % 3), first, last);
                }
                clock
            };
            let (a, b, c) = (clock(&a), clock(&b), clock(&c));
            let join = |x: &Clock, y: &Clock| { let mut z = x.clone(); z.join(y); z };
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
            prop_assert_eq!(join(&a, &a), a);
        }
    }

    #[test]
    fn the_largest_sequences_do_not_overflow() {
        let mut set = SeqSet::range(u64::MAX - 1, u64::MAX);
        set.insert(u64::MAX);
        set.insert(3);
        assert!(set.contains(u64::MAX) && !set.contains(u64::MAX - 2));
        assert!(SeqSet::range(1, u64::MAX).minus(&set).contains(4));
    }
}
