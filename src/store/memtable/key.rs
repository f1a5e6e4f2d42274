//! One key's ops in memtables, in their order (`order`), for readers that go on while the memtables grow.
//!
//! Held are the places of the ops, 8 bytes each; an op is made when it is asked for. So a key with a hundred thousand ops in memory
//! costs a reader less than a mebibyte.
//!
//! Invariant: what is held does not change: entries of a memtable stay as they are, and those that are added later are not in it.

use std::sync::Arc;

use super::{KeyEntry, Memtable, RecordHeader, SharedMemtable};
use crate::core::clock::Clock;
use crate::core::op::{Op, Text};
use crate::core::stamp::Stamp;
use crate::store::order::Rank;
use crate::store::segment::TextSpan;
use crate::types::{Key, RequestId, UserId};

/// Most keys have no more ops in memory.
const USUAL_PLACES: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Place {
    /// Which one of `tables`.
    table: u32,
    entry: u32,
}

#[derive(Debug, Clone, Default)]
pub struct MemoryOps {
    /// Those that hold ops of the key.
    tables: Vec<SharedMemtable>,
    /// None stands for none.
    places: Option<Arc<[Place]>>,
}

impl MemoryOps {
    /// The key's ops in `tables`, oldest table first, copies of one op once; of each, those in its first `groups` groups.
    pub fn of<'a>(
        tables: impl IntoIterator<Item = &'a SharedMemtable>,
        (user, key): (&UserId, &Key),
        groups: impl Fn(&Memtable) -> usize,
    ) -> Self {
        let mut held = Self::default();
        let mut places = Vec::with_capacity(USUAL_PLACES);
        let mut in_order = true;
        let mut last = None;
        for table in tables {
            let memtable = table.read();
            let start = places.len();
            let number = held.tables.len() as u32;
            let Some(held_key) = memtable.find(user, key) else {
                continue;
            };
            let entries = memtable.entries_of(held_key, groups(&memtable));
            places.extend(entries.map(|entry| Place { table: number, entry }));
            // The chain of a key leads from its newest op to its oldest.
            let added = places.get_mut(start..).unwrap_or_default();
            let (Some(newest), Some(oldest)) = (added.first(), added.last()) else {
                continue;
            };
            in_order &= held_key.in_order && last < memtable.stamp(oldest.entry);
            last = memtable.stamp(newest.entry);
            added.reverse();
            held.tables.push(table.clone());
        }
        if !in_order && places.len() > 1 {
            let mut ranked: Vec<_> = places.iter().map(|place| (held.rank(*place), *place)).collect();
            ranked.sort_by_key(|(rank, _)| *rank);
            // Of copies of one op, the first counts.
            ranked.dedup_by_key(|(rank, _)| rank.map(|(stamp, seq, _)| (stamp, seq)));
            places = ranked.into_iter().map(|(_, place)| place).collect();
        }
        held.places = (!places.is_empty()).then(|| places.into());
        held
    }

    pub fn len(&self) -> usize {
        self.places.as_ref().map_or(0, |places| places.len())
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_none()
    }

    pub fn get(&self, index: usize) -> Option<Op> {
        let Place { table, entry } = *self.places.as_ref()?.get(index)?;
        let memtable = self.tables.get(table as usize)?.read();
        // Those in the open group too, if they were asked for.
        memtable.op(entry, memtable.closed_groups() + 1)
    }

    /// The heads, request ids and texts of the ops, without making ops of them; None for one that is no text.
    pub fn texts(&self) -> impl Iterator<Item = Option<(RecordHeader, Option<RequestId>, Text)>> + '_ {
        let places = self.places.iter().flat_map(|places| places.iter());
        places.map(|place| self.tables.get(place.table as usize)?.read().text(place.entry))
    }

    /// Without the ops whose dots are `known`.
    pub fn lacking(&self, known: &Clock) -> Self {
        self.those(|header| !known.contains(header.dot.origin, header.dot.seq))
    }

    /// Without the texts that `clock` does not cover and that are later than `until`.
    pub fn within(&self, clock: &Clock, until: Option<Stamp>) -> Self {
        self.those(|header| {
            let is_text = header.is_part() || header.is_value();
            !is_text || clock.contains(header.dot.origin, header.dot.seq) || Some(header.stamp()) <= until
        })
    }

    fn those(&self, wanted: impl Fn(&RecordHeader) -> bool) -> Self {
        let is_wanted = |place: &&Place| {
            let memtable = self.tables.get(place.table as usize).map(|table| table.read());
            let header = memtable.and_then(|memtable| Some(memtable.record(place.entry)?.1));
            header.is_some_and(|header| wanted(&header))
        };
        let places = self.places.iter().flat_map(|places| places.iter());
        let places: Vec<Place> = places.filter(is_wanted).copied().collect();
        Self {
            tables: self.tables.clone(),
            places: (!places.is_empty()).then(|| places.into()),
        }
    }

    /// The highest one.
    pub fn last_stamp(&self) -> Option<Stamp> {
        let last = self.places.as_ref()?.last()?;
        self.tables.get(last.table as usize)?.read().stamp(last.entry)
    }

    pub fn iter(&self) -> impl Iterator<Item = Op> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// From when to when, if all of them are values; and whether any has a request id. Looks at their heads alone.
    pub fn span_of_values(&self) -> Option<(TextSpan, bool)> {
        let mut found: Option<(TextSpan, bool)> = None;
        for place in self.places.iter().flat_map(|places| places.iter()) {
            let memtable = self.tables.get(place.table as usize)?.read();
            let (_, header, _) = memtable.record(place.entry)?;
            if !header.is_value() {
                return None;
            }
            let next = TextSpan::of(header.stamp());
            found = Some(match found {
                Some((span, has_ids)) => (span.then(next)?, has_ids || header.has_request_id()),
                None => (next, header.has_request_id()),
            });
        }
        found
    }

    fn rank(&self, place: Place) -> Option<Rank> {
        self.tables.get(place.table as usize)?.read().rank(place.entry)
    }
}

impl Memtable {
    /// The key's entries in the first `groups` groups, newest first.
    fn entries_of(&self, key: KeyEntry, groups: usize) -> impl Iterator<Item = u32> + '_ {
        let is_in = move |entry: &u32| {
            let held = self.entries.get(*entry as usize);
            held.is_some_and(|held| (held.group as usize) < groups)
        };
        self.chain(Some(key.last)).filter(is_in)
    }

    fn stamp(&self, entry: u32) -> Option<Stamp> {
        self.record(entry).map(|(_, header, _)| header.stamp())
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
