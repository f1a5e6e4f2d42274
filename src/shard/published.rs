//! What a shard shows to readers: enough to read by, without asking the shard.
//!
//! Only the shard changes it, except for the highest time, which others may raise. A reader takes a snapshot and keeps to it, whatever the
//! shard does next: reads wait neither for a commit nor for the shard's queue.
//!
//! Invariant: an op that was acknowledged is in what is published. A new active memtable is published before anything is
//! put into it, and what was merged is published whole, in one step with what it replaces.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use super::Shard;
use crate::core::clock::SlotClocks;
use crate::core::slot::{KeyHash, SlotId};
use crate::core::stamp::HybridTime;
use crate::store::filter::key_tag;
use crate::store::keys::{KeyLister, KeyQuery, MEMORY_KEYS_MIN};
use crate::store::memtable::{MemoryOps, Memtable, SharedMemtable};
use crate::store::segment::Segment;
use crate::store::source::KeySource;
use crate::types::{Key, UserId};

/// Data of these slots is lost on this disk: the answer is with a peer, and never "not found".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{lost_ops} ops of slots {first_slot} to {last_slot} were lost to damage on this node's disk; see its log and `kv segment`"
)]
pub struct Damaged {
    pub first_slot: u16,
    pub last_slot: u16,
    pub lost_ops: u64,
}

/// The files and memtables of one moment.
#[derive(Default)]
pub(super) struct Readable {
    slots: Range<u16>,
    /// Oldest first.
    pub(super) memtables: Vec<SharedMemtable>,
    pub(super) segments: Vec<Arc<Segment>>,
    /// Dots that were on this disk and are no more.
    pub(super) lost: SlotClocks,
    /// Why some clears cannot be collected yet: the dots that they saw and that not every replica's clock covers.
    pub(super) awaited: SlotClocks,
}

/// What other replicas ask of a shard. What is shown as durable and the clock that says so change in one step.
#[derive(Default)]
pub(super) struct Told {
    /// Dots that are durable here or known to be dropped; of losses that nobody can name, nothing.
    pub(super) durable: RwLock<SlotClocks>,
    /// The highest time that any op had so far, or that is to come before what is stamped here; `HybridTime`.
    pub(super) highest: AtomicU64,
}

impl Told {
    pub(super) fn tell_time(&self, time: HybridTime) {
        self.highest.fetch_max(time.0, Ordering::AcqRel);
    }

    pub(super) fn highest_time(&self) -> HybridTime {
        HybridTime(self.highest.load(Ordering::Acquire))
    }
}

#[derive(Default)]
pub(super) struct Published {
    readable: Arc<ArcSwap<Readable>>,
    told: Arc<Told>,
}

impl Published {
    pub(super) fn tell_time(&self, time: HybridTime) {
        self.told.tell_time(time);
    }

    pub(super) fn highest_time(&self) -> HybridTime {
        self.told.highest_time()
    }

    /// Runs `show`, which lets readers see more, and adds what it says to the durable clock, in one step.
    pub(super) fn tell_durable(&self, show: impl FnOnce(&mut SlotClocks)) {
        show(&mut self.told.durable.write());
    }

    pub(super) fn tell_lost(&self, lost: &SlotClocks) {
        let mut durable = self.told.durable.write();
        *durable = durable.minus(lost);
    }
}

/// Reads from a shard without asking it. Cheap to clone.
///
/// It shows what that shard acknowledged, also after the shard has ended; when the shard was reopened, the new one's
/// reader is to be used.
#[derive(Clone)]
pub struct ShardReader {
    pub(super) readable: Arc<ArcSwap<Readable>>,
    pub(super) told: Arc<Told>,
}

impl Shard {
    /// To be called when a memtable or a segment came or went, before anything relies on it.
    pub(super) fn publish(&self) {
        self.published.readable.store(Arc::new(Readable {
            slots: self.place.slots.clone(),
            memtables: self.logs.memtables().cloned().collect(),
            segments: self.segments.all().to_vec(),
            lost: self.dots.lost().clone(),
            awaited: self.clears.awaited().clone(),
        }));
    }

    pub fn reader(&self) -> ShardReader {
        ShardReader {
            readable: self.published.readable.clone(),
            told: self.published.told.clone(),
        }
    }
}

impl ShardReader {
    /// A snapshot of one key: all that is durable now.
    pub fn key(&self, slot: SlotId, hash: KeyHash, user: &UserId, key: &Key) -> Result<KeySource, Damaged> {
        let readable = self.readable.load();
        if let Some(lost) = readable.lost.get(slot) {
            return Err(Damaged {
                first_slot: slot.0,
                last_slot: slot.0,
                lost_ops: lost.count(),
            });
        }
        Ok(KeySource {
            slot,
            user: user.clone(),
            key: key.clone(),
            memory: readable.memory_ops(user, key),
            segments: those_of_key(&readable.segments, slot, hash),
        })
    }

    /// A snapshot to list keys from. Looks at every key in memory.
    pub fn keys(&self, query: KeyQuery) -> Result<KeyLister, Damaged> {
        let readable = self.readable.load_full();
        let lost = &readable.lost;
        if let (Some((first, _)), Some((last, _))) = (lost.slots().next(), lost.slots().last()) {
            return Err(Damaged {
                first_slot: first.0,
                last_slot: last.0,
                lost_ops: lost.count(),
            });
        }
        let mut found = BTreeMap::new();
        for memtable in &readable.memtables {
            let keys = {
                // Held as briefly as possible: the shard's actor waits meanwhile, and so does every reader behind it.
                let memtable = memtable.read();
                memtable.keys_of(&query.user, memtable.durable_groups(), |key| query.accepts(key))
            };
            found.extend(keys.into_iter().map(|(slot, key)| (key, slot)));
        }
        // Later keys wait for the next page.
        let kept: BTreeMap<_, _> = found
            .iter()
            .take(query.limit.max(MEMORY_KEYS_MIN))
            .map(|(key, slot)| (key.clone(), (*slot, readable.memory_ops(&query.user, key))))
            .collect();
        let memory_cut = (found.len() > kept.len())
            .then(|| kept.keys().next_back().cloned())
            .flatten();
        Ok(KeyLister {
            query,
            slots: readable.slots.clone(),
            segments: readable.segments.clone(),
            memory: kept,
            memory_cut,
        })
    }
}

/// The segments that may hold the key.
pub(super) fn those_of_key(segments: &[Arc<Segment>], slot: SlotId, hash: KeyHash) -> Vec<Arc<Segment>> {
    let tag = key_tag(hash);
    let held = segments.iter().filter(|segment| segment.may_hold(slot, tag));
    held.cloned().collect()
}

impl Readable {
    pub(super) fn memory_ops(&self, user: &UserId, key: &Key) -> MemoryOps {
        MemoryOps::of(&self.memtables, (user, key), Memtable::durable_groups)
    }
}
