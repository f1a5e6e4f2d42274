//! The block index: for each data block, where it lies and the shortest bytes that separate its first place from what is before it.
//!
//! One packed buffer, the same in the file and in memory:
//! ```text
//! entry, one per block:
//!   varint   bytes of the separator shared with the entry before; 0 at every 16th (a restart)
//!   varint   bytes of the separator that follow, and they
//!   varint   stored bytes of the block, envelope included
//!   varint   ops in the block
//!   flags 1  0 continues: its first key is the last key of the block before | 1 plain | 2 plain ops have request ids
//!   if plain: varint time of the first op | varint from there to the last's | origin 8 | varint lowest sequence
//!             | varint from there to the highest
//! ```
//! Invariant: every place in a block is at least its separator, and every place before the block is less; or equal, when the block
//! continues a key, and then the separator is that key's whole place. A plain block continues a key, holds nothing else, and
//! all of it is one [`PlainRun`].
//!
//! Corrupt if: a restart shares bytes; a separator is shorter than a slot, longer than any place, shares more than there is, or does
//! not ascend (it may repeat when the block continues); a flag is unknown; plain without continues; a block is shorter than its
//! envelope or holds no op; the blocks do not end exactly where the footer begins. All of it is checked on opening.

use bytes::Bytes;

use super::block_builder::PlainRun;
use super::format::{BLOCK_HEADER_BYTES, HEADER_BYTES};
use super::place::{PLACE_BYTES_MAX, SLOT_BYTES, shared_bytes, slot_of_place};
use crate::core::slot::SlotId;
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::codec::{Cursor, Malformed, put_varint};

const RESTART_ENTRIES: u32 = 16;

const CONTINUES: u8 = 1;
const PLAIN: u8 = 1 << 1;
const HAS_REQUEST_IDS: u8 = 1 << 2;

const WRONG: Malformed = Malformed { what: "block index" };

/// One block, as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    pub ordinal: u32,
    pub offset: u64,
    pub stored_bytes: u32,
    pub ops: u64,
    /// Its first key is the last key of the block before.
    pub continues: bool,
    pub plain: Option<PlainRun>,
    next_entry: usize,
}

impl BlockRef {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.stored_bytes)
    }
}

#[derive(Default)]
pub struct IndexBuilder {
    bytes: Vec<u8>,
    count: u32,
    separator: Vec<u8>,
}

impl IndexBuilder {
    /// Adds the next block. `before` is the last place ahead of it; empty for the first block.
    pub fn add(&mut self, before: &[u8], first: &[u8], stored_bytes: u32, ops: u64, plain: Option<PlainRun>) {
        let continues = !before.is_empty() && before == first;
        let length = (shared_bytes(before, first) + 1).clamp(SLOT_BYTES, first.len());
        let separator = if continues { first } else { &first[..length] };
        let shared = match self.count.is_multiple_of(RESTART_ENTRIES) {
            true => 0,
            false => shared_bytes(&self.separator, separator),
        };
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, (separator.len() - shared) as u64);
        self.bytes.extend_from_slice(&separator[shared..]);
        put_varint(&mut self.bytes, u64::from(stored_bytes));
        put_varint(&mut self.bytes, ops);
        let plain = plain.filter(|_| continues);
        self.put_flags(continues, plain);
        self.separator = separator.to_vec();
        self.count += 1;
    }

    fn put_flags(&mut self, continues: bool, plain: Option<PlainRun>) {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let has_ids = plain.is_some_and(|run| run.has_request_ids);
        let flags = flag(continues, CONTINUES) | flag(plain.is_some(), PLAIN) | flag(has_ids, HAS_REQUEST_IDS);
        self.bytes.push(flags);
        if let Some(run) = plain {
            put_varint(&mut self.bytes, run.first.0);
            put_varint(&mut self.bytes, run.last.0 - run.first.0);
            self.bytes.extend_from_slice(&run.origin.0.to_le_bytes());
            put_varint(&mut self.bytes, run.first_seq);
            put_varint(&mut self.bytes, run.last_seq - run.first_seq);
        }
    }

    pub fn finish(self) -> (u32, Vec<u8>) {
        (self.count, self.bytes)
    }
}

#[derive(Clone, Copy, Debug)]
struct Restart {
    /// The first bytes of the separator, as a number: most of a search compares nothing else.
    head: u64,
    offset: u64,
    entry: u32,
}

/// The first 8 bytes as a big-endian number, zeroes behind the end: a lower head means a lower place.
fn head_of(place: &[u8]) -> u64 {
    let mut head = [0; 8];
    let length = place.len().min(8);
    head[..length].copy_from_slice(&place[..length]);
    u64::from_be_bytes(head)
}

