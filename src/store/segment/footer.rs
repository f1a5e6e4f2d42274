//! What a segment says of itself as a whole, between the blocks and the trailer.
//!
//! ```text
//! replaces       varint count, then a varint each: numbers of the logs and segments whose content this one took over
//! ops keys values parts clears spent text_bytes max_time      a varint each
//! oldest_spent   varint: 0 none, else the time + 1
//! last slot      varint
//! largest block  varint: raw bytes
//! covered        slot clocks: the dots held here, or known to be dropped
//! lost           slot clocks: the dots that are known to exist and that this replica lost
//! collected      slot clocks, from version 3 on: the clears that were dropped because every replica knew them, and all that they saw
//! blocks         varint count, varint bytes of the index, the index (`index.rs`)
//! filters        the rest: from version 4 on, `slot_filters.rs`; before, one filter (`filter.rs`) for all slots
//! ```
//! The filters hold a tag for each key, for each key that has parts, and for each request id of a key; from version 2 on, also one for
//! each request id in its block, counted from the key's first one, where the key's ops lie in more than one block.
//!
//! Corrupt if: anything is cut short; the largest block is larger than any may be; index or filters break a rule of theirs.

use std::borrow::Cow;

use bytes::Bytes;

use super::format::{BLOCK_BYTES_MAX, COLLECTED_VERSION, SLOT_FILTERS_VERSION};
use super::index::Index;
use super::slot_filters::SlotFilters;
use crate::core::clock::SlotClocks;
use crate::core::op::{Body, Op};
use crate::core::slot::SlotId;
use crate::core::stamp::HybridTime;
use crate::store::codec::{Cursor, Malformed, put_slot_clocks, put_varint};
use crate::store::filter::Filter;
use crate::types::WallMs;

/// What a segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentStats {
    pub ops: u64,
    pub keys: u64,
    pub values: u64,
    pub parts: u64,
    pub clears: u64,
    pub spent: u64,
    pub text_bytes: u64,
    /// No lower than that of any op, nor than what has to be stamped after.
    pub max_time: HybridTime,
    /// The earliest `cleared_at` of what is left of cleared ops.
    pub oldest_spent: Option<WallMs>,
}

impl SegmentStats {
    /// Counts one op; `keys` is not its business.
    pub(super) fn add(&mut self, op: &Op) {
        self.ops += 1;
        self.max_time = self.max_time.max(op.time);
        match &op.body {
            Body::Part(text) => {
                self.parts += 1;
                self.text_bytes += text.len() as u64;
            }
            Body::Value(text) => {
                self.values += 1;
                self.text_bytes += text.len() as u64;
            }
            Body::Clear(_) => self.clears += 1,
            Body::Spent { cleared_at } => {
                self.spent += 1;
                self.oldest_spent = Some(self.oldest_spent.map_or(*cleared_at, |oldest| oldest.min(*cleared_at)));
            }
        }
    }
}

pub struct Footer {
    pub replaces: Vec<u64>,
    pub stats: SegmentStats,
    pub last_slot: SlotId,
    pub raw_bytes_max: usize,
    pub covered: SlotClocks,
    pub lost: SlotClocks,
    pub collected: SlotClocks,
    pub index: Index,
    pub filters: SlotFilters,
}

/// A footer as it is written: the index still as bytes.
pub struct FooterParts<'a> {
    pub replaces: &'a [u64],
    pub stats: &'a SegmentStats,
    pub last_slot: SlotId,
    pub raw_bytes_max: usize,
    pub covered: &'a SlotClocks,
    pub lost: &'a SlotClocks,
    pub collected: &'a SlotClocks,
    pub block_count: u32,
    pub index: &'a [u8],
    pub filters: &'a SlotFilters,
}

impl FooterParts<'_> {
    /// One piece behind the other. Index and filters are not copied.
    pub fn pieces(&self) -> Vec<Cow<'_, [u8]>> {
        let mut out = Vec::new();
        put_varint(&mut out, self.replaces.len() as u64);
        for number in self.replaces {
            put_varint(&mut out, *number);
        }
        put_stats(&mut out, self.stats);
        put_varint(&mut out, u64::from(self.last_slot.0));
        put_varint(&mut out, self.raw_bytes_max as u64);
        put_slot_clocks(&mut out, self.covered);
        put_slot_clocks(&mut out, self.lost);
        put_slot_clocks(&mut out, self.collected);
        put_varint(&mut out, u64::from(self.block_count));
        put_varint(&mut out, self.index.len() as u64);
        let mut pieces = vec![Cow::Owned(out), Cow::Borrowed(self.index)];
        self.filters.put_pieces(&mut pieces);
        pieces
    }
}

fn put_stats(out: &mut Vec<u8>, stats: &SegmentStats) {
    let counts = [
        stats.ops,
        stats.keys,
        stats.values,
        stats.parts,
        stats.clears,
        stats.spent,
        stats.text_bytes,
        stats.max_time.0,
        stats.oldest_spent.map_or(0, |time| time.0.saturating_add(1)),
    ];
    for count in counts {
        put_varint(out, count);
    }
}

fn take_stats(cursor: &mut Cursor<'_>) -> Result<SegmentStats, Malformed> {
    Ok(SegmentStats {
        ops: cursor.varint()?,
        keys: cursor.varint()?,
        values: cursor.varint()?,
        parts: cursor.varint()?,
        clears: cursor.varint()?,
        spent: cursor.varint()?,
        text_bytes: cursor.varint()?,
        max_time: HybridTime(cursor.varint()?),
        oldest_spent: cursor.varint()?.checked_sub(1).map(WallMs),
    })
}

/// `version` is that of the file; `blocks_end` is the footer's own offset in it. Index and filters stay where they are in `bytes`.
pub fn decode_footer(bytes: &Bytes, version: u16, blocks_end: u64) -> Result<Footer, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let mut replaces = Vec::new();
    for _ in 0..cursor.count()? {
        replaces.push(cursor.varint()?);
    }
    let stats = take_stats(&mut cursor)?;
    let last_slot = cursor.slot()?;
    let wrong = Malformed { what: "largest block" };
    let raw_bytes_max = usize::try_from(cursor.varint()?).map_err(|_| wrong)?;
    if raw_bytes_max > BLOCK_BYTES_MAX {
        return Err(wrong);
    }
    let covered = cursor.slot_clocks()?;
    let lost = cursor.slot_clocks()?;
    let collected = match version >= COLLECTED_VERSION {
        true => cursor.slot_clocks()?,
        false => SlotClocks::default(),
    };
    let block_count = u32::try_from(cursor.varint()?).map_err(|_| Malformed { what: "block count" })?;
    let index = Index::decode(bytes.slice_ref(cursor.bytes()?), block_count, blocks_end)?;
    let filters = match version >= SLOT_FILTERS_VERSION {
        true => SlotFilters::decode(cursor, bytes)?,
        false => SlotFilters::of_all_slots(Filter::decode(bytes.slice_ref(cursor.take(cursor.remaining())?))?),
    };
    Ok(Footer {
        replaces,
        stats,
        last_slot,
        raw_bytes_max,
        covered,
        lost,
        collected,
        index,
        filters,
    })
}
