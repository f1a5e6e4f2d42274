//! Sealing and compaction: a sorted merge of memtables and segments into one new segment.
//!
//! What is left out:
//! - an op that a clear of its key covers;
//! - a copy of an op;
//! - a clear that a later clear of the key includes;
//! - a clear that has nothing left to do: every replica's clock covers it and all that it saw (`stable`), and nothing outside the
//!   merge can hold an op that it covers. It is *collected*: the segment's footer keeps its dot and all that it saw.
//!
//! What is dropped and carries a request id leaves a `Spent` record, so that a late retry of it does nothing: least of all one of a clear, which
//! would remove what was added since. `spent` says when it goes.
//!
//! Invariant: the new segment's clock covers all that the clocks of its inputs cover, so nothing that is dropped comes back; and what
//! its inputs say was collected, it says too.

mod clears;
mod input;
mod long_key;
mod spent;
mod staying;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clears::{KeyClears, held_bytes};
use input::{Head, Input, Salvage};
use long_key::LongKey;
use spent::Copies;

use super::cache::BlockCache;
use super::disk::Disk;
use super::memtable::{SharedMemtable, cleared_in};
use super::segment::{EntryRef, ReadError, Segment, SegmentMeta, SegmentWriter, WriteError, temporary_name};
use super::waiting::let_far_texts_go;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Dot, Op};
use crate::core::slot::SlotId;
use crate::core::stamp::HybridTime;
use crate::planted::{Bug, planted};
use crate::types::{Key, UserId, WallMs};

/// Ops of one key that a merge holds in memory at once; a longer key is read twice instead.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
const KEPT_OPS_MAX: usize = 16 * 1024;

pub use spent::REQUEST_ID_KEPT_MS;

#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the merge was abandoned")]
    Abandoned,
}

/// Why a step of a merge failed, and how far the merge had come.
#[derive(Debug)]
pub struct StepFailed {
    pub error: MergeError,
    /// Of its file, those included that could not be written any more; without the footer, where it came to that.
    pub written_bytes: u64,
}

/// One input of a merge.
#[derive(Clone)]
pub enum Source {
    /// One that nothing is added to any more.
    Memtable(SharedMemtable),
    Segment(Arc<Segment>),
}

impl Source {
    pub fn number(&self) -> u64 {
        match self {
            Self::Memtable(memtable) => memtable.read().number(),
            Self::Segment(segment) => segment.number(),
        }
    }

    fn has_clears(&self) -> bool {
        match self {
            Self::Memtable(memtable) => memtable.read().clear_count() > 0,
            Self::Segment(segment) => segment.stats().clears > 0,
        }
    }
}

/// What a merge has to know besides its inputs.
pub struct MergeContext {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub cache: Arc<BlockCache>,
    pub shard: u16,
    /// Number of the segment to write: higher than any number the shard has used.
    pub number: u64,
    /// Files that were merged away earlier and may still be on disk.
    pub obsolete: Vec<u64>,
    /// Segments that are not inputs.
    pub outside: Vec<Arc<Segment>>,
    /// All memtables, for what their clears saw, with how many of the groups of each were durable when the merge began.
    pub in_memory: Vec<(SharedMemtable, usize)>,
    /// Memtables that are not inputs: those that the merge itself seals may be among them.
    pub memtables: Vec<SharedMemtable>,
    /// What every replica's durable clock covered, this one's included, when the merge began or earlier.
    pub stable: SlotClocks,
    /// Dots known to be dropped elsewhere, which the new segment's clock takes in.
    pub covered_extra: SlotClocks,
    /// Dots known to exist that this replica has lost, beyond what the inputs say.
    pub lost: SlotClocks,
    /// The highest time that is known: the new segment says so too.
    pub time: HybridTime,
    pub now: WallMs,
    /// The last time at which, as far as is known, no other replica held anything that was missing here.
    pub heard: Option<WallMs>,
    /// Go on behind damaged blocks, and count what they held as lost. No clear is collected.
    pub salvage: bool,
}

/// A key with its slot, in the order of segments.
pub type KeyName = (SlotId, UserId, Key);

