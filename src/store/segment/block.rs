//! Reading the inside of a data block: keys in order, each with a run of its ops.
//!
//! ```text
//! base           8        milliseconds that the first op of each run is written against
//! origins        2        how many, then each:
//!                  4      number in the segment; ascending
//!                  8      the origin
//! groups                  one per key, in order of place:
//!                  varint bytes of the place shared with the group before; 0 at a restart
//!                  varint bytes of the place that follow
//!                  place  see `place.rs`
//!                  varint count of ops, at least 1
//!                  varint bytes of ops
//!                  ops    see `ops.rs`
//! restarts       4 each   where every 8th group begins, from the block's start; the first group is one
//! restart count  4
//! ```
//!
//! Corrupt if: origins, restarts and their counts do not fit; there is no restart, or the first is not the first group; a group
//! reaches past the restarts; a restart shares bytes; a place is longer than any may be or shares more than there is; places do
//! not ascend; a run is empty; its ops do not end where the run does; an op breaks a rule of its own.
//! What a look-up does not touch it does not check; `verify` walks everything.

use std::sync::Arc;

use bytes::Bytes;

use super::directory::{DIRECTORY_GROUPS_MAX, Directory, DirectoryBuilder};
use super::ops::{Before, OriginIndex, take_op, take_plain_text};
use super::place::{PLACE_BYTES_MAX, shared_bytes};
use super::span::{Gathered, TextSpan};
use crate::core::op::Op;
use crate::core::slot::SlotId;
use crate::core::stamp::{OriginId, Stamp};
use crate::store::codec::{Cursor, Malformed};

/// Groups from one restart to the next: a look-up reads that many headers at most.
pub(super) const RESTART_GROUPS: usize = 8;
/// 8 /* base */ + 2 /* origin count */
pub(super) const PREFACE_BYTES: usize = 8 + 2;
/// 4 /* number */ + 8 /* origin */
pub(super) const ORIGIN_BYTES: usize = 4 + 8;
pub(super) const RESTART_BYTES: usize = 4;
/// Most texts that memory is taken for ahead of reading them.
const RESERVED_TEXTS_MAX: u64 = 64;

const fn malformed(what: &'static str) -> Malformed {
    Malformed { what }
}

/// A decoded data block.
#[derive(Debug)]
pub struct Block {
    bytes: Bytes,
    base_ms: u64,
    groups_start: usize,
    groups_end: usize,
    /// For look-ups, if the block has one.
    directory: Option<Directory>,
}

/// Where one key's ops lie in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    start: usize,
    end: usize,
    pub ops: u64,
    /// No group follows in this block.
    pub is_last: bool,
}

struct GroupHeader<'a> {
    shared: usize,
    rest: &'a [u8],
    run: Run,
}

impl Block {
    pub fn parse(bytes: Bytes) -> Result<Arc<Self>, Malformed> {
        Self::parse_only(bytes).map(Arc::new)
    }

    /// For a block that will be searched many times.
    pub fn parse_for_lookups(bytes: Bytes) -> Result<Arc<Self>, Malformed> {
        let mut block = Self::parse_only(bytes)?;
        block.directory = block.make_directory();
        Ok(Arc::new(block))
    }

