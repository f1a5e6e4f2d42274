//! Reading a segment from some place on to its end.

use std::sync::Arc;

use bytes::Bytes;

use super::block::{Block, Groups, RunOps};
use super::error::{DamagedBlock, ReadError};
use super::index::BlockRef;
use super::place::{parse_place, place_of};
use super::stored::read_stored;
use super::{Malformed, Segment};
use crate::core::op::{KeyedOp, Op};
use crate::core::slot::SlotId;
use crate::types::{Key, UserId};

/// One read of a scan that reads ahead.
const READ_AHEAD_BYTES: u64 = 256 * 1024;

/// A scan that waits, one of many, holds no block that is longer.
pub const LONG_BLOCK_BYTES: usize = 128 * 1024;

/// Where a scan takes its blocks from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanBlocks {
    /// In long reads from the disk, or from the cache where it holds them; leaves the cache as it is. For compaction.
    ReadAhead,
    /// Through the cache, like a look-up. For listing keys.
    Cache,
}

/// All ops in order of slot, user, key and stamp.
///
/// The texts it gives are slices of what was read: with [`ScanBlocks::ReadAhead`] they may keep a whole read in memory.
pub struct Scan {
    segment: Arc<Segment>,
    blocks: ScanBlocks,
    /// Places before it are left out.
    from: Option<Vec<u8>>,
    next: Option<BlockRef>,
    current: Option<CurrentBlock>,
    damaged: Option<DamagedBlock>,
    ahead: ReadAhead,
    /// Blocks that begin before this place are read one by one: they could not be read together.
    singly_to: u64,
    last_user: Option<UserId>,
    bytes_looked_at: u64,
}

struct CurrentBlock {
    block: BlockRef,
    groups: Groups,
    run: Option<CurrentRun>,
    /// Ops given so far.
    given: u64,
}

struct CurrentRun {
    user: UserId,
    key: Key,
    ops: RunOps,
}

#[derive(Default)]
struct ReadAhead {
    offset: u64,
    bytes: Bytes,
}

impl ReadAhead {
    fn slice(&self, block: &BlockRef) -> Option<Bytes> {
        let start = usize::try_from(block.offset.checked_sub(self.offset)?).ok()?;
        let end = start.checked_add(block.stored_bytes as usize)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }

    /// Whether nothing behind the block was read with it.
    fn ends_with(&self, block: &BlockRef) -> bool {
        block.offset + u64::from(block.stored_bytes) == self.offset + self.bytes.len() as u64
    }
}

impl Scan {
    pub(super) fn new(segment: Arc<Segment>, blocks: ScanBlocks, from: Option<Vec<u8>>) -> Self {
        let index = &segment.footer.index;
        let found = from.as_deref().and_then(|place| index.find(place));
        Self {
            blocks,
            from,
            next: found.or_else(|| index.first()),
            current: None,
            damaged: None,
            ahead: ReadAhead::default(),
            singly_to: 0,
            last_user: None,
            bytes_looked_at: 0,
            segment,
        }
    }

