//! The disk as the store sees it, and what the store assumes of it.
//!
//! Assumptions about the medium:
//! - bytes written are durable once `sync_data` on that file returned Ok; until then any part of them, in units of one
//!   512-byte sector and in any order, may or may not survive a crash;
//! - a new, renamed or removed name is durable once `sync_dir` on its directory returned Ok;
//! - `rename` within a directory is atomic: after a crash either name is there, with all of the file's synced bytes;
//! - after a failed `sync_data` nothing is known of the bytes it covered, and a later success says nothing of them
//!   either (the kernel may have dropped the dirty pages and marked them clean);
//! - the same holds for names and a failed `sync_dir`, until a name in that directory is changed again: the next success then covers all
//!   its names ([`sync_dir_anew`]);
//! - bits may rot at any time: everything read is checked before it is believed.

use std::io;
use std::path::Path;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; never written.
    Read,
    /// Must exist.
    ReadWrite,
    /// Must not exist; created empty.
    CreateNew,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    pub name: String,
    /// Bytes; 0 for a directory.
    pub len: u64,
}

#[expect(clippy::len_without_is_empty, reason = "an empty file is nothing special here")]
/// One open file. All offsets and lengths are bytes. Methods take `&self`: the callers share the file between a writer and
/// many readers, and never write the same range twice at the same time.
pub trait DiskFile: Send + Sync {
    /// Fills `buf`, or fails with `UnexpectedEof` when the file ends first.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Like [`read_exact_at`](Self::read_exact_at), for a random access: the disk need not keep the bytes in memory for the next reader.
    fn read_random_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }
    /// Fills `buf` if that needs no wait for the disk; false if it does, or if nobody knows.
    fn read_without_wait(&self, _buf: &mut [u8], _offset: u64) -> bool {
        false
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Durable on Ok; on Err the bytes written since the last Ok may or may not survive, and a retry proves nothing.
    fn sync_data(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Held while the data folder is in use; released when dropped.
pub trait DiskLock: Send + Sync {}

pub trait Disk: Send + Sync + 'static {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The directory's names, in order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    fn exists(&self, path: &Path) -> io::Result<bool>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Fails with `WouldBlock` while another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
    /// Bytes that may still be written below `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// Nodes that start beside each other take a mark from each other once in a while, and not for long.
const MARKS_MAX: usize = 20;

/// Makes the directory's names durable, including those that an earlier failed sync may have dropped, in this process or one before it: a
/// new name, `mark`, is made and removed first, so that the directory has changed. Whoever finds a `mark` that was left behind may remove
/// it.
pub fn sync_dir_anew(disk: &dyn Disk, dir: &Path, mark: &str) -> io::Result<()> {
    let mark = dir.join(mark);
    for _ in 0..MARKS_MAX {
        match disk.open(&mark, OpenMode::CreateNew) {
            Ok(made) => drop(made),
            // Left by a life that ended right here.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // There is no room even for this, and freeing space must not wait for it.
            Err(error) if is_full(&error) => break,
            Err(error) => return Err(error),
        }
        match disk.remove_file(&mark) {
            // Another node that starts beside this one did, and may have failed to make that durable.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => {
                removed?;
                break;
            }
        }
    }
    disk.sync_dir(dir)
}

pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
