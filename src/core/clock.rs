//! Clocks: which sequences of which origins a replica holds or knows to be cleared.
//!
//! Laws (property-tested): `join` and `meet` are commutative, associative and idempotent; `a.join(b)` covers exactly what `a` or `b`
//! covers; `a.meet(b)` what both cover; `a.minus(b)` what `a` covers and `b` does not.
//!
//! Invariant: no origin has an empty set, so clocks that cover the same are equal, and have one digest on every machine.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use super::slot::SlotId;
use super::stamp::OriginId;

/// Joined ranges up to so many are put in one by one; more, in one pass over what is there.
const JOINED_ONE_BY_ONE_MAX: usize = 8;

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
        // The usual case, behind all that there is, touches no other range.
        if let Some(tail) = self.ranges.last_mut()
            && first > tail.1
        {
            match first - tail.1 {
                1 => tail.1 = last,
                _ => self.ranges.push((first, last)),
            }
            return;
        }
        let from = self.first_touched(first);
        let to = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        let mut merged = (first, last);
        for range in &self.ranges[from..to] {
            merged = (merged.0.min(range.0), merged.1.max(range.1));
        }
        #[cfg(test)]
        MOVED.set(MOVED.get() + (self.ranges.len() - to) as u64);
        self.ranges.splice(from..to, [merged]);
    }

    /// Of the ranges, the first one that a range which begins at `first` may touch.
    fn first_touched(&self, first: u64) -> usize {
        self.ranges.partition_point(|range| range.1 < first.saturating_sub(1))
    }

    pub fn join(&mut self, other: &Self) {
        if self.ranges.is_empty() {
            self.ranges.clone_from(&other.ranges);
            return;
        }
        if other.ranges.len() > JOINED_ONE_BY_ONE_MAX {
            return self.join_in_one_pass(&other.ranges);
        }
        for &(first, last) in &other.ranges {
            self.insert_range(first, last);
        }
    }

    /// Goes once through what `self` holds from the first of these ranges on.
    fn join_in_one_pass(&mut self, other: &[(u64, u64)]) {
        let Some((first, _)) = other.first() else { return };
        let held = self.ranges.split_off(self.first_touched(*first));
        #[cfg(test)]
        MOVED.set(MOVED.get() + held.len() as u64);
        self.ranges.reserve(held.len() + other.len());
        let (mut held, mut other) = (held.as_slice(), other);
        while let Some(range) = take_first(&mut held, &mut other) {
            match self.ranges.last_mut() {
                Some(tail) if range.0 <= tail.1.saturating_add(1) => tail.1 = tail.1.max(range.1),
                _ => self.ranges.push(range),
            }
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

    /// What both hold.
    pub fn meet(&self, other: &Self) -> Self {
        let ranges = self.overlaps(other).collect();
        Self { ranges }
    }

    /// Whether there is a sequence that both hold.
    pub fn meets(&self, other: &Self) -> bool {
        self.overlaps(other).next().is_some()
    }

    /// The ranges of what both hold. No two of them touch: between them, one of the sets has a gap.
    fn overlaps<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (u64, u64)> + 'a {
        let (mut a, mut b) = (self.ranges.as_slice(), other.ranges.as_slice());
        std::iter::from_fn(move || {
            while let ([(a_first, a_last), ..], [(b_first, b_last), ..]) = (a, b) {
                let overlap = (*a_first.max(b_first), *a_last.min(b_last));
                if a_last <= b_last {
                    a = &a[1..];
                } else {
                    b = &b[1..];
                }
                if overlap.0 <= overlap.1 {
                    return Some(overlap);
                }
            }
            None
        })
    }

    pub fn covers(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }
}