    fn parse_only(bytes: Bytes) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(&bytes);
        let base_ms = cursor.u64()?;
        let groups_start = PREFACE_BYTES + usize::from(cursor.u16()?) * ORIGIN_BYTES;
        let (rest, count) = bytes.split_last_chunk().ok_or(malformed("length"))?;
        let restarts = u32::from_le_bytes(*count) as usize;
        let groups_end = restarts
            .checked_mul(RESTART_BYTES)
            .and_then(|table| rest.len().checked_sub(table))
            .filter(|&end| restarts > 0 && groups_start < end)
            .ok_or(malformed("restarts of a block"))?;
        let block = Self {
            base_ms,
            groups_start,
            groups_end,
            directory: None,
            bytes,
        };
        if block.restart(0) != Some(groups_start) {
            return Err(malformed("restarts of a block"));
        }
        Ok(block)
    }

    /// None when there are too many groups, or when something is wrong, which shows when it is read.
    fn make_directory(&self) -> Option<Directory> {
        if self.restarts() > DIRECTORY_GROUPS_MAX / RESTART_GROUPS {
            return None;
        }
        let mut directory = DirectoryBuilder::default();
        let mut at = self.groups_start;
        while at < self.groups_end {
            let group = self.group_at(at).ok()?;
            if !directory.add(at, group.shared, group.rest) {
                return None;
            }
            at = group.run.end;
        }
        Some(directory.finish())
    }

    /// What it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        let directory = self.directory.as_ref().map_or(0, Directory::memory_bytes);
        size_of::<Self>() + self.bytes.len() + directory
    }

    fn restarts(&self) -> usize {
        (self.bytes.len() - RESTART_BYTES - self.groups_end) / RESTART_BYTES
    }

    fn restart(&self, index: usize) -> Option<usize> {
        let at = self.groups_end + index * RESTART_BYTES;
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    }

    /// The origins that the block names, with their numbers in the segment.
    fn origin(&self, index: OriginIndex) -> Option<OriginId> {
        let table = self.bytes.get(PREFACE_BYTES..self.groups_start)?;
        // Few: one per node that ever wrote, at most.
        table.chunks_exact(ORIGIN_BYTES).find_map(|entry| {
            let (number, origin) = entry.split_first_chunk()?;
            let is_it = OriginIndex::from_le_bytes(*number) == index;
            is_it.then_some(OriginId(u64::from_le_bytes(*origin.first_chunk()?)))
        })
    }

    fn group_at(&self, at: usize) -> Result<GroupHeader<'_>, Malformed> {
        let groups = self
            .bytes
            .get(at..self.groups_end)
            .ok_or(malformed("restarts of a block"))?;
        let mut cursor = Cursor::new(groups);
        let shared = cursor.varint()?;
        let rest = cursor.bytes()?;
        let ops = cursor.varint()?;
        let length = cursor.count()?;
        if ops == 0 || length == 0 {
            return Err(malformed("run of ops"));
        }
        if rest.len() > PLACE_BYTES_MAX || shared > PLACE_BYTES_MAX as u64 {
            return Err(malformed("place of a group"));
        }
        let start = self.groups_end - cursor.remaining();
        let end = start + length;
        Ok(GroupHeader {
            shared: shared as usize,
            rest,
            run: Run {
                start,
                end,
                ops,
                is_last: end == self.groups_end,
            },
        })
    }

    fn restart_group(&self, index: usize) -> Result<(usize, GroupHeader<'_>), Malformed> {
        let at = self.restart(index).ok_or(malformed("restarts of a block"))?;
        let group = self.group_at(at)?;
        if group.shared != 0 {
            return Err(malformed("restarts of a block"));
        }
        Ok((at, group))
    }

    /// The ops of the key at `place`.
    pub fn find(&self, place: &[u8]) -> Result<Option<Run>, Malformed> {
        match &self.directory {
            Some(directory) => directory.find(place).map(|at| Ok(self.group_at(at)?.run)).transpose(),
            None => self.search(place),
        }
    }

    /// Compares without building any key.
    fn search(&self, place: &[u8]) -> Result<Option<Run>, Malformed> {
        // The last restart that is not behind the place: from there on it is at most one stretch away.
        let (mut low, mut high) = (0, self.restarts());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.restart_group(middle)?.1.rest <= place {
                low = middle;
            } else {
                high = middle;
            }
        }
        let (mut at, first) = self.restart_group(low)?;
        let stretch_end = match high < self.restarts() {
            true => self.restart(high).ok_or(malformed("restarts of a block"))?,
            false => self.groups_end,
        };
        // How many bytes the group before shares with the place; it sorts before it.
        let mut matched = shared_bytes(first.rest, place);
        let mut group = first;
        let mut is_first = true;
        loop {
            if is_first || group.shared == matched {
                let wanted = place.get(group.shared..).ok_or(malformed("place of a group"))?;
                matched = group.shared + shared_bytes(group.rest, wanted);
                match group.rest.cmp(wanted) {
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Equal => return Ok(Some(group.run)),
                    std::cmp::Ordering::Greater => return Ok(None),
                }
            } else if group.shared < matched {
                // It parts from the group before it where that still agreed with the place, and upwards.
                return Ok(None);
            }
            is_first = false;
            at = group.run.end.max(at + 1);
            if at >= stretch_end {
                return Ok(None);
            }
            group = self.group_at(at)?;
        }
    }

    pub fn ops(self: &Arc<Self>, run: &Run, slot: SlotId) -> RunOps {
        RunOps {
            block: self.clone(),
            at: run.start,
            end: run.end,
            left: run.ops,
            slot,
            before: Before::start(self.base_ms),
        }
    }

    /// Appends the texts of a run in which every op is a part or a value. None, and nothing appended, when the run is
    /// any other: `ops` has to be asked.
    pub fn texts(&self, run: &Run, out: &mut Gathered) -> Result<Option<TextSpan>, Malformed> {
        let wrong = malformed("run of ops");
        let (fragments, requests) = (out.fragments.len(), out.requests.len());
        let mut cursor = Cursor::new(self.bytes.get(run.start..run.end).ok_or(wrong)?);
        let mut before = Before::start(self.base_ms);
        let mut span: Option<TextSpan> = None;
        let mut named = None;
        // What the run says is not believed for long lists.
        out.fragments.reserve(run.ops.min(RESERVED_TEXTS_MAX) as usize);
        for _ in 0..run.ops {
            let Some(text) = take_plain_text(&mut cursor, &self.bytes, &mut before)? else {
                out.cut(fragments, requests);
                return Ok(None);
            };
            let origin = match named {
                Some((index, origin)) if index == before.origin() => origin,
                _ => self.origin(before.origin()).ok_or(malformed("origin of an op"))?,
            };
            named = Some((before.origin(), origin));
            let stamp = Stamp {
                time: text.time,
                origin,
            };
            let next = TextSpan::of(stamp);
            span = Some(match span {
                Some(span) => span.then(next).ok_or(malformed("order of ops"))?,
                None => next,
            });
            out.fragments.push(text.fragment);
            out.requests.extend(text.request_id);
        }
        match span {
            Some(span) if cursor.is_at_end() => Ok(Some(span)),
            _ => Err(wrong),
        }
    }

    pub fn groups(self: &Arc<Self>) -> Groups {
        Groups {
            at: self.groups_start,
            block: self.clone(),
            place: Vec::new(),
        }
    }
}

