//! Sealed segments: files of ops sorted by (slot, user, key, stamp), never changed once they have their name.
//!
//! Invariant: what a segment gives was checked (checksum of its block, then every length and bound while decoding) and is right, or
//! it is an error that names the damage; never wrong data, never a panic.
//!
//! Every byte of the file is described in `format` (the outside), `footer`, `index`, `block`, `ops` and `place`.
//! Opening reads header, trailer and footer; data blocks are read when they are needed, through the [`BlockCache`].

mod block;
mod block_builder;
mod block_stream;
mod cursor;
mod directory;
pub mod dump;
mod error;
mod footer;
mod format;
mod index;
mod ops;
mod place;
mod salvage;
mod scan;
mod slot_filters;
mod span;
mod spread;
mod stored;
mod texts;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub(super) use block::Block;
pub use block_builder::PlainRun;
use cursor::Keep;
pub use cursor::OpCursor;
pub use error::{DamagedBlock, OpenError, ReadError, WriteError};
use footer::Footer;
pub use footer::{SegmentStats, decode_footer};
pub use format::{BLOCK_BYTES_TARGET, BlockAddress, FORMAT_VERSION, HEADER_MAGIC, TRAILER_MAGIC};
use format::{BLOCK_TAGS_VERSION, HEADER_BYTES, Header, OLDEST_VERSION, TRAILER_BYTES, Trailer, open_block};
use index::BlockRef;
pub use place::place_of;
pub use salvage::{Salvaged, decode_block, decode_raw_block, salvage};
pub use scan::{LONG_BLOCK_BYTES, Scan, ScanBlocks};
pub use span::{Gathered, TextSpan};
pub use spread::Values;
pub use texts::Texts;
pub use writer::{EntryRef, SegmentWriter};

use super::cache::{BlockCache, BlockKey};
use super::codec::Malformed;
use super::disk::{Disk, DiskFile, OpenMode};
use crate::core::clock::SlotClocks;
use crate::core::slot::SlotId;

const PREFIX: &str = "segment-";
const SUFFIX: &str = ".kvs";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Which segment is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMeta {
    pub shard: u16,
    pub number: u64,
    /// Numbers of the logs and segments whose content this one takes over.
    pub replaces: Vec<u64>,
}

pub fn file_name(number: u64) -> String {
    format!("{PREFIX}{number:016x}{SUFFIX}")
}

/// The name while it is being written. Such a file is never read; whoever finds one may remove it.
pub fn temporary_name(number: u64) -> String {
    format!("{PREFIX}{number:016x}{SUFFIX}{TEMPORARY_SUFFIX}")
}

pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    // Only the one spelling counts: no sign, no capitals, all 16 digits. No shard ever gets as far as the higher numbers, and after them
    // there might be none for the next file.
    (file_name(number) == name && number < u64::MAX / 2).then_some(number)
}

/// How far a reader may go for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Not where it would have to wait for the disk.
    Memory,
    Disk,
}

/// One open segment. The file stays readable through it after its name was removed.
pub struct Segment {
    header: Header,
    file: Box<dyn DiskFile>,
    file_bytes: u64,
    blocks_end: u64,
    footer: Footer,
    uid: u64,
    cache: Arc<BlockCache>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {:016x} of shard {}", self.header.number, self.header.shard)
    }
}

