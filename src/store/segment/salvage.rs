//! What can be had from a segment that does not open, because its header, footer or trailer is damaged.
//!
//! Each block can be read by itself, and they stand one right behind the other, so they are walked from the front. A bad or unreadable
//! block is stepped over by the length in its envelope, if another block stands there. Nothing is ever searched for in between: a user's
//! text may look like a block.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::block::Block;
use super::error::OpenError;
use super::file_name;
use super::format::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BlockAddress, Envelope, FORMAT_VERSION, HEADER_BYTES, Header, TRAILER_BYTES,
    Trailer, open_block,
};
use super::place::parse_place;
use super::stored::read_if_possible;
use crate::core::op::KeyedOp;
use crate::store::codec::{Cursor, Malformed};
use crate::store::disk::{Disk, DiskFile, OpenMode};

/// How much of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Salvaged {
    pub blocks: u64,
    pub ops: u64,
    pub bad_blocks: u64,
    /// Behind the last block that was found: the footer, and whatever could not be reached.
    pub unread_bytes: u64,
    /// No bad block, and the blocks end where the trailer says that the footer begins: nothing is missing but the footer.
    pub complete: bool,
}

/// Gives every op that can still be read, in order. What is covered and lost stood in the footer and is not known.
pub fn salvage(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    shard: u16,
    number: u64,
    each: &mut dyn FnMut(KeyedOp),
) -> Result<Salvaged, OpenError> {
    let name = file_name(number);
    let io = |error| OpenError::Io {
        name: name.clone(),
        error,
    };
    let file = disk.open(&dir.join(&name), OpenMode::Read).map_err(io)?;
    let walk = Walk {
        file_bytes: file.len().map_err(io)?,
        file: file.as_ref(),
        shard,
        number,
    };
    let found = walk.newer_version().map_err(io)?;
    if let Some(found) = found {
        return Err(OpenError::NewerVersion {
            name,
            found,
            known: FORMAT_VERSION,
        });
    }
    walk.blocks(each).map_err(io)
}

struct Walk<'a> {
    file: &'a dyn DiskFile,
    file_bytes: u64,
    shard: u16,
    number: u64,
}

impl Walk<'_> {
    fn newer_version(&self) -> std::io::Result<Option<u16>> {
        let mut header = [0; HEADER_BYTES];
        if self.file_bytes < HEADER_BYTES as u64 {
            return Ok(None);
        }
        if !self.read(&mut header, 0)? {
            return Ok(None);
        }
        let header = Header::decode(&header).ok();
        Ok(header
            .map(|header| header.version)
            .filter(|&version| version > FORMAT_VERSION))
    }

    fn blocks(&self, each: &mut dyn FnMut(KeyedOp)) -> std::io::Result<Salvaged> {
        let mut report = Salvaged::default();
        let mut offset = HEADER_BYTES as u64;
        let mut after_bad = false;
        let mut reached = offset;
        while let Some((end, stored)) = self.stored_at(offset)? {
            let address = BlockAddress {
                shard: self.shard,
                number: self.number,
                offset,
            };
            match stored.and_then(|stored| decode_block(&stored, address).ok()) {
                Some(ops) => {
                    report.bad_blocks += u64::from(after_bad);
                    report.blocks += 1;
                    report.ops += ops.len() as u64;
                    ops.into_iter().for_each(&mut *each);
                    (reached, after_bad) = (end, false);
                }
                // Two in a row: the lengths lead nowhere any more.
                None if after_bad => break,
                None => after_bad = true,
            }
            offset = end;
        }
        report.unread_bytes = self.file_bytes.saturating_sub(reached);
        report.complete = report.bad_blocks == 0 && self.footer_offset() == Some(reached);
        Ok(report)
    }

    /// Where the footer begins, if what the trailer says fits the length of the file.
    fn footer_offset(&self) -> Option<u64> {
        let at = self.file_bytes.checked_sub(TRAILER_BYTES as u64)?;
        let mut trailer = [0; TRAILER_BYTES];
        // Without it, the segment is not complete, and that is all that it is wanted for.
        self.read(&mut trailer, at).ok().filter(|read| *read)?;
        let trailer = Trailer::decode(&trailer);
        let fits = |trailer: &Trailer| trailer.footer_offset.checked_add(trailer.footer_bytes) == Some(at);
        trailer.filter(fits).map(|trailer| trailer.footer_offset)
    }

    /// False if the disk will never give it.
    fn read(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<bool> {
        read_if_possible(self.file, buffer, offset)
    }

    /// Where what its envelope says is a block ends, and its bytes, if they can be read; None when it cannot be one.
    fn stored_at(&self, offset: u64) -> std::io::Result<Option<(u64, Option<Bytes>)>> {
        let mut envelope = [0; BLOCK_HEADER_BYTES];
        if offset + BLOCK_HEADER_BYTES as u64 > self.file_bytes {
            return Ok(None);
        }
        if !self.read(&mut envelope, offset)? {
            return Ok(None);
        }
        let Ok(envelope) = Envelope::decode(&mut Cursor::new(&envelope)) else {
            return Ok(None);
        };
        let length = BLOCK_HEADER_BYTES as u64 + u64::from(envelope.data_bytes);
        if envelope.data_bytes as usize > BLOCK_BYTES_MAX || offset + length > self.file_bytes {
            return Ok(None);
        }
        let mut stored = vec![0; length as usize];
        let is_read = self.read(&mut stored, offset)?;
        Ok(Some((offset + length, is_read.then(|| stored.into()))))
    }
}

/// All ops of a block in its envelope, or nothing.
pub fn decode_block(stored: &Bytes, address: BlockAddress) -> Result<Vec<KeyedOp>, Malformed> {
    decode_raw_block(open_block(stored, address, BLOCK_BYTES_MAX)?)
}

/// All ops of a block that was taken out of its envelope, or nothing.
pub fn decode_raw_block(raw: Bytes) -> Result<Vec<KeyedOp>, Malformed> {
    let mut groups = Block::parse(raw)?.groups();
    let mut found = Vec::new();
    while let Some(run) = groups.next()? {
        let (slot, user, key) = parse_place(groups.place())?;
        let mut ops = groups.ops(&run, slot);
        while let Some(op) = ops.next()? {
            found.push(KeyedOp {
                user: user.clone(),
                key: key.clone(),
                op,
            });
        }
    }
    Ok(found)
}
