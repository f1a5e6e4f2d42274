//! A log's file, written past the page cache (`O_DIRECT`) where the file system can do that.
//!
//! A small write that is durable when it returns then is one request to the disk and one wait, and the kernel keeps no copy. Through the page
//! cache it is a copy, a write-back and a flush, with a wait for each.
//!
//! Such a write is of whole blocks of the disk. What the first block holds already is written once more, as it is, and what lies behind the end in
//! the last one becomes zero. A torn block takes no more along than a torn page would.
//!
//! Invariant: while a log is written this way, nobody writes it through the page cache, whose pages would overwrite newer blocks later.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};
use rustix::io::{ReadWriteFlags, pwritev2, retry_on_intr};

use crate::store::disk::{DiskFile, LOG_UNIT_BYTES};

/// Written at once. Groups are mostly shorter; and a log that is being filled keeps a commit no longer from its turn.
const PIECE_BYTES: usize = 256 * 1024;

/// One open log.
pub struct LogFile {
    /// Only reads, and asks for the length.
    cached: File,
    direct: File,
    /// Of the disk: what is written is a multiple of it, at a multiple of it.
    block: usize,
    buffer: Mutex<Buffer>,
}

impl LogFile {
    /// Gives the file back where it cannot be written past the page cache.
    pub fn of(cached: File, path: &Path) -> Result<Self, File> {
        let opened = block_bytes(&cached).and_then(|block| {
            let flags = OFlags::DIRECT.bits().cast_signed();
            let direct = OpenOptions::new().write(true).custom_flags(flags).open(path);
            Some((block, direct.ok()?))
        });
        match opened {
            Some((block, direct)) => Ok(Self {
                cached,
                direct,
                block,
                buffer: Mutex::default(),
            }),
            None => Err(cached),
        }
    }

    fn write(&self, parts: &[&[u8]], offset: u64, durably: bool) -> io::Result<()> {
        let mut buffer = self.buffer.lock();
        let written = self.write_blocks(&mut buffer, parts, offset, durably);
        if written.is_err() {
            // Who knows what the last block holds now.
            buffer.kept_at = None;
        }
        written
    }

    fn write_blocks(&self, buffer: &mut Buffer, parts: &[&[u8]], offset: u64, durably: bool) -> io::Result<()> {
        let mut at = offset - offset % self.block as u64;
        let before = (offset - at) as usize;
        self.begin(buffer, at, before)?;
        let mut pieces = 0;
        for part in parts {
            let mut rest = *part;
            while let (true, Some((fits, more))) =
                (!rest.is_empty(), rest.split_at_checked(rest.len().min(buffer.room())))
            {
                buffer.push(fits);
                rest = more;
                if buffer.room() == 0 {
                    self.write_piece(buffer.bytes(), at, ReadWriteFlags::empty())?;
                    (at, pieces) = (at + PIECE_BYTES as u64, pieces + 1);
                    buffer.clear();
                }
            }
        }
        let used = buffer.len;
        buffer.pad_to(used.next_multiple_of(self.block));
        let all_at_once = durably && pieces == 0;
        let flags = match all_at_once {
            true => ReadWriteFlags::DSYNC,
            false => ReadWriteFlags::empty(),
        };
        self.write_piece(buffer.bytes(), at, flags)?;
        buffer.keep_block_of(used, at, self.block);
        match durably && !all_at_once {
            true => self.direct.sync_data(),
            false => Ok(()),
        }
    }

    /// Puts what the block at `at` holds already into the buffer, up to `before`.
    fn begin(&self, buffer: &mut Buffer, at: u64, before: usize) -> io::Result<()> {
        if buffer.kept_at == Some(at) && buffer.len >= before {
            buffer.len = before;
            return Ok(());
        }
        buffer.clear();
        buffer.pad_to(before);
        self.cached.read_exact_at(buffer.bytes_mut(), at)
    }

    fn write_piece(&self, mut bytes: &[u8], mut at: u64, flags: ReadWriteFlags) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = retry_on_intr(|| pwritev2(&self.direct, &[IoSlice::new(bytes)], at, flags))?;
            let whole = written - written % self.block;
            bytes = match bytes.get(whole..) {
                Some(rest) if whole > 0 => rest,
                _ => return Err(io::ErrorKind::WriteZero.into()),
            };
            at += whole as u64;
        }
        Ok(())
    }
}

impl DiskFile for LogFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.cached.read_exact_at(buf, offset)
    }

    /// Only whole blocks; anything else would write what lies behind them.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let block = self.block as u64;
        if !offset.is_multiple_of(block) || !(bytes.len() as u64).is_multiple_of(block) {
            let what = format!("a log is filled in blocks of {block} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.write(&[bytes], offset, false)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.direct.sync_data()
    }

    fn write_durably(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.write(parts, offset, true)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.cached.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.cached.set_len(len)
    }
}

/// The disk's block, if the file can be written past the page cache. Kernels before 6.1 do not say so.
fn block_bytes(file: &File) -> Option<usize> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let fits = |bytes: u32| bytes.is_power_of_two() && u64::from(bytes) <= LOG_UNIT_BYTES;
    let (memory, block) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    (fits(memory) && fits(block)).then_some(block as usize)
}

