//! Writing the inside of a data block; `block.rs` has the format.
//!
//! A key's run is gathered first and joins a block when it ends, so that a small run is never split between two blocks: a cold
//! read of one list costs one block. Only a run that alone reaches the target spreads over several.

use std::collections::BTreeMap;

use super::block::{ORIGIN_BYTES, PREFACE_BYTES, RESTART_GROUPS};
use super::ops::{Before, OriginIndex, put_op};
use super::place::shared_bytes;
use crate::core::op::{Body, Op};
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::codec::put_varint;

/// Ops of one key, as they will stand in a block.
#[derive(Debug, Default)]
pub struct RunBuilder {
    ops: Vec<u8>,
    count: u64,
    before: Before,
    /// Each is named at least once: almost always one, and one after the other.
    origins: Vec<(OriginIndex, OriginId)>,
    /// As long as every op is a plain value of one origin.
    plain: Option<PlainRun>,
}

/// A run of nothing but values, all of one origin: a reader that knows that no clear covers any of them
/// and that nothing else lies between their stamps may count them without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRun {
    pub ops: u64,
    pub first: HybridTime,
    pub last: HybridTime,
    pub origin: OriginId,
    pub first_seq: u64,
    pub last_seq: u64,
    pub has_request_ids: bool,
}

impl PlainRun {
    pub(super) fn of(op: &Op) -> Option<Self> {
        let is_plain = matches!(op.body, Body::Value(_));
        is_plain.then_some(Self {
            ops: 1,
            first: op.time,
            last: op.time,
            origin: op.dot.origin,
            first_seq: op.dot.seq,
            last_seq: op.dot.seq,
            has_request_ids: op.request_id.is_some(),
        })
    }

    pub(super) fn with(self, next: Self) -> Option<Self> {
        (self.origin == next.origin).then_some(Self {
            ops: self.ops + next.ops,
            first: self.first,
            last: next.last,
            origin: self.origin,
            first_seq: self.first_seq.min(next.first_seq),
            last_seq: self.last_seq.max(next.last_seq),
            has_request_ids: self.has_request_ids || next.has_request_ids,
        })
    }
}

impl RunBuilder {
    pub fn push(&mut self, op: &Op, origin: OriginIndex) {
        let next = PlainRun::of(op);
        self.plain = match (self.count, self.plain, next) {
            (0, _, next) => next,
            (_, Some(run), Some(next)) => run.with(next),
            _ => None,
        };
        put_op(&mut self.ops, &mut self.before, op, origin);
        if self.origins.last().is_none_or(|(last, _)| *last != origin) {
            self.origins.push((origin, op.dot.origin));
        }
        self.count += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn bytes(&self) -> usize {
        self.ops.len()
    }

    pub fn plain(&self) -> Option<PlainRun> {
        self.plain
    }

    /// Ready for the next run, whose first op is written against `base_ms`; keeps its buffer.
    pub fn reset(&mut self, base_ms: u64) {
        self.ops.clear();
        self.origins.clear();
        (self.count, self.plain, self.before) = (0, None, Before::start(base_ms));
    }
}

/// What the groups leave free in front of them: a preface that names one origin, as almost all do.
const FRONT_BYTES: usize = PREFACE_BYTES + ORIGIN_BYTES;

/// A block in the very buffer that it is sealed from, so that a long text is not copied from one buffer to the next.
#[derive(Debug)]
pub struct BlockBuilder {
    /// The groups, behind `FRONT_BYTES`.
    bytes: Vec<u8>,
    /// Relative to the first group.
    restarts: Vec<u32>,
    group_count: usize,
    last_place: Vec<u8>,
    origins: BTreeMap<OriginIndex, OriginId>,
    ops: u64,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        Self {
            bytes: vec![0; FRONT_BYTES],
            restarts: Vec::new(),
            group_count: 0,
            last_place: Vec::new(),
            origins: BTreeMap::new(),
            ops: 0,
        }
    }
}

impl BlockBuilder {
    pub fn is_empty(&self) -> bool {
        self.group_count == 0
    }

    pub fn ops(&self) -> u64 {
        self.ops
    }

    /// About what the block takes, raw.
    pub fn bytes(&self) -> usize {
        PREFACE_BYTES + self.bytes.len() - FRONT_BYTES
    }

    pub fn add(&mut self, place: &[u8], run: &RunBuilder) {
        let is_restart = self.group_count.is_multiple_of(RESTART_GROUPS);
        let shared = if is_restart {
            self.restarts.push((self.bytes.len() - FRONT_BYTES) as u32);
            0
        } else {
            shared_bytes(&self.last_place, place)
        };
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, (place.len() - shared) as u64);
        self.bytes.extend_from_slice(&place[shared..]);
        put_varint(&mut self.bytes, run.count);
        put_varint(&mut self.bytes, run.ops.len() as u64);
        self.bytes.extend_from_slice(&run.ops);
        self.last_place.clear();
        self.last_place.extend_from_slice(place);
        self.origins.extend(run.origins.iter().copied());
        self.group_count += 1;
        self.ops += run.count;
    }

    /// Ends the block, which is `raw` then, until `clear` starts a new one.
    pub fn finish(&mut self, base_ms: u64) {
        let mut preface = base_ms.to_le_bytes().to_vec();
        preface.extend_from_slice(&(self.origins.len() as u16).to_le_bytes());
        for (number, origin) in &self.origins {
            preface.extend_from_slice(&number.to_le_bytes());
            preface.extend_from_slice(&origin.0.to_le_bytes());
        }
        let groups_start = preface.len() as u32;
        self.bytes.splice(..FRONT_BYTES, preface);
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&(groups_start + restart).to_le_bytes());
        }
        self.bytes
            .extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
    }

    pub fn raw(&self) -> &[u8] {
        &self.bytes
    }

    /// Ready for the next block; keeps its buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(FRONT_BYTES, 0);
        self.restarts.clear();
        self.origins.clear();
        (self.group_count, self.ops) = (0, 0);
    }
}
