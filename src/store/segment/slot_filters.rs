//! The filter of a segment: one filter for each of several ranges of slots, or several for one range, among which a tag's own bits choose.
//! So a look-up asks exactly one, and while a segment is written only one is being built: that takes some 25 bytes a tag,
//! besides 8 to 16 for the tag itself.
//!
//! Invariant: it never says no to a tag of a slot that it was built from.
//!
//! Encoded as: varint count, then for each range: varint last slot | varint count | for each of its filters: varint length, the
//! filter (`filter.rs`). The first range begins at slot 0, each other one behind the one before it.
//!
//! Corrupt if: anything is cut short; the ranges do not ascend; a range has no filter; a filter breaks a rule of its own.

use std::borrow::Cow;

use bytes::Bytes;

use crate::core::slot::{SLOT_COUNT, SlotId};
use crate::store::codec::{Cursor, Malformed, put_varint};
use crate::store::filter::{Filter, part_of};

/// A range ends with the slot in which it has so many tags.
const RANGE_TAGS_MIN: usize = 256 * 1024;
/// And of a slot that brings many more at once, each filter has about so many.
const FILTER_TAGS_MAX: usize = 512 * 1024;

#[derive(Default)]
pub struct SlotFilters(Vec<SlotRange>);

struct SlotRange {
    last: SlotId,
    /// At least one.
    filters: Vec<Filter>,
}

impl SlotFilters {
    /// As it was before there were ranges.
    pub fn of_all_slots(filter: Filter) -> Self {
        Self(vec![SlotRange {
            last: SlotId(SLOT_COUNT),
            filters: vec![filter],
        }])
    }

    pub fn may_hold(&self, slot: SlotId, tag: u64) -> bool {
        let range = self.0.partition_point(|range| range.last < slot);
        let Some(SlotRange { filters, .. }) = self.0.get(range) else {
            return false;
        };
        let filter = filters.get(part_of(tag, filters.len()));
        filter.is_some_and(|filter| filter.may_hold(tag))
    }

    pub fn memory_bytes(&self) -> usize {
        let filters = self.0.iter().flat_map(|range| &range.filters);
        filters.map(Filter::memory_bytes).sum()
    }

    /// Adds one piece behind the other; no filter is copied.
    pub fn put_pieces<'a>(&'a self, pieces: &mut Vec<Cow<'a, [u8]>>) {
        let mut out = Vec::new();
        put_varint(&mut out, self.0.len() as u64);
        for SlotRange { last, filters } in &self.0 {
            put_varint(&mut out, u64::from(last.0));
            put_varint(&mut out, filters.len() as u64);
            for filter in filters {
                let (head, fingerprints) = filter.encoded();
                put_varint(&mut out, (head.len() + fingerprints.len()) as u64);
                out.extend_from_slice(&head);
                pieces.push(Cow::Owned(std::mem::take(&mut out)));
                pieces.push(Cow::Borrowed(fingerprints));
            }
        }
        pieces.push(Cow::Owned(out));
    }

    /// Takes it to its end, which has to be the end of all. The filters stay where they are in `whole`, which `cursor` goes through.
    pub fn decode(mut cursor: Cursor<'_>, whole: &Bytes) -> Result<Self, Malformed> {
        let wrong = Malformed { what: "filter" };
        let mut ranges: Vec<SlotRange> = Vec::new();
        for _ in 0..cursor.count()? {
            let last = cursor.slot()?;
            let mut filters = Vec::new();
            for _ in 0..cursor.count()? {
                filters.push(Filter::decode(whole.slice_ref(cursor.bytes()?))?);
            }
            let ascends = ranges.last().is_none_or(|before| before.last < last);
            if !ascends || filters.is_empty() {
                return Err(wrong);
            }
            ranges.push(SlotRange { last, filters });
        }
        match cursor.is_at_end() {
            true => Ok(Self(ranges)),
            false => Err(wrong),
        }
    }
}

/// Takes the tags slot by slot.
pub struct SlotFiltersBuilder {
    done: SlotFilters,
    /// The tags of the range that is not done.
    tags: Vec<u64>,
    slot: SlotId,
}

impl Default for SlotFiltersBuilder {
    fn default() -> Self {
        Self {
            done: SlotFilters::default(),
            tags: Vec::new(),
            slot: SlotId(0),
        }
    }
}

impl SlotFiltersBuilder {
    /// The next tags are of this slot; never an earlier one than before.
    pub fn go_on_in(&mut self, slot: SlotId) {
        if slot != self.slot && self.tags.len() >= RANGE_TAGS_MIN {
            self.end_range();
        }
        self.slot = slot;
    }

