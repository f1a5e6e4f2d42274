//! A segment file laid open, line by line: for people who look at one, and for tools.

use std::path::Path;
use std::sync::Arc;

use super::error::{DamagedBlock, OpenError, ReadError};
use super::{Segment, SegmentStats};
use crate::core::clock::SlotClocks;
use crate::core::op::{Body, KeyedOp};
use crate::store::cache::BlockCache;
use crate::store::disk::Disk;

/// One line of a dump. Origins and request ids are hexadecimal: they do not fit the numbers of JSON.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum DumpLine {
    Header {
        format_version: u16,
        shard: u16,
        number: u64,
        file_bytes: u64,
    },
    Footer {
        replaces: Vec<u64>,
        ops: u64,
        keys: u64,
        values: u64,
        parts: u64,
        clears: u64,
        spent: u64,
        text_bytes: u64,
        max_time_ms: u64,
        oldest_spent_ms: Option<u64>,
        blocks: u32,
        filter_and_index_bytes: usize,
        covered: Vec<ClockLine>,
        lost: Vec<ClockLine>,
        collected: Vec<ClockLine>,
    },
    Block {
        ordinal: u32,
        offset: u64,
        stored_bytes: u32,
        ops: u64,
        /// The key before goes on in it.
        continues: bool,
        /// It holds nothing but plain values of one key.
        plain: bool,
    },
    Entry(EntryLine),
    Damaged(DamagedBlock),
}

/// The sequences of one origin in one slot, as inclusive ranges.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ClockLine {
    pub slot: u16,
    pub origin: String,
    pub ranges: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct EntryLine {
    pub slot: u16,
    /// Empty for the store's own records.
    pub user: String,
    pub key: String,
    pub origin: String,
    pub sequence: u64,
    pub time_ms: u64,
    pub counter: u16,
    pub request_id: Option<String>,
    #[serde(flatten)]
    pub body: BodyLine,
}

impl EntryLine {
    /// Leaves only the length of the text.
    pub fn hide_text(&mut self) {
        if let BodyLine::Part { text, .. } | BodyLine::Value { text, .. } = &mut self.body {
            *text = None;
        }
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BodyLine {
    Part {
        text_bytes: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    Value {
        text_bytes: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    Clear {
        context: Vec<ClockLine>,
    },
    Spent {
        cleared_at_ms: u64,
    },
}

/// Why a dump ended early.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Gives the whole segment at `path` to `each`, line by line: header, footer, blocks, entries. Damaged blocks are a line too.
pub fn describe(disk: &Arc<dyn Disk>, path: &Path, each: &mut dyn FnMut(DumpLine)) -> Result<(), DumpError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let nothing_kept = Arc::new(BlockCache::new(0));
    let segment = Arc::new(Segment::open_path(disk, path, &name, &nothing_kept)?);
    each(DumpLine::Header {
        format_version: segment.header.version,
        shard: segment.shard(),
        number: segment.number(),
        file_bytes: segment.file_bytes(),
    });
    each(footer_line(&segment));
    let mut next = segment.footer.index.first();
    while let Some(block) = next {
        each(DumpLine::Block {
            ordinal: block.ordinal,
            offset: block.offset,
            stored_bytes: block.stored_bytes,
            ops: block.ops,
            continues: block.continues,
            plain: block.plain.is_some(),
        });
        next = segment.footer.index.after(&block);
    }
    let mut scan = segment.scan(None);
    loop {
        match scan.next() {
            Ok(Some(entry)) => each(DumpLine::Entry(entry_line(&entry))),
            Ok(None) => return Ok(()),
            Err(ReadError::Damaged(damage)) => {
                scan.skip_damaged();
                each(DumpLine::Damaged(damage));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn footer_line(segment: &Segment) -> DumpLine {
    let stats: &SegmentStats = segment.stats();
    DumpLine::Footer {
        replaces: segment.replaces().to_vec(),
        ops: stats.ops,
        keys: stats.keys,
        values: stats.values,
        parts: stats.parts,
        clears: stats.clears,
        spent: stats.spent,
        text_bytes: stats.text_bytes,
        max_time_ms: stats.max_time.wall().0,
        oldest_spent_ms: stats.oldest_spent.map(|time| time.0),
        blocks: segment.block_count(),
        filter_and_index_bytes: segment.memory_bytes(),
        covered: clock_lines(segment.covered()),
        lost: clock_lines(segment.lost()),
        collected: clock_lines(segment.collected()),
    }
}

fn clock_lines(clocks: &SlotClocks) -> Vec<ClockLine> {
    let of_slots = clocks.slots().map(|(slot, clock)| {
        clock.origins().map(move |(origin, set)| ClockLine {
            slot: slot.0,
            origin: format!("{:016x}", origin.0),
            ranges: set.ranges().to_vec(),
        })
    });
    of_slots.flatten().collect()
}

/// One op, for whatever prints it.
pub fn entry_line(entry: &KeyedOp) -> EntryLine {
    let op = &entry.op;
    EntryLine {
        slot: op.dot.slot.0,
        user: entry.user.as_str().to_owned(),
        key: entry.key.as_str().to_owned(),
        origin: format!("{:016x}", op.dot.origin.0),
        sequence: op.dot.seq,
        time_ms: op.time.wall().0,
        counter: op.time.0 as u16,
        request_id: op
            .request_id
            .map(|id| id.0.iter().map(|byte| format!("{byte:02x}")).collect()),
        body: body_line(entry),
    }
}

fn body_line(entry: &KeyedOp) -> BodyLine {
    match &entry.op.body {
        Body::Part(text) => BodyLine::Part {
            text_bytes: text.len(),
            text: Some(text.as_ref().to_owned()),
        },
        Body::Value(text) => BodyLine::Value {
            text_bytes: text.len(),
            text: Some(text.as_ref().to_owned()),
        },
        Body::Clear(context) => {
            let mut clocks = SlotClocks::default();
            clocks.join_slot(entry.op.dot.slot, context);
            BodyLine::Clear {
                context: clock_lines(&clocks),
            }
        }
        Body::Spent { cleared_at } => BodyLine::Spent {
            cleared_at_ms: cleared_at.0,
        },
    }
}