/// Bytes on their way to the disk, at an address that it takes. Afterwards, the last block that was written, if it is not full.
#[derive(Default)]
struct Buffer {
    memory: Vec<u8>,
    /// Where in `memory` the bytes begin.
    start: usize,
    len: usize,
    /// Where in the file the kept block lies.
    kept_at: Option<u64>,
}

impl Buffer {
    fn clear(&mut self) {
        (self.len, self.kept_at) = (0, None);
    }

    /// What fits until it has to be written.
    fn room(&self) -> usize {
        PIECE_BYTES - self.len
    }

    fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.len).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory
            .get_mut(self.start..self.start + self.len)
            .unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.make_room(end);
        let at = self.start + self.len;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        self.len = end;
    }

    fn pad_to(&mut self, len: usize) {
        self.make_room(len);
        self.memory[self.start + self.len..self.start + len].fill(0);
        self.len = len;
    }

    fn make_room(&mut self, len: usize) {
        let unit = LOG_UNIT_BYTES as usize;
        if self.start + len <= self.memory.len() {
            return;
        }
        let wanted = len.max(4 * unit).next_power_of_two();
        let mut memory = vec![0; wanted + unit];
        let start = memory.as_ptr().align_offset(unit);
        memory[start..start + self.len].copy_from_slice(self.bytes());
        (self.memory, self.start) = (memory, start);
    }

    /// Keeps the block in which the first `used` bytes end; they were written at `at`.
    fn keep_block_of(&mut self, used: usize, at: u64, block: usize) {
        let rest = used % block;
        let from = self.start + used - rest;
        self.memory.copy_within(from..from + rest, self.start);
        self.len = rest;
        self.kept_at = (rest > 0).then_some(at + (used - rest) as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::RealDisk;
    use super::*;
    use crate::store::disk::{Disk, OpenMode};

    const FILE_BYTES: usize = 2 << 20;

    /// None where the file system cannot do it.
    fn filled_log(folder: &Path) -> Option<Box<dyn DiskFile>> {
        let path = folder.join("log");
        let cached = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let log = LogFile::of(cached, &path).ok()?;
        // The remains of a former life.
        for at in (0..FILE_BYTES).step_by(PIECE_BYTES) {
            log.write_all_at(&vec![0xee; PIECE_BYTES], at as u64).unwrap();
        }
        log.sync_data().unwrap();
        Some(Box::new(log))
    }

    fn folder() -> tempfile::TempDir {
        // On a real disk: the system's folder for temporary files may be in memory.
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/target").unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whatever the lengths: all is there, nothing before it changed, and what lies behind is as before, but for zeroes next to it.
        #[test]
        fn what_is_written_durably_is_there_and_nothing_else_changed(
            groups in proptest::collection::vec((0usize..3, prop_oneof![1usize..2000, 1usize..300_000]), 1..12),
            reopened in 0usize..12,
        ) {
            let folder = folder();
            let Some(mut log) = filled_log(folder.path()) else {
                return Ok(());
            };
            let mut expected: Vec<u8> = Vec::new();
            for (index, (parts, bytes)) in groups.into_iter().enumerate() {
                if index == reopened {
                    log = RealDisk.open_log(&folder.path().join("log"), OpenMode::ReadWrite).unwrap();
                }
                if expected.len() + bytes > FILE_BYTES {
                    break;
                }
                let group: Vec<u8> = (0..bytes).map(|at| (at * 31 + index) as u8).collect();
                let parts: Vec<&[u8]> = group.chunks(bytes.div_ceil(parts + 1)).collect();
                log.write_durably(&parts, expected.len() as u64).unwrap();
                expected.extend_from_slice(&group);
                let mut found = vec![0; FILE_BYTES];
                log.read_exact_at(&mut found, 0).unwrap();
                let (written, behind) = found.split_at(expected.len());
                prop_assert!(written == expected);
                let zeroed = expected.len().next_multiple_of(LOG_UNIT_BYTES as usize) - expected.len();
                prop_assert!(behind.iter().take(zeroed).all(|byte| matches!(byte, 0 | 0xee)));
                prop_assert!(behind.iter().skip(zeroed).all(|byte| *byte == 0xee));
            }
        }
    }

    #[test]
    fn a_log_is_filled_by_one_handle_while_another_one_writes_it() {
        let folder = folder();
        let Some(log) = filled_log(folder.path()) else {
            return;
        };
        let filler = RealDisk
            .open_log(&folder.path().join("log"), OpenMode::ReadWrite)
            .unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in (FILE_BYTES..2 * FILE_BYTES).step_by(PIECE_BYTES) {
                    filler.write_all_at(&vec![0; PIECE_BYTES], at as u64).unwrap();
                }
                filler.sync_data().unwrap();
            });
            for number in 0..500u64 {
                log.write_durably(&[&number.to_le_bytes(), &[7; 92]], number * 100)
                    .unwrap();
            }
        });
        let mut found = vec![0; 2 * FILE_BYTES];
        log.read_exact_at(&mut found, 0).unwrap();
        for (number, record) in found.chunks(100).take(500).enumerate() {
            assert_eq!(record[..8], (number as u64).to_le_bytes());
            assert_eq!(record[8..], [7; 92]);
        }
        assert!(found[FILE_BYTES..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_no_whole_block_is_not_filled() {
        let folder = folder();
        let Some(log) = filled_log(folder.path()) else {
            return;
        };
        for (bytes, offset) in [(100, 0), (4096, 100)] {
            let refused = log.write_all_at(&vec![1; bytes], offset).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