/// The ops of one run, one by one.
#[derive(Debug)]
pub struct RunOps {
    block: Arc<Block>,
    at: usize,
    end: usize,
    left: u64,
    slot: SlotId,
    before: Before,
}

impl RunOps {
    pub fn next(&mut self) -> Result<Option<Op>, Malformed> {
        if self.left == 0 {
            return match self.at == self.end {
                true => Ok(None),
                false => Err(malformed("run of ops")),
            };
        }
        let bytes = self.block.bytes.get(self.at..self.end).ok_or(malformed("run of ops"))?;
        let mut cursor = Cursor::new(bytes);
        let origin_of = |index| self.block.origin(index);
        let op = take_op(&mut cursor, &self.block.bytes, &mut self.before, self.slot, origin_of)?;
        self.at = self.end - cursor.remaining();
        self.left -= 1;
        Ok(Some(op))
    }

    pub fn is_done(&self) -> bool {
        self.left == 0 && self.at == self.end
    }
}

/// All groups of a block in order; checks that their places ascend.
#[derive(Debug, Clone)]
pub struct Groups {
    block: Arc<Block>,
    at: usize,
    place: Vec<u8>,
}

impl Groups {
    /// Goes to the next group; then [`Groups::place`] is its place.
    pub fn next(&mut self) -> Result<Option<Run>, Malformed> {
        if self.at >= self.block.groups_end {
            return Ok(None);
        }
        let wrong = malformed("place of a group");
        let group = self.block.group_at(self.at)?;
        let behind = self.place.get(group.shared..).ok_or(wrong)?;
        let ascends = group.rest > behind;
        if group.shared + group.rest.len() > PLACE_BYTES_MAX || !ascends {
            return Err(wrong);
        }
        self.place.truncate(group.shared);
        self.place.extend_from_slice(group.rest);
        self.at = group.run.end;
        Ok(Some(group.run))
    }

    pub fn place(&self) -> &[u8] {
        &self.place
    }

    /// What the block takes in memory.
    pub fn block_bytes(&self) -> usize {
        self.block.memory_bytes()
    }

    pub fn ops(&self, run: &Run, slot: SlotId) -> RunOps {
        self.block.ops(run, slot)
    }
}