/// Of two ascending lists, the range that comes first.
fn take_first<'a>(a: &mut &'a [(u64, u64)], b: &mut &'a [(u64, u64)]) -> Option<(u64, u64)> {
    let from = match (a.first(), b.first()) {
        (Some(of_a), Some(of_b)) if of_b < of_a => b,
        (None, _) => b,
        _ => a,
    };
    let (first, rest) = from.split_first()?;
    *from = rest;
    Some(*first)
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

    pub fn remove_origin(&mut self, origin: OriginId) {
        self.origins.remove(&origin);
    }

    pub fn join(&mut self, other: &Self) {
        for (origin, set) in &other.origins {
            self.origins.entry(*origin).or_default().join(set);
        }
    }

    pub fn join_origin(&mut self, origin: OriginId, set: &SeqSet) {
        if !set.is_empty() {
            self.origins.entry(origin).or_default().join(set);
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

    /// What both cover.
    pub fn meet(&self, other: &Self) -> Self {
        let both = |(origin, set): (&OriginId, &SeqSet)| Some((*origin, set.meet(other.origins.get(origin)?)));
        let origins = self.origins.iter().filter_map(both);
        Self {
            origins: origins.filter(|(_, set)| !set.is_empty()).collect(),
        }
    }

    /// Whether there is a dot that both cover.
    pub fn meets(&self, other: &Self) -> bool {
        let meets = |(origin, set): (&OriginId, &SeqSet)| other.origins.get(origin).is_some_and(|held| held.meets(set));
        self.origins.iter().any(meets)
    }

    pub fn covers(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }

    /// 64-bit XXH3 of what it covers, the same on every machine and in every version: nodes compare it. 0 for the empty clock alone.
    pub fn digest(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let mut hash = Xxh3::new();
        for (origin, set) in &self.origins {
            // How many ranges there are comes first, so that no set can pass for one and the next origin.
            hash.update(&origin.0.to_le_bytes());
            hash.update(&(set.ranges.len() as u64).to_le_bytes());
            for (first, last) in &set.ranges {
                hash.update(&first.to_le_bytes());
                hash.update(&last.to_le_bytes());
            }
        }
        hash.digest().max(1)
    }
}

#[cfg(test)]
thread_local! {
    /// How often clocks of many slots were copied to take something off.
    pub static COPIED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    /// How many ranges had to make way for others.
    pub static MOVED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
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
        if !clock.is_empty() {
            self.slots.entry(slot).or_default().join(clock);
        }
    }

    pub fn join_origin(&mut self, slot: SlotId, origin: OriginId, set: &SeqSet) {
        if !set.is_empty() {
            self.slots.entry(slot).or_default().join_origin(origin, set);
        }
    }

    /// Takes the slot's clock out.
    pub fn remove_slot(&mut self, slot: SlotId) -> Option<Clock> {
        self.slots.remove(&slot)
    }

    /// Keeps the slots that `wanted` accepts.
    pub fn retain_slots(&mut self, mut wanted: impl FnMut(SlotId) -> bool) {
        self.slots.retain(|slot, _| wanted(*slot));
    }

    pub fn join(&mut self, other: &Self) {
        for (slot, clock) in &other.slots {
            self.join_slot(*slot, clock);
        }
    }

    /// What `self` covers and `other` does not.
    pub fn minus(&self, other: &Self) -> Self {
        #[cfg(test)]
        COPIED.set(COPIED.get() + 1);
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

    /// What both cover.
    pub fn meet(&self, other: &Self) -> Self {
        let both = |(slot, clock): (&SlotId, &Clock)| Some((*slot, clock.meet(other.slots.get(slot)?)));
        let slots = self.slots.iter().filter_map(both);
        Self {
            slots: slots.filter(|(_, clock)| !clock.is_empty()).collect(),
        }
    }

    pub fn covers(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
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

    fn slot_clocks(ranges: &[(u64, u64)]) -> SlotClocks {
        let mut clocks = SlotClocks::default();
        for &(first, last) in ranges {
            clocks.insert_range(SlotId((first % 2) as u16), OriginId(first % 3), first, last);
        }
        clocks
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
            let mut in_one_pass = set_a.clone();
            in_one_pass.join_in_one_pass(set_b.ranges());
            prop_assert_eq!(in_one_pass, joined);
            prop_assert_eq!(listed(&set_a.minus(&set_b)), &model_a - &model_b);
            prop_assert_eq!(set_a.covers(&set_b), model_a.is_superset(&model_b));
            let met = set_a.meet(&set_b);
            prop_assert_eq!(listed(&met), &model_a & &model_b);
            prop_assert_eq!(&met, &build(met.ranges()).0, "of one form");
            prop_assert_eq!(set_a.meets(&set_b), !met.is_empty());
        }

        #[test]
        fn meet_is_what_minus_and_join_say_it_is(a in ranges(), b in ranges(), c in ranges()) {
            let (a, b, c) = (slot_clocks(&a), slot_clocks(&b), slot_clocks(&c));
            let join = |x: &SlotClocks, y: &SlotClocks| { let mut z = x.clone(); z.join(y); z };
            prop_assert_eq!(a.meet(&b), a.minus(&a.minus(&b)));
            prop_assert_eq!(a.meet(&b), b.meet(&a));
            prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
            prop_assert_eq!(a.meet(&a), a.clone());
            prop_assert_eq!(a.meet(&join(&b, &c)), join(&a.meet(&b), &a.meet(&c)));
            prop_assert_eq!(join(&a.meet(&b), &a.minus(&b)), a.clone());
            prop_assert!(a.covers(&a.meet(&b)) && b.covers(&a.meet(&b)));
            let none = Clock::default();
            for (slot, clock) in a.slots() {
                let other = b.get(slot).unwrap_or(&none);
                prop_assert_eq!(clock.meets(other), !clock.meet(other).is_empty());
            }
        }

        #[test]
        fn clocks_are_equal_when_their_digests_are(a in ranges(), b in ranges(), reversed in any::<bool>()) {
            let clock = |ranges: &[(u64, u64)]| slot_clocks(ranges).remove_slot(SlotId(0)).unwrap_or_default();
            let mut b = if reversed { a.iter().rev().copied().collect() } else { b };
            b.extend(b.clone());
            let (a, b) = (clock(&a), clock(&b));
            prop_assert_eq!(a == b, a.digest() == b.digest());
            prop_assert_eq!(a.is_empty(), a.digest() == 0);
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
    fn the_digest_of_a_known_clock_never_changes() {
        let mut clock = Clock::default();
        assert_eq!(clock.digest(), 0);
        clock.insert_range(OriginId(0xfeed), 1, 9);
        clock.insert(OriginId(0xfeed), 12);
        clock.insert(OriginId(7), 3);
        let numbers: [u64; 9] = [7, 1, 3, 3, 0xfeed, 2, 1, 9, 12];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend_from_slice(&12u64.to_le_bytes());
        assert_eq!(clock.digest(), xxhash_rust::xxh3::xxh3_64(&bytes));
        assert_eq!(clock.digest(), 2_385_063_920_369_125_527);
    }

    #[test]
    fn slots_can_be_taken_out() {
        let mut clocks = slot_clocks(&[(2, 5), (3, 9)]);
        clocks.join_slot(SlotId(9), &Clock::default());
        assert_eq!(clocks.slots().map(|(slot, _)| slot.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(clocks.remove_slot(SlotId(1)).unwrap().count(), 7);
        clocks.retain_slots(|slot| slot.0 > 0);
        assert!(clocks.is_empty());
    }

    #[test]
    fn the_largest_sequences_do_not_overflow() {
        let mut set = SeqSet::range(u64::MAX - 1, u64::MAX);
        set.insert(u64::MAX);
        set.insert(3);
        assert!(set.contains(u64::MAX) && !set.contains(u64::MAX - 2));
        assert!(SeqSet::range(1, u64::MAX).minus(&set).contains(4));
        let mut joined = set.clone();
        joined.join_in_one_pass(&[(2, 2), (5, u64::MAX)]);
        assert_eq!(joined.ranges(), [(2, 3), (5, u64::MAX)]);
    }
}