/// A merge under way. It is done in steps, so that it can be paced and given up.
pub struct Merge {
    context: MergeContext,
    sources: Vec<Source>,
    heads: Vec<Head>,
    writer: SegmentWriter,
    /// What clears that are still in memtables saw, by key.
    cleared_in_memory: BTreeMap<KeyName, Clock>,
    /// Whether any clear can matter: if not, ops stream through unexamined.
    clears: bool,
    /// The key that the last step ended in.
    long: Option<LongKey>,
    clears_kept: BTreeMap<SlotId, u64>,
    awaited: SlotClocks,
    read_ops: u64,
}

/// Where a step ends: at the first op behind one of these.
#[derive(Debug, Clone, Copy)]
struct StepEnd {
    written_bytes: u64,
    read_ops: u64,
}

/// How far a merge came.
pub enum Progress {
    More(Box<Merge>),
    Done(Box<Merged>),
}

/// What a merge has made.
pub struct Merged {
    pub segment: Segment,
    /// The clears in it, by slot: those that could not go yet.
    pub clears_kept: BTreeMap<SlotId, u64>,
    /// What these saw and not every replica's clock covers.
    pub awaited: SlotClocks,
}

impl Merge {
    pub fn start(sources: Vec<Source>, mut context: MergeContext) -> Result<Self, MergeError> {
        let mut replaces: Vec<u64> = sources.iter().map(Source::number).collect();
        context
            .memtables
            .retain(|memtable| !replaces.contains(&memtable.read().number()));
        replaces.append(&mut context.obsolete);
        replaces.sort_unstable();
        replaces.dedup();
        let meta = SegmentMeta {
            shard: context.shard,
            number: context.number,
            replaces,
        };
        let mut heads = Vec::new();
        for source in &sources {
            let input = match source {
                Source::Memtable(memtable) => Input::Memtable {
                    memtable: memtable.clone(),
                    keys: memtable.read().sorted_keys().into_iter(),
                    ops: Vec::new().into_iter(),
                },
                Source::Segment(segment) => Input::Segment {
                    scan: Box::new(segment.scan(None)),
                    salvage: context.salvage.then(Salvage::default),
                },
            };
            let mut head = Head::new(input);
            head.advance()?;
            heads.push(head);
            let came = heads.len() - 1;
            let_far_texts_go(&mut heads, came);
        }
        let mut writer = SegmentWriter::create(context.disk.clone(), &context.dir, meta)?;
        writer.note_time(context.time);
        // There may be very many: that is why the shard leaves it to the job.
        let cleared_in_memory = cleared_in(&std::mem::take(&mut context.in_memory));
        Ok(Self {
            clears: !cleared_in_memory.is_empty() || sources.iter().any(Source::has_clears),
            cleared_in_memory,
            context,
            sources,
            heads,
            writer,
            long: None,
            clears_kept: BTreeMap::new(),
            awaited: SlotClocks::default(),
            read_ops: 0,
        })
    }

    /// Ops read so far.
    pub fn read_ops(&self) -> u64 {
        self.read_ops
    }

    /// Merges on until about `budget_bytes` more were written or the same number of ops divided by 64 was read.
    pub fn step(mut self: Box<Self>, budget_bytes: u64) -> Result<Progress, StepFailed> {
        let end = StepEnd {
            written_bytes: self.writer.written_bytes() + budget_bytes,
            read_ops: self.read_ops + (budget_bytes / 64).max(1),
        };
        while !self.has_come_to(end) {
            match self.merge_key(end) {
                Ok(true) => {}
                Ok(false) => {
                    let written_bytes = self.writer.written_bytes();
                    return self.finish().map_err(|error| StepFailed { error, written_bytes });
                }
                Err(error) => {
                    let written_bytes = self.writer.written_bytes();
                    self.writer.abandon();
                    return Err(StepFailed { error, written_bytes });
                }
            }
        }
        Ok(Progress::More(self))
    }

    fn has_come_to(&self, end: StepEnd) -> bool {
        self.writer.written_bytes() >= end.written_bytes || self.read_ops >= end.read_ops
    }

    /// Gives the merge up and removes what it wrote.
    pub fn abandon(self) {
        self.writer.abandon();
    }

