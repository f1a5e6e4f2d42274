//! Memtables and segments of one shard, sealed and merged by hand.

use std::path::Path;

use super::*;
use crate::store::log::LogKey;
use crate::store::memory_disk::MemoryDisk;
use crate::store::memtable::{MemoryOps, Memtable};
use crate::store::names::NameKey;
use crate::store::order::rank_of;
use crate::store::reader::KeyReader;
use crate::store::source::KeySource;

/// A replica's files, without its shard.
pub(super) struct Store {
    pub(super) disk: MemoryDisk,
    pub(super) cache: Arc<BlockCache>,
    pub(super) memtables: Vec<SharedMemtable>,
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) next_number: u64,
    pub(super) stable: SlotClocks,
    pub(super) covered_extra: SlotClocks,
    pub(super) lost: SlotClocks,
    pub(super) now: WallMs,
    pub(super) heard: Option<WallMs>,
}

impl Store {
    pub(super) fn new(stable: SlotClocks) -> Self {
        Self {
            disk: MemoryDisk::new(),
            cache: Arc::new(BlockCache::new(1 << 20)),
            memtables: Vec::new(),
            segments: Vec::new(),
            next_number: 1,
            stable,
            covered_extra: SlotClocks::default(),
            lost: SlotClocks::default(),
            now: NOW,
            heard: Some(NOW),
        }
    }

    /// One segment, all of which every replica knows.
    pub(super) fn of(ops: &[KeyedOp]) -> Self {
        let mut store = Self::new(dots(ops));
        store.add_segment(ops);
        store
    }

    /// Nothing new came from elsewhere meanwhile.
    pub(super) fn wait(&mut self, ms: u64) {
        self.now.0 += ms;
        self.heard = Some(self.now);
    }

    pub(super) fn spent(&self) -> u64 {
        self.segments.iter().map(|segment| segment.stats().spent).sum()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// As they come, not in order.
    pub(super) fn add_memtable(&mut self, ops: &[KeyedOp]) {
        let mut memtable = Memtable::new(LogKey::without_secret(self.number()), NameKey::new([1; 16]));
        for KeyedOp { user, key, op } in ops {
            memtable.append(user, key, op);
        }
        memtable.close_group();
        let closed = memtable.closed_groups();
        memtable.set_durable(closed);
        self.memtables.push(memtable.share());
    }

    pub(super) fn add_segment(&mut self, ops: &[KeyedOp]) {
        let number = self.number();
        let meta = SegmentMeta {
            shard: 0,
            number,
            replaces: Vec::new(),
        };
        let mut ops = ops.to_vec();
        ops.sort_by_key(|op| (op.op.dot.slot, op.key.clone(), rank_of(&op.op)));
        let mut writer = SegmentWriter::create(self.disk.as_disk(), Path::new("/shard"), meta).unwrap();
        for KeyedOp { user, key, op } in &ops {
            let (slot, user, key) = (op.dot.slot, user.as_str(), key.as_str());
            writer.push(EntryRef { slot, user, key, op }).unwrap();
        }
        let segment = writer.finish(dots(&ops), SlotClocks::default(), &self.cache).unwrap();
        self.segments.push(Arc::new(segment));
    }

    pub(super) fn context(&mut self, outside: Vec<Arc<Segment>>) -> MergeContext {
        let durable = |memtable: &SharedMemtable| (memtable.clone(), memtable.read().durable_groups());
        MergeContext {
            disk: self.disk.as_disk(),
            dir: "/shard".into(),
            cache: self.cache.clone(),
            shard: 0,
            number: self.number(),
            obsolete: Vec::new(),
            outside,
            in_memory: self.memtables.iter().map(durable).collect(),
            memtables: self.memtables.clone(),
            stable: self.stable.clone(),
            covered_extra: self.covered_extra.clone(),
            lost: self.lost.clone(),
            time: HybridTime::default(),
            now: self.now,
            heard: self.heard,
            salvage: false,
        }
    }

    pub(super) fn merge(&mut self, sources: Vec<Source>, outside: Vec<Arc<Segment>>) -> Arc<Segment> {
        let context = self.context(outside);
        let mut merge = Box::new(Merge::start(sources, context).unwrap());
        loop {
            match merge.step(64).unwrap() {
                Progress::More(more) => merge = more,
                Progress::Done(merged) => return Arc::new(merged.segment),
            }
        }
    }

    pub(super) fn seal_oldest(&mut self) {
        let memtable = self.memtables[0].clone();
        let segment = self.merge(vec![Source::Memtable(memtable)], self.segments.clone());
        self.memtables.remove(0);
        self.segments.push(segment);
    }

    /// Merges the segments at these places.
    pub(super) fn compact(&mut self, places: &BTreeSet<usize>) {
        let at = |place: &usize, segment: &Arc<Segment>| (places.contains(place), segment.clone());
        let chosen = self
            .segments
            .iter()
            .enumerate()
            .map(|(place, segment)| at(&place, segment));
        let (inputs, outside): (Vec<_>, Vec<_>) = chosen.partition(|(is_input, _)| *is_input);
        let outside: Vec<_> = outside.into_iter().map(|(_, segment)| segment).collect();
        let sources = inputs
            .into_iter()
            .map(|(_, segment)| Source::Segment(segment))
            .collect();
        let merged = self.merge(sources, outside.clone());
        self.segments = outside;
        self.segments.push(merged);
    }

    pub(super) fn compact_all(&mut self) {
        self.compact(&(0..self.segments.len()).collect());
    }

    pub(super) fn source(&self, key: usize) -> KeySource {
        let (slot, key) = KEYS[key];
        let (user, key) = (user(), Key::new(key).unwrap());
        KeySource {
            slot: SlotId(slot),
            memory: MemoryOps::of(&self.memtables, (&user, &key), Memtable::durable_groups),
            segments: self.segments.clone(),
            user,
            key,
        }
    }

    pub(super) fn view(&self, key: usize) -> Vec<String> {
        let mut reader = KeyReader::new(self.source(key), 0, u64::MAX);
        let (mut values, mut open) = (Vec::new(), String::new());
        while let Some(fragment) = reader.next().unwrap() {
            open.push_str(fragment.text.as_ref());
            if fragment.ends_value {
                values.push(std::mem::take(&mut open));
            }
        }
        values
    }

    pub(super) fn covered(&self) -> SlotClocks {
        let mut covered = SlotClocks::default();
        self.segments.iter().for_each(|segment| covered.join(segment.covered()));
        self.memtables
            .iter()
            .for_each(|memtable| covered.join(&memtable.read().covered()));
        covered
    }

    pub(super) fn collected(&self) -> SlotClocks {
        let mut collected = SlotClocks::default();
        self.segments
            .iter()
            .for_each(|segment| collected.join(segment.collected()));
        collected
    }

    pub(super) fn clears(&self) -> u64 {
        self.segments.iter().map(|segment| segment.stats().clears).sum()
    }
}