#[derive(Debug)]
pub struct Index {
    bytes: Bytes,
    restarts: Box<[Restart]>,
    count: u32,
    /// Where the blocks end.
    end: u64,
}

struct Entry<'a> {
    shared: usize,
    rest: &'a [u8],
    block: BlockRef,
}

/// As much of an entry as a search needs to go on to the next.
struct Step<'a> {
    shared: usize,
    rest: &'a [u8],
    stored_bytes: u64,
    continues: bool,
    next_entry: usize,
}

impl Index {
    /// Checks every rule of the module's header.
    pub fn decode(bytes: Bytes, count: u32, end: u64) -> Result<Self, Malformed> {
        let length = bytes.len();
        let mut index = Self {
            bytes,
            restarts: Box::default(),
            count,
            end,
        };
        u32::try_from(length).map_err(|_| WRONG)?;
        let mut restarts = Vec::new();
        let mut separator = Vec::new();
        let (mut at, mut offset) = (0, HEADER_BYTES as u64);
        for ordinal in 0..count {
            let is_restart = ordinal.is_multiple_of(RESTART_ENTRIES);
            let entry = index.entry(at, ordinal, offset)?;
            if is_restart {
                restarts.push(Restart {
                    head: head_of(entry.rest),
                    offset,
                    entry: at as u32,
                });
            }
            check_separator(&separator, &entry, is_restart)?;
            separator.truncate(entry.shared);
            separator.extend_from_slice(entry.rest);
            (at, offset) = (entry.block.next_entry, entry.block.end());
        }
        if at != length || offset != end {
            return Err(WRONG);
        }
        index.restarts = restarts.into();
        Ok(index)
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.restarts)
    }

    fn entry(&self, at: usize, ordinal: u32, offset: u64) -> Result<Entry<'_>, Malformed> {
        let mut cursor = Cursor::new(self.bytes.get(at..).ok_or(WRONG)?);
        let shared = cursor.varint()?;
        let rest = cursor.bytes()?;
        let stored_bytes = u32::try_from(cursor.varint()?).map_err(|_| WRONG)?;
        let ops = cursor.varint()?;
        let flags = cursor.u8()?;
        let plain = if flags & PLAIN != 0 {
            Some(take_plain(&mut cursor, ops, flags)?)
        } else {
            None
        };
        let end = offset.checked_add(u64::from(stored_bytes)).ok_or(WRONG)?;
        let known = CONTINUES | PLAIN | HAS_REQUEST_IDS;
        let continues = flags & CONTINUES != 0;
        let flags_are_right = flags & !known == 0 && (continues || plain.is_none());
        let is_block = stored_bytes as usize > BLOCK_HEADER_BYTES && end <= self.end && ops > 0;
        if !flags_are_right || !is_block || shared > PLACE_BYTES_MAX as u64 {
            return Err(WRONG);
        }
        Ok(Entry {
            shared: shared as usize,
            rest,
            block: BlockRef {
                ordinal,
                offset,
                stored_bytes,
                ops,
                continues,
                plain,
                next_entry: self.bytes.len() - cursor.remaining(),
            },
        })
    }

    fn step(&self, at: usize) -> Option<Step<'_>> {
        let mut cursor = Cursor::new(self.bytes.get(at..)?);
        let shared = cursor.varint().ok()? as usize;
        let rest = cursor.bytes().ok()?;
        let stored_bytes = cursor.varint().ok()?;
        let ops = cursor.varint().ok()?;
        let flags = cursor.u8().ok()?;
        if flags & PLAIN != 0 {
            take_plain(&mut cursor, ops, flags).ok()?;
        }
        Some(Step {
            shared,
            rest,
            stored_bytes,
            continues: flags & CONTINUES != 0,
            next_entry: self.bytes.len() - cursor.remaining(),
        })
    }

    fn restart_entry(&self, index: usize) -> Option<Entry<'_>> {
        let restart = self.restarts.get(index)?;
        let ordinal = u32::try_from(index).ok()? * RESTART_ENTRIES;
        self.entry(restart.entry as usize, ordinal, restart.offset).ok()
    }

    pub fn first(&self) -> Option<BlockRef> {
        self.restart_entry(0).map(|entry| entry.block)
    }

    /// The block behind this one.
    pub fn after(&self, block: &BlockRef) -> Option<BlockRef> {
        self.entry_after(block).map(|entry| entry.block)
    }

    fn entry_after(&self, block: &BlockRef) -> Option<Entry<'_>> {
        let ordinal = block.ordinal + 1;
        if ordinal >= self.count {
            return None;
        }
        self.entry(block.next_entry, ordinal, block.end()).ok()
    }

    /// The first block that can hold ops of the key at `place`. None when the place is before all blocks.
    pub fn find(&self, place: &[u8]) -> Option<BlockRef> {
        let restart = self.find_restart(place)?;
        let Restart { entry, mut offset, .. } = *self.restarts.get(restart)?;
        let mut at = entry as usize;
        let mut ordinal = u32::try_from(restart).ok()? * RESTART_ENTRIES;
        let stretch_end = self.count.min(ordinal + RESTART_ENTRIES);
        let mut found = self.step(at)?;
        let mut matched = shared_bytes(found.rest, place);
        // One stretch of entries, without building any separator: `found` sorts before the place and shares `matched` bytes.
        while ordinal + 1 < stretch_end {
            let next = self.step(found.next_entry)?;
            if next.shared < matched {
                break;
            }
            if next.shared == matched {
                let wanted = place.get(matched..)?;
                if !leads(next.rest, next.continues, wanted) {
                    break;
                }
                matched += shared_bytes(next.rest, wanted);
            }
            at = found.next_entry;
            offset += found.stored_bytes;
            ordinal += 1;
            found = next;
        }
        self.entry(at, ordinal, offset).ok().map(|entry| entry.block)
    }

    /// The last restart whose block can be the first one to hold the key.
    fn find_restart(&self, place: &[u8]) -> Option<usize> {
        let head = head_of(place);
        let mut low = self.restarts.partition_point(|restart| restart.head < head);
        // What has the same head has to be looked at.
        let mut high = low + self.restarts[low..].partition_point(|restart| restart.head == head);
        while low < high {
            let middle = low + (high - low) / 2;
            let step = self.step(self.restarts[middle].entry as usize)?;
            if leads(step.rest, step.continues, place) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1)
    }

    /// The slots that ops of `block` can have, both included. `last` is the segment's last slot.
    pub fn slots(&self, block: &BlockRef, last: SlotId) -> (SlotId, SlotId) {
        let first = self.separator(block.ordinal);
        let first = first.and_then(|place| slot_of_place(&place).ok()).unwrap_or(SlotId(0));
        let next = self.separator(block.ordinal + 1);
        // A separator of nothing but the slot says that the slot begins with the next block.
        let last = match next.as_deref().map(|place| (slot_of_place(place), place.len())) {
            Some((Ok(slot), SLOT_BYTES)) => SlotId(slot.0.saturating_sub(1)),
            Some((Ok(slot), _)) => slot,
            _ => last,
        };
        (first, last.max(first))
    }

    pub(super) fn separator(&self, ordinal: u32) -> Option<Vec<u8>> {
        let mut entry = self.restart_entry((ordinal / RESTART_ENTRIES) as usize)?;
        let mut separator = entry.rest.to_vec();
        while entry.block.ordinal < ordinal {
            entry = self.entry_after(&entry.block)?;
            separator.truncate(entry.shared);
            separator.extend_from_slice(entry.rest);
        }
        Some(separator)
    }
}

