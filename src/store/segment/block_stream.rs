//! The blocks of a segment as they go into its file, and the index that grows with them.

use std::borrow::Cow;

use super::block_builder::{BlockBuilder, PlainRun, RunBuilder};
use super::error::WriteError;
use super::format::{BLOCK_BYTES_MAX, BlockAddress, HEADER_BYTES, Header, Sealer, Trailer, sealed_bytes_max};
use super::index::IndexBuilder;
use crate::store::disk::DiskFile;

/// The file gets its bytes in pieces of about this size.
const WRITE_BYTES: usize = 1024 * 1024;

pub(super) struct BlockStream {
    file: Box<dyn DiskFile>,
    header: Header,
    block_bytes_target: usize,
    base_ms: u64,
    /// Finished bytes that the file does not have yet: no more than `WRITE_BYTES`, or one block that is longer.
    out: Vec<u8>,
    /// How many bytes the file has.
    file_bytes: u64,
    sealer: Sealer,
    raw_bytes_max: usize,
    index: IndexBuilder,
    block: BlockBuilder,
    /// What is known of the only run in the block, while it has no other.
    plain: Option<PlainRun>,
    /// The first place in the block being built.
    first_place: Vec<u8>,
    last_place: Vec<u8>,
    /// The last place of the block before it.
    sealed_place: Vec<u8>,
}

/// What the blocks leave for the footer.
pub(super) struct BlocksDone {
    pub block_count: u32,
    pub index: Vec<u8>,
    pub raw_bytes_max: usize,
}

impl BlockStream {
    pub fn new(file: Box<dyn DiskFile>, header: Header, block_bytes_target: usize) -> Self {
        let mut out = Vec::with_capacity(WRITE_BYTES);
        out.extend_from_slice(&header.encode());
        Self {
            file,
            header,
            block_bytes_target,
            base_ms: 0,
            out,
            file_bytes: 0,
            sealer: Sealer::default(),
            raw_bytes_max: 0,
            index: IndexBuilder::default(),
            block: BlockBuilder::default(),
            plain: None,
            first_place: Vec::new(),
            last_place: Vec::new(),
            sealed_place: Vec::new(),
        }
    }

    pub fn set_base(&mut self, base_ms: u64) {
        self.base_ms = base_ms;
    }

    /// Bytes of the file so far, those still in memory included.
    pub fn bytes(&self) -> u64 {
        self.file_bytes + (self.out.len() + self.block.bytes()) as u64
    }

    /// Puts a run into the block being built when there is room, else into the next one.
    pub fn add_run(&mut self, place: &[u8], run: &RunBuilder) -> Result<(), WriteError> {
        let needed = place.len() + run.bytes();
        if !self.block.is_empty() && self.block.bytes() + needed > self.block_bytes_target {
            self.seal()?;
        }
        if self.block.is_empty() {
            place.clone_into(&mut self.first_place);
            self.plain = run.plain();
        } else {
            self.plain = None;
        }
        self.block.add(place, run);
        place.clone_into(&mut self.last_place);
        if self.block.bytes() >= self.block_bytes_target {
            self.seal()?;
        }
        Ok(())
    }

    /// Ends the block being built, if there is any.
    pub fn seal(&mut self) -> Result<(), WriteError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let ops = self.block.ops();
        self.block.finish(self.base_ms);
        let raw_bytes = self.block.raw().len();
        if raw_bytes > BLOCK_BYTES_MAX {
            return Err(WriteError::TooLong {
                got: raw_bytes,
                max: BLOCK_BYTES_MAX,
            });
        }
        self.raw_bytes_max = self.raw_bytes_max.max(raw_bytes);
        // Nothing waits for a long block to join it.
        let needed = sealed_bytes_max(raw_bytes);
        if !self.out.is_empty() && self.out.len() + needed > WRITE_BYTES {
            self.flush()?;
        }
        self.out.reserve_exact(needed);
        let address = BlockAddress {
            shard: self.header.shard,
            number: self.header.number,
            offset: self.file_bytes + self.out.len() as u64,
        };
        let stored_bytes = self.sealer.put_block(&mut self.out, address, self.block.raw());
        self.block.clear();
        self.index
            .add(&self.sealed_place, &self.first_place, stored_bytes, ops, self.plain);
        std::mem::swap(&mut self.sealed_place, &mut self.last_place);
        if self.out.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    pub fn finish_blocks(&mut self) -> Result<BlocksDone, WriteError> {
        self.seal()?;
        let (block_count, index) = std::mem::take(&mut self.index).finish();
        Ok(BlocksDone {
            block_count,
            index,
            raw_bytes_max: self.raw_bytes_max,
        })
    }

    /// Durable on Ok, under the name that the file has now.
    pub fn finish_file(mut self, footer: &[Cow<'_, [u8]>]) -> Result<(), WriteError> {
        let footer_offset = self.file_bytes + self.out.len() as u64;
        let trailer = Trailer::new(&self.header.encode(), footer_offset, footer);
        // A large one is not copied: it may be as long as all that is kept in memory of the segment.
        for part in footer.iter().flat_map(|piece| piece.chunks(WRITE_BYTES)) {
            if self.out.len() + part.len() > WRITE_BYTES {
                self.flush()?;
            }
            self.out.extend_from_slice(part);
        }
        self.out.extend_from_slice(&trailer.encode());
        self.flush()?;
        self.file.sync_data().map_err(|error| self.io(error))
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        debug_assert!(self.file_bytes > 0 || self.out.len() >= HEADER_BYTES);
        self.file
            .write_all_at(&self.out, self.file_bytes)
            .map_err(|error| self.io(error))?;
        self.file_bytes += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    fn io(&self, error: std::io::Error) -> WriteError {
        WriteError::Io {
            number: self.header.number,
            error,
        }
    }
}
