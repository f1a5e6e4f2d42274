//! The real disk: files of the local file system.
//!
//! Invariant: errors keep the operating system's own error code, so that callers can tell a full disk (`StorageFull`) from a
//! broken one.
#![expect(clippy::disallowed_methods, reason = "this is where Env's disk comes from")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock, statvfs};

use crate::store::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

/// New files are their owner's alone: they hold what users stored.
const FILE_MODE: u32 = 0o600;

#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

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
        Ok(Box::new(RealFile(options.open(path)?)))
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
        let file = RealDisk.open(&path, OpenMode::CreateNew)?;
        file.set_len(8)?;
        file.write_all_at(b"data", 4)?;
        file.sync_data()?;
        RealDisk.sync_dir(dir.path())?;
        drop(file);

        let file = RealDisk.open(&path, OpenMode::Read)?;
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
    fn the_open_modes_hold_what_they_promise() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a");
        assert_eq!(
            kind(RealDisk.open(&path, OpenMode::Read)),
            Some(io::ErrorKind::NotFound)
        );
        assert_eq!(
            kind(RealDisk.open(&path, OpenMode::ReadWrite)),
            Some(io::ErrorKind::NotFound)
        );
        RealDisk.open(&path, OpenMode::CreateNew)?.write_all_at(b"kept", 0)?;
        assert_eq!(
            kind(RealDisk.open(&path, OpenMode::CreateNew)),
            Some(io::ErrorKind::AlreadyExists)
        );
        assert_eq!(RealDisk.open(&path, OpenMode::ReadWrite)?.len()?, 4);
        Ok(())
    }

    #[test]
    fn names_are_listed_in_order_with_their_lengths() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        for name in ["c", "a", "b"] {
            RealDisk
                .open(&dir.path().join(name), OpenMode::CreateNew)?
                .write_all_at(name.as_bytes(), 0)?;
        }
        RealDisk.create_dir_all(&dir.path().join("d/e"))?;
        RealDisk.remove_file(&dir.path().join("b"))?;
        RealDisk.rename(&dir.path().join("c"), &dir.path().join("z"))?;
        let listed: Vec<_> = RealDisk
            .list(dir.path())?
            .into_iter()
            .map(|entry| (entry.name, entry.len))
            .collect();
        assert_eq!(listed, [("a".into(), 1), ("d".into(), 0), ("z".into(), 1)]);
        assert!(RealDisk.exists(&dir.path().join("z"))?);
        assert!(!RealDisk.exists(&dir.path().join("c"))?);
        assert!(RealDisk.free_bytes(dir.path())? > 0);
        Ok(())
    }

    #[test]
    fn a_held_lock_would_block_and_is_released_when_dropped() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("lock");
        let held = RealDisk.lock(&path)?;
        assert_eq!(kind(RealDisk.lock(&path)), Some(io::ErrorKind::WouldBlock));
        drop(held);
        assert!(RealDisk.exists(&path)?, "the lock's file is kept");
        RealDisk.lock(&path)?;
        Ok(())
    }

    #[test]
    fn a_full_disk_is_told_by_its_kind() {
        // Every write to this device fails as on a full disk.
        let full = RealDisk.open(Path::new("/dev/full"), OpenMode::ReadWrite);
        let Ok(full) = full else {
            return; // Not every system has the device.
        };
        assert_eq!(kind(full.write_all_at(b"x", 0)), Some(io::ErrorKind::StorageFull));
    }
}
