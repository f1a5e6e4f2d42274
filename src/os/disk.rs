//! The real disk: files of the local file system.
//!
//! Invariants:
//! - errors keep the operating system's own error code, so that callers can tell a full disk (`StorageFull`) from a broken one;
//! - a read past the page cache that fails is tried through it, and only that error is told.
#![expect(clippy::disallowed_methods, reason = "this is where Env's disk comes from")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{FlockOperation, flock, statvfs};

use super::direct::{DirectFile, is_in_memory};
use super::page_cache::{PageCache, Place, Way};
use crate::store::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

/// New files are their owner's alone: they hold what users stored.
const FILE_MODE: u32 = 0o600;

/// Clones share what is known of the page cache.
#[derive(Debug, Clone, Default)]
pub struct RealDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    page_cache: PageCache,
    /// Files that were opened to read.
    files: AtomicU64,
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = RealFile(options.open(path)?);
        Ok(match mode {
            OpenMode::Read => Box::new(SealedFile {
                file,
                direct: DirectFile::new(path),
                number: self.0.files.fetch_add(1, Relaxed),
                last_end: AtomicU64::new(u64::MAX),
                shared: self.0.clone(),
            }),
            OpenMode::ReadWrite | OpenMode::CreateNew => Box::new(file),
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // The store's own names are ASCII: any other was put there by somebody else.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed while we were reading.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let len = if metadata.is_dir() { 0 } else { metadata.len() };
            entries.push(DirEntry { name, len });
        }
        entries.sort();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock(file)))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stats = statvfs(dir)?;
        // What a process without privileges may use, not what root could.
        Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// A file that nobody writes any more.
struct SealedFile {
    file: RealFile,
    direct: DirectFile,
    number: u64,
    /// Where the last read of one block ended: one that begins there goes on in order, and the system reads ahead for it.
    last_end: AtomicU64,
    shared: Arc<Shared>,
}

impl SealedFile {
    fn place(&self, offset: u64) -> Place {
        Place {
            file: self.number,
            offset,
        }
    }
}

