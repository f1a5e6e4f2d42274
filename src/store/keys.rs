//! Listing a user's keys of one shard, in byte order.
//!
//! A user's keys are spread over all slots by their hash; within a slot they are sorted. So a page is a merge over the slots, each
//! of which costs one seek per segment.
//!
//! Keys that were cleared stay for an hour and more, and there may be millions of them, or millions of cleared ops in one: a page is bounded by
//! what it passes too.
//!
//! Memory: there may be ten thousand of these walks, one per slot and segment, each waiting at its next key. A walk keeps the block of that
//! key only if the block is small, and all walks together keep no more than `HELD_BYTES_MAX`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::filter::key_tag;
use super::memtable::MemoryOps;
use super::segment::{ReadError, Scan, ScanBlocks, Segment};
use super::source::KeySource;
use super::standing::{Look, has_values, holds_text};
use crate::core::slot::{KeyHash, SlotId};
use crate::types::{Key, UserId};

/// Keys without values that a page passes at most: each takes some tens of microseconds.
const PASSED_MAX: usize = 8192;
/// Blocks that a page goes through, bytes, besides those that its walks begin in.
const LOOKED_AT_BYTES_MAX: u64 = 16 << 20;
/// A walk that waits may keep a block of this size, as a rule one that is in the cache anyway.
const HELD_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Blocks that all walks of a page keep together, bytes. A block beyond that is dropped, and looked for in the cache again.
const HELD_BYTES_MAX: usize = 16 << 20;
/// What each op that is looked at within a key counts for: it may hold many `Spent` records.
const OP_BYTES: u64 = 256;

/// A page goes through at least so many keys in memory, if there are, however few it may return: all of them may be cleared.
pub const MEMORY_KEYS_MIN: usize = 1024;

/// One page of a user's keys, in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPage {
    pub keys: Vec<Key>,
    /// If further keys may follow: the key after which the next page begins. It need not be the last of `keys`, for the page may
    /// end at a key that does not show.
    pub next_after: Option<Key>,
}

/// Which keys are asked for.
#[derive(Debug, Clone)]
pub struct KeyQuery {
    pub user: UserId,
    pub prefix: String,
    /// Only keys after this one.
    pub after: Option<String>,
    pub limit: usize,
    /// Also keys that hold only unfinished parts.
    pub all: bool,
}

impl KeyQuery {
    pub fn accepts(&self, key: &str) -> bool {
        key.starts_with(&self.prefix) && self.after.as_ref().is_none_or(|after| key > after.as_str())
    }
}

/// A snapshot of one shard, to list keys from.
pub struct KeyLister {
    pub query: KeyQuery,
    pub slots: Range<u16>,
    pub segments: Vec<Arc<Segment>>,
    /// Accepted keys that have ops in memtables, with those ops in stamp order.
    pub memory: BTreeMap<Key, (SlotId, MemoryOps)>,
    /// Keys of memtables after this one were left out of `memory`.
    pub memory_cut: Option<Key>,
}

/// Where one slot's walk through one segment stands.
struct Walk {
    slot: SlotId,
    scan: Scan,
}

/// The walks that have a key.
#[derive(Default)]
struct Walks {
    /// By their next one. The number tells apart those that stand at the same.
    by_key: BTreeMap<(Key, usize), Box<Walk>>,
    /// Bytes of the blocks that they keep.
    held_bytes: usize,
}

impl Walks {
    fn next_key(&self) -> Option<&Key> {
        self.by_key.first_key_value().map(|((key, _), _)| key)
    }

    /// Bytes that the next walk may keep.
    fn room(&self) -> usize {
        HELD_BLOCK_BYTES_MAX.min(HELD_BYTES_MAX.saturating_sub(self.held_bytes))
    }

    fn put(&mut self, key: Key, number: usize, walk: Box<Walk>) {
        self.held_bytes += walk.scan.held_bytes();
        self.by_key.insert((key, number), walk);
    }

    /// One that stands at the key.
    fn take(&mut self, key: &Key) -> Option<(usize, Box<Walk>)> {
        let first = self.by_key.first_entry().filter(|first| first.key().0 == *key)?;
        let ((_, number), walk) = first.remove_entry();
        self.held_bytes = self.held_bytes.saturating_sub(walk.scan.held_bytes());
        Some((number, walk))
    }
}

impl KeyLister {
    fn walks(&self, is_wanted: impl Fn() -> bool) -> Result<Walks, ReadError> {
        let mut walks = Walks::default();
        let mut count = 0;
        for slot in self.slots.clone().map(SlotId).take_while(|_| is_wanted()) {
            for segment in self
                .segments
                .iter()
                .filter(|segment| segment.covered().get(slot).is_some())
            {
                let start = self.query.after.as_deref().unwrap_or("").max(&self.query.prefix);
                let mut walk = Box::new(Walk {
                    slot,
                    scan: segment.scan_through(ScanBlocks::Cache, Some((slot, self.query.user.as_str(), start))),
                });
                if let Some(key) = self.next_key(&mut walk, walks.room())? {
                    walks.put(key, count, walk);
                    count += 1;
                }
            }
        }
        Ok(walks)
    }

