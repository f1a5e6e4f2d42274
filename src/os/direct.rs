//! Reading a file past the page cache (`O_DIRECT`), and asking whether something is in it.
//!
//! Both are Linux's own; elsewhere nothing is read past the cache.
#![expect(clippy::disallowed_methods, reason = "this is where Env's disk comes from")]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Offsets, lengths and memory of such reads are multiples of this: a page, and a sector of any disk that there is.
const ALIGNMENT: usize = 4096;

/// A second way into a file, opened when it is first used.
#[derive(Debug)]
pub struct DirectFile {
    path: PathBuf,
    /// None when there is no such way: on some file systems, and when the name is another file's by now.
    opened: OnceLock<Option<File>>,
}

impl DirectFile {
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            opened: OnceLock::new(),
        }
    }

    /// Fills `buf`; false when that did not work, for whatever reason. `file` is the same file.
    pub fn read_exact_at(&self, file: &File, buf: &mut [u8], offset: u64) -> bool {
        let opened = self.opened.get_or_init(|| open(&self.path, file).ok().flatten());
        let Some(direct) = opened else { return false };
        matches!(read_aligned(direct, buf, offset), Ok(true))
    }
}

#[cfg(target_os = "linux")]
fn open(path: &Path, file: &File) -> io::Result<Option<File>> {
    use std::fs::OpenOptions;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    let flag = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let direct = OpenOptions::new().read(true).custom_flags(flag).open(path)?;
    let (ours, theirs) = (file.metadata()?, direct.metadata()?);
    let is_same = (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino());
    Ok(is_same.then_some(direct))
}

#[cfg(not(target_os = "linux"))]
fn open(_path: &Path, _file: &File) -> io::Result<Option<File>> {
    Ok(None)
}

/// Reads all pages that the bytes lie in, and copies these. False when the file ends before that.
fn read_aligned(direct: &File, buf: &mut [u8], offset: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;

    let before = (offset % ALIGNMENT as u64) as usize;
    let wanted = before + buf.len();
    let length = wanted.next_multiple_of(ALIGNMENT);
    let mut memory = vec![0; length + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let Some(pages) = memory.get_mut(start..start + length) else {
        return Ok(false);
    };
    // The last page of a file may end early. A read that stopped for another reason could not go on at a place that is not aligned.
    let read = direct.read_at(pages, offset - before as u64)?;
    if read < wanted {
        return Ok(false);
    }
    buf.copy_from_slice(&pages[before..wanted]);
    Ok(true)
}

/// Whether all these bytes of the file are in the page cache; then `buf` has them. None where nobody knows: not every file system says it, the layers
/// of a container's for one.
#[cfg(target_os = "linux")]
pub fn is_in_memory(file: &File, buf: &mut [u8], offset: u64) -> Option<bool> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    let length = buf.len();
    let mut buffers = [io::IoSliceMut::new(buf)];
    match preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Some(read == length),
        Err(Errno::AGAIN) => Some(false),
        Err(_) => None,
    }
}

/// Nobody knows.
#[cfg(not(target_os = "linux"))]
pub fn is_in_memory(_file: &File, _buf: &mut [u8], _offset: u64) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    fn file_of(bytes: &[u8]) -> (tempfile::NamedTempFile, File) {
        let mut named = tempfile::NamedTempFile::new().unwrap();
        named.write_all(bytes).unwrap();
        named.as_file().sync_all().unwrap();
        let file = File::open(named.path()).unwrap();
        (named, file)
    }

    #[test]
    fn any_range_reads_the_same_past_the_cache() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        let mut bytes = vec![0; 5 * ALIGNMENT + 77];
        random.fill_bytes(&mut bytes);
        let (named, file) = file_of(&bytes);
        let direct = DirectFile::new(named.path());
        if direct
            .opened
            .get_or_init(|| open(&direct.path, &file).ok().flatten())
            .is_none()
        {
            return; // Not every file system has it.
        }
        for _ in 0..300 {
            let start = random.random_range(0..bytes.len());
            let end = random.random_range(start..=bytes.len());
            let mut read = vec![0; end - start];
            assert!(direct.read_exact_at(&file, &mut read, start as u64), "{start}..{end}");
            assert!(read == bytes[start..end], "{start}..{end}");
        }
        let mut too_long = vec![0; 2];
        assert!(!direct.read_exact_at(&file, &mut too_long, bytes.len() as u64 - 1));
        assert!(!direct.read_exact_at(&file, &mut too_long, u64::from(u32::MAX)));
    }

    #[test]
    fn a_name_that_another_file_has_now_is_not_read() {
        let (old, file) = file_of(&[1; 2 * ALIGNMENT]);
        let (new, _) = file_of(&[2; 2 * ALIGNMENT]);
        let direct = DirectFile::new(old.path());
        std::fs::rename(new.path(), old.path()).unwrap();
        let mut read = [0; 10];
        assert!(!direct.read_exact_at(&file, &mut read, 0));
        let gone = DirectFile::new(Path::new("/nowhere/at/all"));
        assert!(!gone.read_exact_at(&file, &mut read, 0));
    }

    #[test]
    fn what_was_just_written_is_in_memory() {
        let (_named, file) = file_of(&[7; 3 * ALIGNMENT]);
        let mut read = [0; ALIGNMENT];
        if is_in_memory(&file, &mut read, 100) == Some(true) {
            assert_eq!(read, [7; ALIGNMENT]);
        }
        let behind = is_in_memory(&file, &mut read, 3 * ALIGNMENT as u64);
        assert_ne!(behind, Some(true), "nothing is behind the end");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_that_does_not_say_what_is_in_memory_says_nothing() {
        let file = File::open("/proc/self/stat").unwrap();
        assert_eq!(is_in_memory(&file, &mut [0; 8], 0), None);
    }
}
