//! The block cache: decoded data blocks of sealed segments, shared by all segments of a node.
//!
//! Invariant: what it holds passed its checksum and decoded when it came in, and a key never means two different blocks
//! (every opened segment gets a number of its own from the cache, which is never given out again).

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::segment::Block;

/// Locks inside the cache. Fixed, not taken from the machine, so that every run evicts alike.
const CACHE_SHARDS: usize = 8;
/// A larger block stays out: it would push out many small ones, and one long read is cheap for its size.
pub const CACHED_BLOCK_BYTES_MAX: usize = 256 * 1024;
/// What an entry costs beside its bytes, roughly: key, links and the allocation's own header.
const ENTRY_OVERHEAD_BYTES: u64 = 96;
/// For sizing the table only.
const TYPICAL_BLOCK_BYTES: u64 = 8 * 1024;

/// One block of one opened segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockKey {
    pub segment: u64,
    pub block: u32,
}

/// Multiplies and folds the few integers of a [`BlockKey`]. Unkeyed: the numbers are our own, and every run must hash alike.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        let folded = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        folded ^ (folded >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(29) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<BlockKey, Arc<Block>> for ByBytes {
    fn weight(&self, _: &BlockKey, block: &Arc<Block>) -> u64 {
        block.memory_bytes() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

pub struct BlockCache {
    blocks: Cache<BlockKey, Arc<Block>, ByBytes, BuildHasherDefault<KeyHasher>>,
    next_segment: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl BlockCache {
    pub fn new(capacity_bytes: u64) -> Self {
        let options = OptionsBuilder::new()
            .shards(CACHE_SHARDS)
            .weight_capacity(capacity_bytes)
            .estimated_items_capacity((capacity_bytes / TYPICAL_BLOCK_BYTES) as usize)
            .build()
            .unwrap_or_else(|_| unreachable!("both capacities are set"));
        Self {
            blocks: Cache::with_options(
                options,
                ByBytes,
                BuildHasherDefault::default(),
                DefaultLifecycle::default(),
            ),
            next_segment: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// A number for a segment that is being opened; given out once.
    pub fn segment_uid(&self) -> u64 {
        self.next_segment.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts as a hit or a miss.
    pub(super) fn get(&self, key: BlockKey) -> Option<Arc<Block>> {
        let found = self.blocks.get(&key);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Counts a hit, but no miss: for callers that may ask again.
    pub(super) fn get_if_held(&self, key: BlockKey) -> Option<Arc<Block>> {
        let found = self.blocks.get(&key)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    /// For a block that was not held and had to be read.
    pub(super) fn count_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Neither counts nor makes the block any hotter: for scans.
    pub(super) fn peek(&self, key: BlockKey) -> Option<Arc<Block>> {
        self.blocks.peek(&key)
    }

    pub fn holds(&self, key: BlockKey) -> bool {
        self.blocks.contains_key(&key)
    }

    pub(super) fn insert(&self, key: BlockKey, block: Arc<Block>) {
        if block.memory_bytes() <= CACHED_BLOCK_BYTES_MAX {
            self.blocks.insert(key, block);
        }
    }

    pub fn remove(&self, key: BlockKey) {
        self.blocks.remove(&key);
    }

    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Bytes held now, overhead included.
    pub fn used_bytes(&self) -> u64 {
        self.blocks.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::put_bytes;

    fn key(segment: u64, block: u32) -> BlockKey {
        BlockKey { segment, block }
    }

    /// One group, of one op that is about so long.
    fn block(bytes: usize) -> Arc<Block> {
        let mut raw = vec![0; 10];
        raw.extend_from_slice(&[0, 1, b'k', 1]);
        put_bytes(&mut raw, &vec![0; bytes]);
        raw.extend_from_slice(&[10, 0, 0, 0, 1, 0, 0, 0]);
        Block::parse(raw.into()).unwrap()
    }

    #[test]
    fn it_stays_within_its_capacity() {
        let cache = BlockCache::new(1 << 20);
        for number in 0..1000 {
            cache.insert(key(1, number), block(16 * 1024));
        }
        assert!(cache.used_bytes() <= 1 << 20);
        assert!(cache.used_bytes() > 1 << 19);
    }

    #[test]
    fn only_gets_are_counted() {
        let cache = BlockCache::new(1 << 20);
        cache.insert(key(1, 2), block(5));
        assert!(cache.holds(key(1, 2)) && cache.peek(key(1, 2)).is_some());
        assert!(cache.get(key(1, 2)).is_some() && cache.get(key(2, 1)).is_none());
        assert_eq!((cache.hits(), cache.misses()), (1, 1));
        cache.remove(key(1, 2));
        assert!(!cache.holds(key(1, 2)));
    }

    #[test]
    fn a_huge_block_stays_out() {
        let cache = BlockCache::new(1 << 30);
        cache.insert(key(1, 1), block(CACHED_BLOCK_BYTES_MAX));
        assert!(!cache.holds(key(1, 1)));
    }

    #[test]
    fn no_segment_gets_anothers_number() {
        let cache = BlockCache::new(1 << 20);
        assert_ne!(cache.segment_uid(), cache.segment_uid());
    }
}