/// Whether a block with this separator stands at or before the first one that can hold the place.
fn leads(separator: &[u8], continues: bool, place: &[u8]) -> bool {
    match separator.cmp(place) {
        std::cmp::Ordering::Less => true,
        // A block that continues the very key is not the first one to hold it.
        std::cmp::Ordering::Equal => !continues,
        std::cmp::Ordering::Greater => false,
    }
}

fn take_plain(cursor: &mut Cursor<'_>, ops: u64, flags: u8) -> Result<PlainRun, Malformed> {
    let first = cursor.varint()?;
    let last = first.checked_add(cursor.varint()?).ok_or(WRONG)?;
    let origin = OriginId(cursor.u64()?);
    let first_seq = cursor.varint()?;
    let last_seq = first_seq.checked_add(cursor.varint()?).ok_or(WRONG)?;
    Ok(PlainRun {
        ops,
        first: HybridTime(first),
        last: HybridTime(last),
        origin,
        first_seq,
        last_seq,
        has_request_ids: flags & HAS_REQUEST_IDS != 0,
    })
}

/// Against the separator before it; empty ahead of the first.
fn check_separator(before: &[u8], entry: &Entry<'_>, is_restart: bool) -> Result<(), Malformed> {
    let length = entry.shared + entry.rest.len();
    if (is_restart && entry.shared > 0) || !(SLOT_BYTES..=PLACE_BYTES_MAX).contains(&length) {
        return Err(WRONG);
    }
    let behind = before.get(entry.shared..).ok_or(WRONG)?;
    let ascends = match entry.rest.cmp(behind) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => entry.block.continues && !before.is_empty(),
        std::cmp::Ordering::Less => false,
    };
    let may_continue = !entry.block.continues || entry.block.ordinal > 0;
    if ascends && may_continue { Ok(()) } else { Err(WRONG) }
}