impl Segment {
    /// Reads header, trailer and footer; no block.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        shard: u16,
        number: u64,
        cache: &Arc<BlockCache>,
    ) -> Result<Self, OpenError> {
        let name = file_name(number);
        let segment = Self::open_path(disk, &dir.join(&name), &name, cache)?;
        if (segment.header.shard, segment.header.number) != (shard, number) {
            return Err(OpenError::Misplaced {
                name,
                shard: segment.header.shard,
                number: segment.header.number,
            });
        }
        Ok(segment)
    }

    /// Opens whatever segment lies there.
    fn open_path(disk: &Arc<dyn Disk>, path: &Path, name: &str, cache: &Arc<BlockCache>) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io {
            name: name.to_owned(),
            error,
        };
        let damaged = |error| OpenError::damaged(name, error);
        let unfinished = || OpenError::Unfinished { name: name.to_owned() };
        let file = disk.open(path, OpenMode::Read).map_err(io)?;
        let file_bytes = file.len().map_err(io)?;
        if file_bytes < HEADER_BYTES as u64 {
            return Err(unfinished());
        }
        let mut header_bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut header_bytes, 0).map_err(io)?;
        let header = Header::decode(&header_bytes).map_err(damaged)?;
        if header.version > FORMAT_VERSION {
            return Err(OpenError::NewerVersion {
                name: name.to_owned(),
                found: header.version,
                known: FORMAT_VERSION,
            });
        }
        if header.version < OLDEST_VERSION {
            return Err(damaged(Malformed { what: "format version" }));
        }
        if file_bytes < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(unfinished());
        }
        let mut trailer_bytes = [0; TRAILER_BYTES];
        let trailer_offset = file_bytes - TRAILER_BYTES as u64;
        file.read_exact_at(&mut trailer_bytes, trailer_offset).map_err(io)?;
        let trailer = Trailer::decode(&trailer_bytes).ok_or_else(unfinished)?;
        let wrong = Malformed {
            what: "place of the footer",
        };
        // It fits the file, so its length is no reason to allocate more than the file is long.
        let footer_bytes = usize::try_from(trailer.footer_bytes)
            .ok()
            .filter(|_| trailer.fits(file_bytes));
        let mut footer = vec![0; footer_bytes.ok_or(damaged(wrong))?];
        file.read_exact_at(&mut footer, trailer.footer_offset).map_err(io)?;
        if trailer.checksum(&header_bytes, &[&footer]) != trailer.crc {
            return Err(damaged(Malformed {
                what: "checksum of the footer",
            }));
        }
        Ok(Self {
            header,
            file,
            file_bytes,
            blocks_end: trailer.footer_offset,
            footer: decode_footer(&footer.into(), header.version, trailer.footer_offset).map_err(damaged)?,
            uid: cache.segment_uid(),
            cache: cache.clone(),
        })
    }

    pub fn shard(&self) -> u16 {
        self.header.shard
    }

    pub fn number(&self) -> u64 {
        self.header.number
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub fn stats(&self) -> &SegmentStats {
        &self.footer.stats
    }

    /// Numbers of the logs and segments whose content this one took over.
    pub fn replaces(&self) -> &[u64] {
        &self.footer.replaces
    }

    /// The dots held here, or known to be dropped.
    pub fn covered(&self) -> &SlotClocks {
        &self.footer.covered
    }

    /// The dots that are known to exist and that this replica lost.
    pub fn lost(&self) -> &SlotClocks {
        &self.footer.lost
    }

    /// What was collected: the clears that were dropped because every replica knew them and all that they saw, and what they saw. A replica
    /// whose clock does not cover it may hold what they cleared, and nobody can send it the clears any more.
    pub fn collected(&self) -> &SlotClocks {
        &self.footer.collected
    }

    pub fn block_count(&self) -> u32 {
        self.footer.index.count()
    }

    /// Bytes that filter and index take in memory.
    pub fn memory_bytes(&self) -> usize {
        self.footer.filters.memory_bytes() + self.footer.index.memory_bytes()
    }

    /// Whether the segment may hold anything of the slot with this tag (see `filter`). No is certain.
    pub fn may_hold(&self, slot: SlotId, tag: u64) -> bool {
        self.footer.filters.may_hold(slot, tag)
    }

    fn has_block_tags(&self) -> bool {
        self.header.version >= BLOCK_TAGS_VERSION
    }

    /// The ops of one key, in the order of their stamps. Reads nothing yet, and does not ask the filter.
    pub fn ops_of(self: &Arc<Self>, slot: SlotId, user: &str, key: &str) -> OpCursor {
        let place = place_of(slot, user, key);
        let start = self.first_block(&place);
        OpCursor::new(self.clone(), place, slot, start)
    }

    /// Whether the key's ops lie in one block and that needs no I/O.
    pub fn is_cached(&self, slot: SlotId, user: &str, key: &str) -> bool {
        let place = place_of(slot, user, key);
        let Some(block) = self.first_block(&place) else {
            return true;
        };
        !self.goes_on(&block, &place) && self.cache.holds(self.key_of(&block))
    }

    /// The first block that can hold ops of the key at `place`.
    fn first_block(&self, place: &[u8]) -> Option<BlockRef> {
        // A plain one holds nothing but a key that began before it.
        self.footer.index.find(place).filter(|block| block.plain.is_none())
    }

    /// Whether the key at `place`, which `block` is the first to hold, goes on in the next one.
    fn goes_on(&self, block: &BlockRef, place: &[u8]) -> bool {
        let index = &self.footer.index;
        let continued = index.after(block).filter(|next| next.continues);
        // Its separator is the whole place of the key that it continues.
        continued.is_some_and(|next| index.separator(next.ordinal).is_none_or(|separator| separator == place))
    }

    /// All ops from that place on (inclusive), in order. Reads ahead, past the cache: for compaction.
    pub fn scan(self: &Arc<Self>, from: Option<(SlotId, &str, &str)>) -> Scan {
        self.scan_through(ScanBlocks::ReadAhead, from)
    }

    pub fn scan_through(self: &Arc<Self>, blocks: ScanBlocks, from: Option<(SlotId, &str, &str)>) -> Scan {
        let from = from.map(|(slot, user, key)| place_of(slot, user, key));
        Scan::new(self.clone(), blocks, from)
    }

    /// Reads and checks every block: its checksum, all that is decoded from it, the order of its ops, and what the index says.
    pub fn verify(&self) -> Vec<DamagedBlock> {
        verify::damaged_blocks(self)
    }

    fn key_of(&self, block: &BlockRef) -> BlockKey {
        BlockKey {
            segment: self.uid,
            block: block.ordinal,
        }
    }

    /// From the cache, or from the disk and then into the cache.
    fn load(&self, block: &BlockRef) -> Result<Arc<Block>, ReadError> {
        self.load_with(block, Keep::InCache)
    }

    fn load_with(&self, block: &BlockRef, keep: Keep) -> Result<Arc<Block>, ReadError> {
        let key = self.key_of(block);
        if let Some(held) = self.cache.get(key) {
            return Ok(held);
        }
        let loaded = Block::parse_for_lookups(self.read_block(block)?).map_err(|error| self.damaged(block, error))?;
        if keep == Keep::InCache {
            self.cache.insert(key, loaded.clone());
        }
        Ok(loaded)
    }

    /// From the cache, or from what the system has in memory and then into the cache.
    fn load_without_wait(&self, block: &BlockRef) -> Result<Option<Arc<Block>>, ReadError> {
        let key = self.key_of(block);
        if let Some(held) = self.cache.get_if_held(key) {
            return Ok(Some(held));
        }
        let Some(stored) = stored::read_without_wait(self, block) else {
            return Ok(None);
        };
        self.cache.count_miss();
        let opened = self.open_stored(block, &stored)?;
        let loaded = Block::parse_for_lookups(opened).map_err(|error| self.damaged(block, error))?;
        self.cache.insert(key, loaded.clone());
        Ok(Some(loaded))
    }

    /// From the disk.
    fn read_block(&self, block: &BlockRef) -> Result<Bytes, ReadError> {
        self.open_stored(block, &stored::read_stored(self, block)?)
    }

    fn open_stored(&self, block: &BlockRef, stored: &Bytes) -> Result<Bytes, ReadError> {
        let address = BlockAddress {
            shard: self.header.shard,
            number: self.header.number,
            offset: block.offset,
        };
        open_block(stored, address, self.footer.raw_bytes_max).map_err(|error| self.damaged(block, error))
    }

    fn damaged(&self, block: &BlockRef, error: Malformed) -> ReadError {
        ReadError::Damaged(self.damage(block, error.what))
    }

    fn damage(&self, block: &BlockRef, reason: &'static str) -> DamagedBlock {
        DamagedBlock {
            segment: self.header.number,
            offset: block.offset,
            stored_bytes: block.stored_bytes,
            ops: block.ops,
            slots: self.footer.index.slots(block, self.footer.last_slot),
            reason,
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Nobody will ask for them again; they would only wait to be pushed out.
        for block in 0..self.footer.index.count() {
            self.cache.remove(BlockKey {
                segment: self.uid,
                block,
            });
        }
    }
}