impl DiskFile for SealedFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn read_random_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let page_cache = &self.shared.page_cache;
        if self.last_end.swap(offset + buf.len() as u64, Relaxed) == offset {
            return self.file.read_exact_at(buf, offset);
        }
        match page_cache.way(self.place(offset)) {
            Way::Cached => {}
            Way::Asked => {
                let there = is_in_memory(&self.file.0, buf, offset);
                // Where nobody knows, the page cache is used, as far as there is one.
                if let Some(there) = there {
                    page_cache.found(there);
                }
                if there == Some(true) {
                    return Ok(());
                }
            }
            Way::PastCache => {
                if self.direct.read_exact_at(&self.file.0, buf, offset) {
                    return Ok(());
                }
            }
        }
        self.file.read_exact_at(buf, offset)
    }

    fn read_without_wait(&self, buf: &mut [u8], offset: u64) -> bool {
        let page_cache = &self.shared.page_cache;
        let is_there = page_cache.is_of_use() && is_in_memory(&self.file.0, buf, offset) == Some(true);
        if is_there {
            page_cache.held(self.place(offset));
        }
        is_there
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// The file itself stays: were it removed, two processes could each hold a lock on
/// a file of the same name.
struct RealLock(File);

impl DiskLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that another thread is just starting holds a copy of it until it runs
        // its program. If this fails, the close does it a moment later.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn what_was_written_at_an_offset_is_read_there() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a");
        let file = RealDisk::default().open(&path, OpenMode::CreateNew)?;
        file.set_len(8)?;
        file.write_all_at(b"data", 4)?;
        file.sync_data()?;
        RealDisk::default().sync_dir(dir.path())?;
        drop(file);

        let file = RealDisk::default().open(&path, OpenMode::Read)?;
        let mut read = [1; 8];
        file.read_exact_at(&mut read, 0)?;
        assert_eq!(&read, b"\0\0\0\0data");
        assert_eq!(file.len()?, 8);
        assert_eq!(
            kind(file.read_exact_at(&mut read, 1)),
            Some(io::ErrorKind::UnexpectedEof)
        );
        assert!(
            file.write_all_at(b"x", 0).is_err(),
            "a file opened to read is never written"
        );
        Ok(())
    }

    #[test]
    fn a_read_by_chance_gives_the_same_through_the_page_cache_and_past_it() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (path, disk) = (dir.path().join("a"), RealDisk::default());
        let bytes: Vec<u8> = (0..50_000u32).map(|index| (index % 251) as u8).collect();
        let file = disk.open(&path, OpenMode::CreateNew)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        let file = disk.open(&path, OpenMode::Read)?;
        let same = |offset: usize| -> io::Result<bool> {
            let mut read = [0; 9_000];
            file.read_random_at(&mut read, offset as u64)?;
            Ok(read == bytes[offset..offset + read.len()])
        };
        assert!(same(0)? && same(0)? && same(41_000)?);
        let place = Place { file: 99, offset: 0 };
        let page_cache = &disk.0.page_cache;
        while page_cache.way(place) != Way::PastCache {
            page_cache.found(false);
        }
        let past = || page_cache.reads_past();
        let before = past();
        assert!(same(1)? && same(8_192)? && same(41_000)?);
        assert_eq!(past() - before, 3);
        // In order.
        assert!(same(0)? && same(9_000)? && same(18_000)? && same(27_000)?);
        assert_eq!(past() - before, 4);
        let behind = file.read_random_at(&mut [0; 2], 49_999);
        assert_eq!(kind(behind), Some(io::ErrorKind::UnexpectedEof));
        Ok(())
    }

    /// Such as those under `/proc`: whether it holds anything is then no question of how often it was asked in vain.
    #[test]
    fn blocks_of_which_nobody_knows_are_not_read_past_the_page_cache() -> io::Result<()> {
        let disk = RealDisk::default();
        let file = disk.open(Path::new("/proc/self/mountinfo"), OpenMode::Read)?;
        for _ in 0..1_000 {
            file.read_random_at(&mut [0; 8], 0)?;
        }
        assert!(disk.0.page_cache.is_of_use());
        Ok(())
    }

    #[test]
    fn the_open_modes_hold_what_they_promise() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a");
        assert_eq!(
            kind(RealDisk::default().open(&path, OpenMode::Read)),
            Some(io::ErrorKind::NotFound)
        );
        assert_eq!(
            kind(RealDisk::default().open(&path, OpenMode::ReadWrite)),
            Some(io::ErrorKind::NotFound)
        );
        RealDisk::default()
            .open(&path, OpenMode::CreateNew)?
            .write_all_at(b"kept", 0)?;
        assert_eq!(
            kind(RealDisk::default().open(&path, OpenMode::CreateNew)),
            Some(io::ErrorKind::AlreadyExists)
        );
        assert_eq!(RealDisk::default().open(&path, OpenMode::ReadWrite)?.len()?, 4);
        Ok(())
    }

    #[test]
    fn names_are_listed_in_order_with_their_lengths() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        for name in ["c", "a", "b"] {
            RealDisk::default()
                .open(&dir.path().join(name), OpenMode::CreateNew)?
                .write_all_at(name.as_bytes(), 0)?;
        }
        RealDisk::default().create_dir_all(&dir.path().join("d/e"))?;
        RealDisk::default().remove_file(&dir.path().join("b"))?;
        RealDisk::default().rename(&dir.path().join("c"), &dir.path().join("z"))?;
        let listed: Vec<_> = RealDisk::default()
            .list(dir.path())?
            .into_iter()
            .map(|entry| (entry.name, entry.len))
            .collect();
        assert_eq!(listed, [("a".into(), 1), ("d".into(), 0), ("z".into(), 1)]);
        assert!(RealDisk::default().exists(&dir.path().join("z"))?);
        assert!(!RealDisk::default().exists(&dir.path().join("c"))?);
        assert!(RealDisk::default().free_bytes(dir.path())? > 0);
        Ok(())
    }

    #[test]
    fn a_held_lock_would_block_and_is_released_when_dropped() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("lock");
        let held = RealDisk::default().lock(&path)?;
        assert_eq!(kind(RealDisk::default().lock(&path)), Some(io::ErrorKind::WouldBlock));
        drop(held);
        assert!(RealDisk::default().exists(&path)?, "the lock's file is kept");
        RealDisk::default().lock(&path)?;
        Ok(())
    }

    /// What cannot be synced says so: whoever does not ask the system would not hear of it.
    #[test]
    fn the_system_is_asked_to_make_files_and_folders_durable() -> io::Result<()> {
        let (disk, device) = (RealDisk::default(), Path::new("/dev/null"));
        let refused = Some(io::ErrorKind::InvalidInput);
        assert_eq!(kind(disk.open(device, OpenMode::ReadWrite)?.sync_data()), refused);
        assert_eq!(kind(disk.open(device, OpenMode::Read)?.sync_data()), refused);
        assert_eq!(kind(disk.sync_dir(device)), refused);
        Ok(())
    }

    #[test]
    fn a_full_disk_is_told_by_its_kind() {
        // Every write to this device fails as on a full disk.
        let full = RealDisk::default().open(Path::new("/dev/full"), OpenMode::ReadWrite);
        let Ok(full) = full else {
            return; // Not every system has the device.
        };
        assert_eq!(kind(full.write_all_at(b"x", 0)), Some(io::ErrorKind::StorageFull));
    }
}
