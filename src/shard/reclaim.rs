//! What clears are estimated to free: whether to merge everything for their sake.
//!
//! A clear is worth what the segments hold of its key, as far as their indexes tell: that of a small key is worth little, however large others are.
//!
//! Invariants:
//! - what a segment holds of a key counts once between two merges of everything, however often the key is cleared;
//! - a clear counts until a merge of everything takes it, and again if that fails.

use std::collections::{BTreeMap, HashMap};

use super::Shard;
use crate::core::clock::SlotClocks;
use crate::core::slot::{KeyHash, SlotId};
use crate::store::filter::key_tag;
use crate::types::{Key, UserId, WallMs};

/// A merge for the sake of clears is worth it when they are estimated to free this part of the bytes: 1 in so many.
const RECLAIM_PART: u64 = 4;
/// A clear's own record in a segment, about.
const CLEAR_BYTES: u64 = 64;
/// Cleared keys of which it is remembered what they counted; those beyond count each time.
const KEYS_MAX: usize = 64 * 1024;

/// The clears of a shard, and what they are worth.
#[derive(Default)]
pub(super) struct Clears {
    /// Since the last merge of all segments.
    cleared: Cleared,
    /// Clears that the last merge of all segments had to keep, by slot, as long as nothing that they wait for has come there.
    left: BTreeMap<SlotId, u64>,
    /// What the clears saw that the last merge of all segments had to keep, and not every replica's clock covered then.
    awaited: SlotClocks,
    /// When the last merge of all segments began.
    merged_all_at: WallMs,
}

impl Clears {
    /// What is awaited by those that were kept.
    pub fn awaited(&self) -> &SlotClocks {
        &self.awaited
    }

    /// Those that the last merge of everything could not drop, and another one could not drop now either.
    pub fn left(&self) -> u64 {
        self.left.values().sum()
    }

    /// How many clears no merge of all segments took yet.
    pub fn untaken(&self) -> u64 {
        self.cleared.clears
    }

    /// What they are estimated to free, bytes.
    pub fn bytes(&self) -> u64 {
        self.cleared.bytes
    }

    pub fn merged_all_at(&self) -> WallMs {
        self.merged_all_at
    }

    fn note(&mut self, key: KeyHash, held: u64) {
        self.cleared.clears += 1;
        self.cleared.note(key, held);
    }

    /// A merge of everything begins, and takes them.
    pub fn take(&mut self, now: WallMs) -> Cleared {
        self.merged_all_at = now;
        std::mem::take(&mut self.cleared)
    }

    /// The merge that took these has failed.
    pub fn take_back(&mut self, taken: Cleared) {
        self.cleared.take_back(taken);
    }

    /// A merge of all segments had to keep these.
    pub fn keep(&mut self, left: BTreeMap<SlotId, u64>, awaited: SlotClocks) {
        self.left = left;
        self.awaited = awaited;
    }

    /// Clears that had to be kept may go now in the slots where more is known to all replicas than `before`. In the others, a merge would
    /// only keep them again: slots of a node that is away stand still, while others in the same shard go on.
    pub fn let_go(&mut self, before: Option<&SlotClocks>, stable: Option<&SlotClocks>) {
        let known = |stable: Option<&SlotClocks>, slot| stable.and_then(|stable| stable.get(slot)).cloned();
        self.left.retain(|slot, _| known(before, *slot) == known(stable, *slot));
    }

    /// Like `let_go`, in the slots of these dots, which this replica itself has come to know of.
    pub fn let_go_in(&mut self, news: &SlotClocks) {
        self.left.retain(|slot, _| news.get(*slot).is_none());
    }
}

/// What was cleared since the last merge of all segments.
#[derive(Default)]
pub(super) struct Cleared {
    /// How many clears there were.
    clears: u64,
    /// By what each key counts.
    by_key: HashMap<KeyHash, u64>,
    /// What all keys count, bytes.
    bytes: u64,
}

impl Cleared {
    /// Clears of which nothing is known but what they may free.
    fn of_unknown(bytes: u64) -> Self {
        Self {
            bytes,
            ..Self::default()
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
    fn take_back(&mut self, mut others: Self) {
        others.clears += self.clears;
        for (key, held) in &self.by_key {
            others.note(*key, *held);
        }
        let by_key: u64 = self.by_key.values().sum();
        others.bytes += self.bytes.saturating_sub(by_key);
        *self = others;
    }
}

impl Shard {
    /// Counts a clear that was appended.
    pub(super) fn note_clear(&mut self, slot: SlotId, hash: KeyHash, (user, key): (&UserId, &Key)) {
        let segments = self.segments.all().iter();
        let holding = segments.filter(|segment| segment.may_hold(slot, key_tag(hash)));
        let sealed = holding.map(|segment| segment.bytes_of(slot, user.as_str(), key.as_str()));
        let held = sealed.sum::<u64>() + self.bytes_being_sealed(user, key);
        self.clears.note(hash, held);
    }

    /// About how many bytes of the key a seal under way writes: it does not heed clears that came after it began.
    fn bytes_being_sealed(&self, user: &UserId, key: &Key) -> u64 {
        let Some(memtable) = self.logs.oldest_frozen().filter(|_| self.merges.is_sealing()) else {
            return 0;
        };
        let memtable = memtable.read();
        let is_held = memtable.version_of(user, key).is_some();
        if is_held {
            memtable.end() / memtable.op_count().max(1) as u64
        } else {
            0
        }
    }

    /// Counts the clears that were here when the shard was opened.
    pub(super) fn note_recovered_clears(&mut self) {
        let sealed = self.segments.totals();
        self.clears.cleared = Cleared::of_unknown(sealed.clears.saturating_mul(sealed.bytes / sealed.keys.max(1)));
        let memtables: Vec<_> = self.logs.memtables().cloned().collect();
        for memtable in memtables {
            let memtable = memtable.read();
            for ((slot, user, key), _) in memtable.cleared_keys(memtable.durable_groups()) {
                self.note_clear(slot, KeyHash::of(&user, &key), (&user, &key));
            }
        }
    }

    /// Whether clears are estimated to free enough.
    pub(super) fn reclaim_is_worth_it(&self, now: WallMs) -> bool {
        let sealed = self.segments.totals();
        let sealed_clears = sealed.clears.saturating_sub(self.clears.left());
        if self.is_idle(now) && self.forgettable_requests(now) {
            return true;
        }
        if sealed_clears + self.clears.untaken() == 0 {
            return false;
        }
        let freed = self.clears.bytes() + sealed_clears * CLEAR_BYTES;
        freed >= sealed.bytes / RECLAIM_PART || self.disk.is_full() || (self.is_idle(now) && sealed_clears > 0)
    }
}
