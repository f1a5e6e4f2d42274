//! The real disk without syncs of the logs, for the row in which nobody syncs theirs.

use std::io;
use std::path::Path;

use kv_storage::os::RealDisk;
use kv_storage::store::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

/// The real disk, but logs are left to the operating system. Everything else is synced as ever, as the rivals do it too.
#[derive(Default)]
pub struct LogsUnsynced(RealDisk);

impl Disk for LogsUnsynced {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.open(path, mode)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match kv_storage::store::log::parse_file_name(name) {
            Some(_) => Ok(Box::new(Unsynced(file))),
            None => Ok(file),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.0.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }
}

struct Unsynced(Box<dyn DiskFile>);

impl DiskFile for Unsynced {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn read_random_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_random_at(buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