    pub fn add(&mut self, tag: u64) {
        self.tags.push(tag);
    }

    pub fn finish(mut self) -> SlotFilters {
        if !self.tags.is_empty() {
            self.end_range();
        }
        self.done
    }

    fn end_range(&mut self) {
        let mut tags = std::mem::take(&mut self.tags);
        let parts = tags.len().div_ceil(FILTER_TAGS_MAX);
        if parts > 1 {
            tags.sort_unstable_by_key(|tag| part_of(*tag, parts));
        }
        let mut filters = Vec::with_capacity(parts);
        // From the end, so that the memory of those that are built into a filter is given back.
        for part in (0..parts).rev() {
            let start = tags.partition_point(|tag| part_of(*tag, parts) < part);
            filters.push(Filter::build(tags.split_off(start)));
            tags.shrink_to_fit();
        }
        filters.reverse();
        self.done.0.push(SlotRange {
            last: self.slot,
            filters,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::filter::request_tag_in_block;

    fn tag(number: u64) -> u64 {
        request_tag_in_block(number, 0)
    }

    /// Tags of each slot, each another one.
    fn built(slots: &[(u16, u64)]) -> (SlotFilters, Vec<(SlotId, u64)>) {
        let (mut builder, mut all) = (SlotFiltersBuilder::default(), Vec::new());
        for &(slot, tags) in slots {
            builder.go_on_in(SlotId(slot));
            for number in 0..tags {
                let tag = tag(u64::from(slot) << 32 | number);
                builder.add(tag);
                all.push((SlotId(slot), tag));
            }
        }
        (builder.finish(), all)
    }

    fn encoded(filters: &SlotFilters) -> Vec<u8> {
        let mut pieces = Vec::new();
        filters.put_pieces(&mut pieces);
        pieces.concat()
    }

    fn decode(bytes: &[u8]) -> Result<SlotFilters, Malformed> {
        let whole = Bytes::copy_from_slice(bytes);
        SlotFilters::decode(Cursor::new(&whole), &whole)
    }

    #[test]
    fn no_tag_is_denied_and_few_absent_ones_pass_however_many_filters_there_are() {
        let many = RANGE_TAGS_MIN as u64;
        let (filters, all) = built(&[(2, 10), (3, many), (4, 100), (7, 5 * many), (9, 1), (1024, 1)]);
        let shape: Vec<(u16, usize)> = filters
            .0
            .iter()
            .map(|range| (range.last.0, range.filters.len()))
            .collect();
        assert_eq!(shape, [(3, 1), (7, 3), (1024, 1)]);
        let bytes = encoded(&filters);
        assert!(bytes.len() * 8 < all.len() * 10, "{} for {}", bytes.len(), all.len());
        let filters = decode(&bytes).unwrap();
        assert!(all.iter().all(|(slot, tag)| filters.may_hold(*slot, *tag)));
        for slot in [0, 3, 4, 5, 7] {
            let absent = (1 << 60..(1 << 60) + 20_000).map(tag);
            let passed = absent.filter(|tag| filters.may_hold(SlotId(slot), *tag)).count();
            assert!(passed < 20_000 / 128, "{passed} of 20000 in slot {slot}");
        }
    }

    #[test]
    fn nothing_holds_nothing_and_an_older_one_is_of_all_slots() {
        let (filters, _) = built(&[]);
        assert!(!decode(&encoded(&filters)).unwrap().may_hold(SlotId(0), 1));
        let filters = SlotFilters::of_all_slots(Filter::everything());
        assert!(filters.may_hold(SlotId(0), 1) && filters.may_hold(SlotId(SLOT_COUNT), 1));
    }

    #[test]
    fn each_broken_rule_is_refused() {
        let (filters, _) = built(&[(1, 100)]);
        let good = encoded(&filters);
        assert!(decode(&good).is_ok());
        assert!(decode(&good[..good.len() - 1]).is_err());
        assert!(decode(&[&good[..], &[0]].concat()).is_err(), "more behind it");
        // Of a filter that holds nothing: length 1, kind 0.
        assert!(decode(&[2, 1, 1, 1, 0, 2, 1, 1, 0]).is_ok());
        assert!(decode(&[2, 1, 1, 1, 0, 1, 1, 1, 0]).is_err(), "the same slot again");
        assert!(decode(&[1, 1, 0]).is_err(), "no filter");
        assert!(decode(&[1, 1, 1, 1, 3]).is_err(), "an unknown kind");
    }
}