    /// Lets all walks that stand at the key go on; gives its slot, if there are any. Counts the bytes that they look at.
    fn pass(&self, walks: &mut Walks, key: &Key, looked_at: &mut u64) -> Result<Option<SlotId>, ReadError> {
        let mut slot = None;
        while let Some((number, mut walk)) = walks.take(key) {
            slot = Some(walk.slot);
            let before = walk.scan.bytes_looked_at();
            self.leave(&mut walk, key);
            let next = self.next_key(&mut walk, walks.room())?;
            *looked_at += walk.scan.bytes_looked_at() - before;
            if let Some(next) = next {
                walks.put(next, number, walk);
            }
        }
        Ok(slot)
    }

    /// A page. It ends early, perhaps without any key, when much was looked at for it.
    pub fn list(&self) -> Result<KeyPage, ReadError> {
        self.list_while(|| true)
    }

    /// Like [`list`](Self::list), while `is_wanted`; once it is not, the result means nothing.
    pub fn list_while(&self, is_wanted: impl Fn() -> bool) -> Result<KeyPage, ReadError> {
        let mut walks = self.walks(&is_wanted)?;
        // As much as it took to begin at least: each page begins anew.
        let begun = walks.by_key.values().map(|walk| walk.scan.bytes_looked_at()).sum();
        let looked_at_max = LOOKED_AT_BYTES_MAX.max(begun);
        let (mut passed, mut looked_at) = (0, 0);
        let mut memory = self.memory.keys().peekable();
        let mut page = KeyPage::default();
        let mut last = self.query.after.as_deref().and_then(|after| Key::new(after).ok());
        loop {
            let on_disk = walks.next_key().cloned();
            let Some(key) = on_disk.iter().chain(memory.peek().copied()).min().cloned() else {
                page.next_after = self.memory_cut.clone();
                return Ok(page);
            };
            let is_full = page.keys.len() == self.query.limit || passed == PASSED_MAX || looked_at >= looked_at_max;
            if is_full || self.memory_cut.as_ref().is_some_and(|cut| key > *cut) || !is_wanted() {
                page.next_after = last;
                return Ok(page);
            }
            last = Some(key.clone());
            let slot = self.pass(&mut walks, &key, &mut looked_at)?;
            memory.next_if_eq(&&key);
            let mut look = Look::while_wanted(&is_wanted);
            passed += usize::from(!self.take(key, slot, &mut look, &mut page)?);
            looked_at += OP_BYTES * look.ops();
        }
    }

    /// The next accepted key of the walk, which keeps no block there that is longer than `room`.
    fn next_key(&self, walk: &mut Walk, room: usize) -> Result<Option<Key>, ReadError> {
        loop {
            let Some(entry) = walk.scan.next()? else {
                return Ok(None);
            };
            let here = entry.op.dot.slot == walk.slot && entry.user == self.query.user;
            if !here
                || (entry.key.as_str() > self.query.prefix.as_str()
                    && !entry.key.as_str().starts_with(&self.query.prefix))
            {
                return Ok(None);
            }
            if !self.query.accepts(entry.key.as_str()) {
                self.leave(walk, &entry.key);
                continue;
            }
            if walk.scan.held_bytes() > room {
                self.leave(walk, &entry.key);
                walk.scan.let_go();
            }
            return Ok(Some(entry.key));
        }
    }

    /// Goes on behind the key.
    fn leave(&self, walk: &mut Walk, key: &Key) {
        let behind = format!("{}\0", key.as_str());
        walk.scan.seek(walk.slot, self.query.user.as_str(), &behind);
    }

    /// Whether the key belongs to the page.
    fn take(&self, key: Key, on_disk: Option<SlotId>, look: &mut Look, page: &mut KeyPage) -> Result<bool, ReadError> {
        let in_memory = self.memory.get(&key);
        let Some(slot) = on_disk.or(in_memory.map(|(slot, _)| *slot)) else {
            return Ok(false);
        };
        let source = KeySource {
            slot,
            user: self.query.user.clone(),
            key: key.clone(),
            memory: in_memory.map(|(_, ops)| ops.clone()).unwrap_or_default(),
            segments: self.segments_with(slot, &key),
        };
        let wanted = if self.query.all {
            holds_text(&source, look)?
        } else {
            has_values(&source, look)?
        };
        if wanted {
            page.keys.push(key);
        }
        Ok(wanted)
    }

    fn segments_with(&self, slot: SlotId, key: &Key) -> Vec<Arc<Segment>> {
        let tag = key_tag(KeyHash::of(&self.query.user, key));
        self.segments
            .iter()
            .filter(|segment| segment.may_hold(slot, tag))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