    /// After `Err(Damaged)` the same error comes again until `skip_damaged` was called.
    #[expect(
        clippy::should_implement_trait,
        reason = "an error is not an item: reading stops there"
    )]
    pub fn next(&mut self) -> Result<Option<KeyedOp>, ReadError> {
        let Some((op, _)) = self.next_op()? else {
            return Ok(None);
        };
        Ok(self.name().map(|(user, key)| KeyedOp {
            user: user.clone(),
            key: key.clone(),
            op,
        }))
    }

    /// Like `next`, without the name; says whether the op is of another run of ops, and so perhaps of another key, than the one
    /// before it.
    pub fn next_op(&mut self) -> Result<Option<(Op, bool)>, ReadError> {
        if let Some(damaged) = &self.damaged {
            return Err(ReadError::Damaged(damaged.clone()));
        }
        let result = self.advance();
        if let Err(ReadError::Damaged(damaged)) = &result {
            self.damaged = Some(damaged.clone());
        }
        result
    }

    /// The user and key of the op that was given last.
    pub fn name(&self) -> Option<(&UserId, &Key)> {
        let run = self.current.as_ref()?.run.as_ref()?;
        Some((&run.user, &run.key))
    }

    /// What was read from the disk so far, and the blocks that were looked through: how far it has come, whether or not it gave anything.
    pub fn bytes_looked_at(&self) -> u64 {
        self.bytes_looked_at
    }

    /// Goes on at that place, without reading what lies between. Never goes back.
    pub fn seek(&mut self, slot: SlotId, user: &str, key: &str) {
        let place = place_of(slot, user, key);
        let is_ahead = match (&self.from, &self.current) {
            (Some(from), _) if *from >= place => false,
            (_, Some(current)) => current.groups.place() < place.as_slice(),
            _ => true,
        };
        if !is_ahead {
            return;
        }
        let target = self.segment.footer.index.find(&place);
        let here = self.current.as_ref().map(|current| current.block.ordinal);
        if let Some(target) = target {
            if here.is_some_and(|here| here >= target.ordinal) {
                if let Some(current) = &mut self.current {
                    current.run = None;
                }
            } else if self.next.is_some_and(|next| next.ordinal <= target.ordinal) {
                self.current = None;
                self.damaged = None;
                self.next = Some(target);
            }
        }
        self.from = Some(place);
    }

    /// Bytes of the block that it is in, and keeps in memory.
    pub fn held_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |current| current.groups.block_bytes())
    }

    /// Lets go of the block that it is in, to read it again when its turn comes. Between two keys only: behind a `seek`.
    pub fn let_go(&mut self) {
        let Some(current) = &mut self.current else { return };
        if current.run.is_some() {
            return;
        }
        let rest = next_run(&mut current.groups, self.from.as_deref(), &mut self.last_user);
        if !matches!(rest, Ok(None)) {
            // What is wrong with it, if anything, shows then.
            self.next = Some(current.block);
        }
        self.current = None;
    }

    /// Lets go of the block that the last op was given from, and of what was read with it, and gives that op once more. False, and nothing
    /// done, unless it was the first that the block gave, as one is whose text is longer than blocks are.
    pub fn step_back(&mut self) -> bool {
        let Some(current) = self.current.take_if(|current| current.given == 1) else {
            return false;
        };
        self.next = Some(current.block);
        self.ahead = ReadAhead::default();
        true
    }

    /// After `Err(Damaged)`: goes on behind the bad block, and says what was left out. What the block had given
    /// before its damage showed stays given.
    pub fn skip_damaged(&mut self) -> Option<DamagedBlock> {
        self.current = None;
        self.damaged.take()
    }

    fn advance(&mut self) -> Result<Option<(Op, bool)>, ReadError> {
        let mut is_new_run = false;
        loop {
            let Some(current) = &mut self.current else {
                let Some(block) = self.next else { return Ok(None) };
                // First, so that the way leads on behind a block that cannot be read.
                self.next = self.segment.footer.index.after(&block);
                let loaded = self.load(&block).inspect_err(|error| {
                    if matches!(error, ReadError::Io { .. }) {
                        self.next = Some(block);
                    }
                })?;
                let groups = loaded.groups();
                self.bytes_looked_at += groups.block_bytes() as u64;
                self.current = Some(CurrentBlock {
                    block,
                    groups,
                    run: None,
                    given: 0,
                });
                continue;
            };
            let damaged = |error| self.segment.damaged(&current.block, error);
            if let Some(run) = &mut current.run {
                if let Some(op) = run.ops.next().map_err(damaged)? {
                    current.given += 1;
                    return Ok(Some((op, is_new_run)));
                }
                current.run = None;
            }
            match next_run(&mut current.groups, self.from.as_deref(), &mut self.last_user).map_err(damaged)? {
                Some(run) => (current.run, is_new_run) = (Some(run), true),
                None => self.current = None,
            }
        }
    }

    fn load(&mut self, block: &BlockRef) -> Result<Arc<Block>, ReadError> {
        let segment = self.segment.clone();
        if self.blocks == ScanBlocks::Cache {
            return segment.load(block);
        }
        if let Some(held) = segment.cache.peek(segment.key_of(block)) {
            return Ok(held);
        }
        let bytes = segment.open_stored(block, &self.read(block)?)?;
        if self.ahead.ends_with(block) {
            // Decompressed, a long one need not be there twice.
            self.ahead = ReadAhead::default();
        }
        Block::parse(bytes).map_err(|error| segment.damaged(block, error))
    }

    fn read(&mut self, block: &BlockRef) -> Result<Bytes, ReadError> {
        if let Some(stored) = self.ahead.slice(block) {
            return Ok(stored);
        }
        // Not while the next ones are read.
        self.ahead = ReadAhead::default();
        if block.offset < self.singly_to {
            self.bytes_looked_at += u64::from(block.stored_bytes);
            return read_stored(&self.segment, block);
        }
        let rest = self.segment.blocks_end - block.offset;
        let length = READ_AHEAD_BYTES.max(u64::from(block.stored_bytes)).min(rest);
        let mut bytes = vec![0; length as usize];
        self.bytes_looked_at += length;
        if self.segment.file.read_exact_at(&mut bytes, block.offset).is_err() {
            // It may be any of them that cannot be read.
            self.singly_to = block.offset + length;
            return read_stored(&self.segment, block);
        }
        self.ahead = ReadAhead {
            offset: block.offset,
            bytes: bytes.into(),
        };
        // The index was checked: no block reaches past the end of the blocks.
        self.ahead.slice(block).ok_or_else(|| {
            self.segment.damaged(
                block,
                Malformed {
                    what: "place of a block",
                },
            )
        })
    }
}

/// The next key's ops in the block, `from` on.
fn next_run(
    groups: &mut Groups,
    from: Option<&[u8]>,
    last_user: &mut Option<UserId>,
) -> Result<Option<CurrentRun>, Malformed> {
    while let Some(run) = groups.next()? {
        if from.is_some_and(|from| groups.place() < from) {
            continue;
        }
        let (slot, user, key) = parse_place(groups.place())?;
        // Neighbours mostly share their user: one name in memory is enough.
        let user = match last_user {
            Some(last) if *last == user => last.clone(),
            _ => last_user.insert(user).clone(),
        };
        return Ok(Some(CurrentRun {
            user,
            key,
            ops: groups.ops(&run, slot),
        }));
    }
    Ok(None)
}
