//! Where the ops of one key come from: memtables and segments, merged in the order of their stamps.

use std::cmp::Ordering;
use std::sync::Arc;

use super::memtable::MemoryOps;
use super::order::rank_of;
use super::recover::UNKNOWN_ORIGIN;
use super::segment::{OpCursor, PlainRun, ReadError, Segment, place_of};
use super::waiting::{Next, Waiting, let_far_texts_go};
use crate::core::clock::{Clock, SeqSet};
use crate::core::op::{Body, Dot, Op};
use crate::core::slot::SlotId;
use crate::core::stamp::Stamp;
use crate::types::{Key, UserId};

/// So many ops in memory are read on the thread that asks, which others need too: more would take milliseconds, and tens of them with many
/// clears.
const WARM_OPS_MAX: usize = 1024;

/// Where a key's ops come from.
#[derive(Clone)]
pub struct KeySource {
    pub slot: SlotId,
    pub user: UserId,
    pub key: Key,
    /// In stamp order.
    pub memory: MemoryOps,
    pub segments: Vec<Arc<Segment>>,
}

impl KeySource {
    /// Whether reading can begin without waiting for the disk, and without much work.
    pub fn is_warm(&self) -> bool {
        let is_cached = |segment: &Arc<Segment>| segment.is_cached(self.slot, self.user.as_str(), self.key.as_str());
        self.memory.len() <= WARM_OPS_MAX && self.segments.iter().all(is_cached)
    }

    /// The highest stamp of any op. Blocks on the disk.
    pub fn last_stamp(&self) -> Result<Option<Stamp>, ReadError> {
        let place = place_of(self.slot, self.user.as_str(), self.key.as_str());
        let mut last = self.memory.last_stamp();
        for segment in &self.segments {
            last = last.max(segment.last_stamp_of(&place)?);
        }
        Ok(last)
    }

    /// This source without the texts that are later than `until` and that `clock`, one of the key's slot, does not cover; all clears stay.
    /// None if such texts may lie in a segment, out of which nothing can be left.
    pub fn within(&self, clock: &Clock, until: Option<Stamp>) -> Option<Self> {
        // A loss that nobody could name is no op.
        let is_known = |(origin, held): (_, &SeqSet)| {
            origin == UNKNOWN_ORIGIN || clock.get(origin).is_some_and(|known| known.covers(held))
        };
        let covered = self
            .segments
            .iter()
            .filter_map(|segment| segment.covered().get(self.slot));
        covered.flat_map(Clock::origins).all(is_known).then(|| Self {
            memory: self.memory.within(clock, until),
            ..self.clone()
        })
    }

    /// All clears of the key, in stamp order. Of a long list, what is known to be nothing but values is not read for them.
    pub fn clears(&self) -> Result<Vec<Op>, ReadError> {
        let is_clear = |op: &Op| matches!(op.body, Body::Clear(_));
        let mut clears: Vec<Op> = self.memory.iter().filter(is_clear).collect();
        for segment in self.segments.iter().filter(|segment| segment.stats().clears > 0) {
            let mut ops = segment.ops_of(self.slot, self.user.as_str(), self.key.as_str());
            loop {
                while ops.plain_run().is_some() {
                    ops.skip_plain_run();
                }
                let Some(op) = ops.next()? else {
                    break;
                };
                clears.extend(Some(op).filter(is_clear));
            }
        }
        clears.sort_by_key(rank_of);
        clears.dedup_by_key(|clear| clear.dot);
        Ok(clears)
    }

    /// All ops of the key in stamp order.
    pub fn ops(&self) -> MergedOps {
        self.merged(self.memory.clone(), &self.segments, None)
    }

    /// Like [`ops`](Self::ops), without most of those that `known`, a clock of the key's slot, covers: blocks that are seen to hold nothing
    /// else are not read.
    pub fn ops_lacking(&self, known: &Arc<Clock>) -> MergedOps {
        let mut segments = self.segments.clone();
        segments.retain(|segment| {
            let held = segment.covered().get(self.slot);
            held.is_some_and(|held| !known.covers(held))
        });
        self.merged(self.memory.lacking(known), &segments, Some(known))
    }

    fn merged(&self, memory: MemoryOps, segments: &[Arc<Segment>], known: Option<&Arc<Clock>>) -> MergedOps {
        let cursors = segments
            .iter()
            .map(|segment| Head {
                cursor: segment.ops_of(self.slot, self.user.as_str(), self.key.as_str()),
                known: known.cloned(),
                next: Next::End,
            })
            .collect();
        MergedOps {
            memory,
            memory_at: 0,
            memory_next: None,
            cursors,
            started: false,
            last: None,
        }
    }
}

struct Head {
    cursor: OpCursor,
    /// Blocks of nothing but ops that this covers are passed over.
    known: Option<Arc<Clock>>,
    next: Next,
}

impl Waiting for Head {
    fn next(&mut self) -> &mut Next {
        &mut self.next
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.next.rank().cmp(&other.next.rank())
    }

    fn step_back(&mut self) -> bool {
        self.cursor.step_back()
    }
}

impl Head {
    /// Goes to the next op; gives the one before it. After an error it is where it was.
    fn advance(&mut self) -> Result<Option<Op>, ReadError> {
        if self.next.is_away() {
            self.next = self.cursor.next()?.into();
        }
        while let Some(known) = &self.known
            && self.cursor.plain_run().is_some_and(|run| covers(known, run))
        {
            self.cursor.skip_plain_run();
        }
        let next = self.cursor.next()?;
        Ok(self.next.replace(next))
    }
}

/// Whether all of the run is covered, by its lowest and its highest sequence.
fn covers(known: &Clock, run: PlainRun) -> bool {
    let all = SeqSet::range(run.first_seq, run.last_seq);
    known.get(run.origin).is_some_and(|held| held.covers(&all))
}

/// A merge of sorted sources; copies of one op come out once.
pub struct MergedOps {
    memory: MemoryOps,
    memory_at: usize,
    memory_next: Option<Op>,
    cursors: Vec<Head>,
    started: bool,
    last: Option<Dot>,
}

impl MergedOps {
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator cannot fail and be asked again"
    )]
    pub fn next(&mut self) -> Result<Option<Op>, ReadError> {
        if !self.started {
            self.started = true;
            for index in 0..self.cursors.len() {
                self.cursors[index].advance()?;
                let_far_texts_go(&mut self.cursors, index);
            }
            self.next_of_memory();
        }
        if self.cursors.is_empty() {
            return Ok(self.next_of_memory());
        }
        loop {
            let Some(op) = self.pop()? else {
                return Ok(None);
            };
            if self.last.replace(op.dot) != Some(op.dot) {
                return Ok(Some(op));
            }
        }
    }

    fn next_of_memory(&mut self) -> Option<Op> {
        let next = self.memory.get(self.memory_at);
        self.memory_at += 1;
        std::mem::replace(&mut self.memory_next, next)
    }

    fn pop(&mut self) -> Result<Option<Op>, ReadError> {
        let from_memory = self.memory_next.as_ref().map(rank_of);
        let ranks = self.cursors.iter().enumerate();
        let lowest = ranks.filter_map(|(index, head)| Some((head.next.rank()?, index))).min();
        match (from_memory, lowest) {
            (Some(memory), _) if lowest.is_none_or(|(disk, _)| memory <= disk) => Ok(self.next_of_memory()),
            (_, Some((_, index))) => {
                let op = self.cursors[index].advance()?;
                let_far_texts_go(&mut self.cursors, index);
                Ok(op)
            }
            (_, None) => Ok(None),
        }
    }
}
