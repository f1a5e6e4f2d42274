//! What clears are estimated to free: whether to merge everything for their sake.
//!
//! A clear is worth what the segments hold of its key, as far as their indexes tell: that of a small key is worth little, however large others are.
//!
//! Invariant: what a segment holds of a key counts once between two merges of everything, however often the key is cleared.

use std::collections::HashMap;

use super::Shard;
use crate::core::slot::{KeyHash, SlotId};
use crate::store::filter::key_tag;
use crate::store::segment::Segment;
use crate::types::{Key, UserId, WallMs};

/// A merge for the sake of clears is worth it when they are estimated to free this part of the bytes: 1 in so many.
const RECLAIM_PART: u64 = 4;
/// A clear's own record in a segment, about.
const CLEAR_BYTES: u64 = 64;
/// Cleared keys of which it is remembered what they counted; those beyond count each time.
const KEYS_MAX: usize = 64 * 1024;

/// What was cleared since the last merge of all segments.
#[derive(Default)]
pub(super) struct Cleared {
    /// By what each key counts.
    by_key: HashMap<KeyHash, u64>,
    /// Of all keys, bytes.
    bytes: u64,
}

impl Cleared {
    /// Of clears that nothing more is known of.
    fn of_unknown(bytes: u64) -> Self {
        Self {
            bytes,
            by_key: HashMap::new(),
        }
    }

    fn note(&mut self, key: KeyHash, held: u64) {
        let known = self.by_key.get(&key).copied().unwrap_or(0);
        if held <= known {
            return;
        }
        self.bytes += held - known;
        if known > 0 || self.by_key.len() < KEYS_MAX {
            self.by_key.insert(key, held);
        }
    }

    /// Takes back what a merge that failed was to apply.
    pub(super) fn take_back(&mut self, mut others: Self) {
        for (key, held) in &self.by_key {
            others.note(*key, *held);
        }
        let by_key: u64 = self.by_key.values().sum();
        others.bytes += self.bytes.saturating_sub(by_key);
        *self = others;
    }

    /// What they are estimated to free.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Shard {
    /// Counts a clear that was appended.
    pub(super) fn note_clear(&mut self, slot: SlotId, hash: KeyHash, (user, key): (&UserId, &Key)) {
        self.clears_since_merge += 1;
        let segments = self
            .segments
            .iter()
            .filter(|segment| segment.may_hold(slot, key_tag(hash)));
        let sealed = segments.map(|segment| segment.bytes_of(slot, user.as_str(), key.as_str()));
        let held = sealed.sum::<u64>() + self.bytes_being_sealed(user, key);
        self.cleared.note(hash, held);
    }

    /// A seal under way does not ask for clears that came after it began; about what it takes of the key.
    fn bytes_being_sealed(&self, user: &UserId, key: &Key) -> u64 {
        let Some(frozen) = self.seal_under_way.as_ref().and(self.frozen.front()) else {
            return 0;
        };
        let memtable = frozen.memtable.read();
        let is_held = memtable.version_of(user, key).is_some();
        if is_held {
            memtable.end() / memtable.op_count().max(1) as u64
        } else {
            0
        }
    }

    /// Counts the clears that were here when the shard was opened.
    pub(super) fn note_recovered_clears(&mut self) {
        let (bytes, keys, clears) = self.sealed();
        self.cleared = Cleared::of_unknown(clears.saturating_mul(bytes / keys));
        let memtables: Vec<_> = self.memtables().cloned().collect();
        for memtable in memtables {
            let memtable = memtable.read();
            for ((slot, user, key), _) in memtable.cleared_keys(memtable.durable_groups()) {
                self.note_clear(slot, KeyHash::of(&user, &key), (&user, &key));
            }
        }
    }

    /// Bytes, keys and clears in segments. A key in several counts as several.
    fn sealed(&self) -> (u64, u64, u64) {
        let sum = |figure: fn(&Segment) -> u64| -> u64 { self.segments.iter().map(|segment| figure(segment)).sum() };
        let keys = sum(|segment| segment.stats().keys).max(1);
        (sum(Segment::file_bytes), keys, sum(|segment| segment.stats().clears))
    }

    /// Whether clears are estimated to free enough.
    pub(super) fn reclaim_is_worth_it(&self, now: WallMs) -> bool {
        let (bytes, _, clears) = self.sealed();
        // Clears that the last merge of everything could not drop, it would not drop now either.
        let left: u64 = self.clears_left.values().sum();
        let sealed_clears = clears.saturating_sub(left);
        if self.is_idle(now) && self.forgettable_requests(now) {
            return true;
        }
        if sealed_clears + self.clears_since_merge == 0 {
            return false;
        }
        let freed = self.cleared.bytes + sealed_clears * CLEAR_BYTES;
        freed >= bytes / RECLAIM_PART || self.disk_full || (self.is_idle(now) && sealed_clears > 0)
    }
}