    fn finish(mut self) -> Result<Progress, MergeError> {
        let mut covered = SlotClocks::default();
        let mut lost = self.context.lost;
        for source in &self.sources {
            match source {
                Source::Memtable(memtable) => covered.join(&memtable.read().covered()),
                Source::Segment(segment) => {
                    if !(planted(Bug::DroppedForgotten) && covered.is_empty()) {
                        covered.join(segment.covered());
                    }
                    lost.join(segment.lost());
                    self.writer.add_collected(segment.collected());
                }
            }
        }
        for head in &mut self.heads {
            if let Input::Segment {
                salvage: Some(salvage), ..
            } = &mut head.input
            {
                let missing = salvage.lost(&covered);
                covered = covered.minus(&missing);
                lost.join(&missing);
            }
        }
        covered.join(&self.context.covered_extra);
        let lost = lost.minus(&covered);
        let temporary = self.context.dir.join(temporary_name(self.context.number));
        let finished = self.writer.finish(covered, lost, &self.context.cache);
        if finished.is_err() {
            // On a full disk, every try would otherwise leave its own behind.
            let _ = self.context.disk.remove_file(&temporary);
        }
        Ok(Progress::Done(Box::new(Merged {
            segment: finished?,
            clears_kept: self.clears_kept,
            awaited: self.awaited.minus(&self.context.stable),
        })))
    }

    /// Goes to the key that comes next, if there is one.
    fn next_key(&mut self) -> Option<KeyName> {
        let name = self.heads.iter().filter_map(Head::name).min().cloned()?;
        for head in &mut self.heads {
            head.is_at_key = head.name() == Some(&name);
        }
        Some(name)
    }

    /// The next op of the key that `next_key` went to, in order, if any input has one.
    fn next_of(&mut self, name: &KeyName) -> Result<Option<Op>, ReadError> {
        let at_key = self.heads.iter().enumerate().filter(|(_, head)| head.is_at_key);
        let Some((index, _)) = at_key.min_by_key(|(_, head)| head.next.rank()) else {
            return Ok(None);
        };
        self.read_ops += 1;
        let head = &mut self.heads[index];
        let op = head.advance()?;
        head.is_at_key = head.name() == Some(name);
        let_far_texts_go(&mut self.heads, index);
        Ok(op)
    }

    /// Merges one key, a long one as far as `end`; false when there is none left.
    fn merge_key(&mut self, end: StepEnd) -> Result<bool, MergeError> {
        if let Some(long) = self.long.take() {
            return self.go_on(long, end).map(|()| true);
        }
        let Some(name) = self.next_key() else {
            return Ok(false);
        };
        let mut kept = Vec::new();
        let mut bytes = 0;
        while kept.len() < KEPT_OPS_MAX && bytes < KEPT_BYTES_MAX {
            let Some(op) = self.next_of(&name)? else {
                let mut clears = KeyClears::new(self.cleared_in_memory.get(&name));
                kept.iter().for_each(|op| clears.see(op));
                let copies = self.copies_of(&clears, &kept);
                return self.write_all(&name, (&clears, &copies), None, kept).map(|_| true);
            };
            bytes += held_bytes(&op);
            kept.push(op);
        }
        let clears = self.clears_of_long_key(&name)?;
        let copies = self.copies_of_long_key(&name, &clears)?;
        let last = self.write_all(&name, (&clears, &copies), None, kept)?;
        let long = LongKey {
            name,
            clears,
            copies,
            last,
        };
        self.go_on(long, end).map(|()| true)
    }

    /// Writes what stays of `ops`, which come after the op `previous` of the key; gives the last of them.
    fn write_all(
        &mut self,
        name: &KeyName,
        (clears, copies): (&KeyClears, &Copies),
        mut previous: Option<Dot>,
        ops: Vec<Op>,
    ) -> Result<Option<Dot>, MergeError> {
        for op in ops {
            if previous.replace(op.dot) == Some(op.dot) {
                continue;
            }
            if let Some(op) = self.what_stays(name, (clears, copies), op) {
                let (slot, user, key) = name;
                self.writer.push(EntryRef {
                    slot: *slot,
                    user: user.as_str(),
                    key: key.as_str(),
                    op: &op,
                })?;
            }
        }
        Ok(previous)
    }
}

#[cfg(test)]
mod tests;
