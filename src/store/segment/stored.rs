//! Bytes of a segment that the disk cannot give.
//!
//! A read that fails once may be a passing fault, so it is tried again. A sector that fails twice is as lost as one with a wrong checksum,
//! and is reported as damage, so that whoever steps over damage steps over it too. Only an error of the disk itself counts for that; a lack
//! of memory or of file handles passes.

use std::io;

use bytes::Bytes;

use super::Segment;
use super::error::ReadError;
use super::index::BlockRef;
use crate::store::cache::CACHED_BLOCK_BYTES_MAX;
use crate::store::disk::DiskFile;

/// What the system says of a sector that cannot be read.
const EIO: i32 = 5;

/// Whether the bytes could be read; false if they never can be.
pub(super) fn read_if_possible(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    let first = file.read_exact_at(buffer, offset);
    or_once_more(first, file, buffer, offset)
}

/// What a first try gave, or if that failed, the second.
fn or_once_more(first: io::Result<()>, file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    let read = first.or_else(|_| file.read_exact_at(buffer, offset));
    match read {
        Ok(()) => Ok(true),
        Err(error) if is_lasting(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_lasting(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(EIO)
}

/// The block as it lies in the file.
pub(super) fn read_stored(segment: &Segment, block: &BlockRef) -> Result<Bytes, ReadError> {
    let mut stored = vec![0; block.stored_bytes as usize];
    let file = segment.file.as_ref();
    let first = match is_short(block) {
        true => file.read_random_at(&mut stored, block.offset),
        false => file.read_exact_at(&mut stored, block.offset),
    };
    match or_once_more(first, file, &mut stored, block.offset) {
        Ok(true) => Ok(stored.into()),
        Ok(false) => Err(ReadError::Damaged(segment.damage(block, UNREADABLE))),
        Err(error) => Err(ReadError::Io {
            segment: segment.header.number,
            offset: block.offset,
            error,
        }),
    }
}

/// Long blocks are so few that it does not matter how they are read, and they need much memory.
fn is_short(block: &BlockRef) -> bool {
    block.stored_bytes as usize <= CACHED_BLOCK_BYTES_MAX
}

/// Like [`read_stored`], if that needs no wait for the disk. Long blocks are left to callers that may wait.
pub(super) fn read_without_wait(segment: &Segment, block: &BlockRef) -> Option<Bytes> {
    if !is_short(block) {
        return None;
    }
    let mut stored = vec![0; block.stored_bytes as usize];
    let is_read = segment.file.read_without_wait(&mut stored, block.offset);
    is_read.then(|| stored.into())
}

pub(super) const UNREADABLE: &str = "read (the disk failed)";
