//! A disk in memory, for the store's own tests.
//!
//! Fault model: [`MemoryDisk::crash`] keeps exactly what was synced (bytes by `sync_data`, names by `sync_dir`, folders that were
//! created by `sync_dir` of the one above) and loses everything else; reads, syncs and removals can be made to fail; the space can run out.
//! A `sync_dir` that fails drops the folder's changes and takes it for clean: later ones do nothing until its names change again. Nothing
//! happens at random.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

/// What the system says of a bad sector.
const EIO: i32 = 5;

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Written since the last sync, as (offset, length).
    dirty: Vec<(usize, usize)>,
}

impl Content {
    fn sync(&mut self) {
        set_length(&mut self.synced, self.now.len());
        for (offset, length) in self.dirty.drain(..) {
            let end = (offset + length).min(self.now.len());
            if offset < end {
                self.synced[offset..end].copy_from_slice(&self.now[offset..end]);
            }
        }
    }
}

/// As `resize` does, which writes byte by byte where nothing is optimised.
fn set_length(bytes: &mut Vec<u8>, length: usize) {
    match length.checked_sub(bytes.len()) {
        Some(missing) => bytes.append(&mut vec![0; missing]),
        None => bytes.truncate(length),
    }
}

type File = Arc<Mutex<Content>>;

#[derive(Default)]
struct Names {
    now: BTreeMap<PathBuf, File>,
    synced: BTreeMap<PathBuf, File>,
    locked: BTreeMap<PathBuf, ()>,
    /// Folders made by `create_dir_all`, and whether their names are durable. All others were always there.
    folders: BTreeMap<PathBuf, bool>,
    /// Folders whose changes a failed sync dropped, and that have had none since.
    dropped: BTreeSet<PathBuf>,
}

impl Names {
    /// A name in its folder is to be changed.
    fn touch(&mut self, path: &Path) {
        if let Some(folder) = path.parent() {
            self.dropped.remove(folder);
        }
    }
}

/// What does not end, of files with this in their path.
#[derive(Default)]
struct Gate {
    held: Mutex<Option<&'static str>>,
    let_go: Condvar,
}

impl Gate {
    fn pass(&self, path: &Path) {
        let is_held = |part: &mut Option<&str>| part.is_some_and(|part| path.to_string_lossy().contains(part));
        self.let_go.wait_while(&mut self.held.lock(), is_held);
    }
}

/// What a test may switch while the store runs.
#[derive(Default)]
pub struct Faults {
    pub fail_sync: AtomicBool,
    /// See `MemoryDisk::hold_syncs` and `hold_reads`.
    syncs: Gate,
    reads: Gate,
    /// If not 0: what syncs of folders fail with, as a number of the system.
    pub fail_sync_dir: AtomicI32,
    pub fail_read: AtomicBool,
    /// If not 0: the read of this number from now on fails, once; the first is 1.
    pub fail_read_once: AtomicU64,
    /// If not 0: reads that touch this byte of any file fail.
    pub bad_byte: AtomicU64,
    /// Reads of files with this in their path fail.
    pub unreadable: Mutex<Option<&'static str>>,
    /// A folder whose names cannot be read.
    pub bad_folder: Mutex<Option<PathBuf>>,
    /// A folder whose names cannot be made durable.
    pub unsyncable_folder: Mutex<Option<PathBuf>>,
    pub fail_remove: AtomicBool,
    /// Bytes that may still be written; [`u64::MAX`] until a test sets it.
    pub free_bytes: AtomicU64,
}

#[derive(Default)]
struct Shared {
    names: Mutex<Names>,
    faults: Faults,
    reads: AtomicU64,
    read_bytes: AtomicU64,
}

/// Clones share the files.
#[derive(Clone)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl MemoryDisk {
    #[expect(clippy::new_without_default, reason = "for tests only")]
    pub fn new() -> Self {
        let shared = Shared::default();
        shared.faults.free_bytes.store(u64::MAX, Ordering::Relaxed);
        Self {
            shared: Arc::new(shared),
        }
    }

    pub fn as_disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// The disk as the next process finds it after power was lost now.
    pub fn crash(&self) -> Self {
        let after = Self::new();
        {
            let (before, mut names) = (self.shared.names.lock(), after.shared.names.lock());
            let unsynced = |dir: &Path| before.folders.get(dir).is_some_and(|synced| !synced);
            for (path, file) in &before.synced {
                if path.ancestors().skip(1).any(unsynced) {
                    continue;
                }
                let synced = file.lock().synced.clone();
                let file = Arc::new(Mutex::new(Content {
                    now: synced.clone(),
                    synced,
                    dirty: Vec::new(),
                }));
                names.now.insert(path.clone(), file.clone());
                names.synced.insert(path.clone(), file);
            }
        }
        after
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Lets no sync end of a file with this in its path, until what this gives is dropped.
    pub fn hold_syncs(&self, path: &'static str) -> Holding {
        self.hold(path, |faults| &faults.syncs)
    }

    /// Like `hold_syncs`, for reads.
    pub fn hold_reads(&self, path: &'static str) -> Holding {
        self.hold(path, |faults| &faults.reads)
    }

    fn hold(&self, path: &'static str, gate: fn(&Faults) -> &Gate) -> Holding {
        *gate(&self.shared.faults).held.lock() = Some(path);
        Holding(self.shared.clone(), gate)
    }

    /// How many reads were made so far.
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    pub fn read_bytes(&self) -> u64 {
        self.shared.read_bytes.load(Ordering::Relaxed)
    }

    /// A file's bytes; the test's own look, not counted as a read.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let names = self.shared.names.lock();
        names.now.get(path).map(|file| file.lock().now.clone())
    }

    /// Lets reads see other bytes than the disk has, as after a sync that failed.
    pub fn show(&self, path: &Path, bytes: Vec<u8>) {
        if let Some(file) = self.shared.names.lock().now.get(path) {
            file.lock().now = bytes;
        }
    }

    /// Replaces a file's bytes, durably: for damage.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut names = self.shared.names.lock();
        let file = names.now.entry(path.to_owned()).or_default().clone();
        *file.lock() = Content {
            synced: bytes.clone(),
            now: bytes,
            dirty: Vec::new(),
        };
        names.synced.insert(path.to_owned(), file);
    }
}

/// While something does not end.
pub struct Holding(Arc<Shared>, fn(&Faults) -> &Gate);

impl Drop for Holding {
    fn drop(&mut self) {
        let gate = self.1(&self.0.faults);
        *gate.held.lock() = None;
        gate.let_go.notify_all();
    }
}

struct MemoryFile {
    path: PathBuf,
    file: File,
    shared: Arc<Shared>,
    writable: bool,
}

impl MemoryFile {
    fn is_named(&self, part: &Option<&str>) -> bool {
        part.is_some_and(|part| self.path.to_string_lossy().contains(part))
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "opened for reading only",
        ))
    }

    fn take_space(&self, bytes: usize) -> io::Result<()> {
        let take = |free: u64| match free {
            u64::MAX => Some(free),
            free => free.checked_sub(bytes as u64),
        };
        let free = &self.shared.faults.free_bytes;
        free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map(drop)
            .map_err(|_| io::Error::new(io::ErrorKind::StorageFull, "no space left"))
    }
}

impl DiskFile for MemoryFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.shared.faults.reads.pass(&self.path);
        self.shared.reads.fetch_add(1, Ordering::Relaxed);
        self.shared.read_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let countdown = &self.shared.faults.fail_read_once;
        let left = countdown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if self.shared.faults.fail_read.load(Ordering::Relaxed) || left == Ok(1) {
            return Err(io::Error::other("read failed"));
        }
        let bad = self.shared.faults.bad_byte.load(Ordering::Relaxed);
        let is_bad = bad > 0 && (offset..offset.saturating_add(buf.len() as u64)).contains(&bad);
        if is_bad || self.is_named(&self.shared.faults.unreadable.lock()) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let content = self.file.lock();
        let end = (offset as usize).checked_add(buf.len());
        match end.and_then(|end| content.now.get(offset as usize..end)) {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut content = self.file.lock();
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if end > content.now.len() {
            self.take_space(end - content.now.len())?;
            set_length(&mut content.now, end);
        }
        content.now[start..end].copy_from_slice(bytes);
        content.dirty.push((start, bytes.len()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.faults.syncs.pass(&self.path);
        if self.shared.faults.fail_sync.load(Ordering::Relaxed) {
            return Err(io::Error::other("sync failed"));
        }
        self.file.lock().sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.lock().now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        set_length(&mut self.file.lock().now, len as usize);
        Ok(())
    }
}

struct MemoryLock {
    path: PathBuf,
    shared: Arc<Shared>,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.shared.names.lock().locked.remove(&self.path);
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut names = self.shared.names.lock();
        let file = match (names.now.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => file.clone(),
            (None, OpenMode::CreateNew) => {
                let file = File::default();
                names.now.insert(path.to_owned(), file.clone());
                names.touch(path);
                file
            }
            (None, _) => return Err(missing(path)),
        };
        Ok(Box::new(MemoryFile {
            path: path.to_owned(),
            file,
            shared: self.shared.clone(),
            writable: mode != OpenMode::Read,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut names = self.shared.names.lock();
        // Of those above it, the topmost was always there.
        let above = path
            .ancestors()
            .skip(1)
            .filter(|folder| folder.components().count() > 2);
        for folder in above.chain([path]).map(Path::to_owned) {
            if !names.folders.contains_key(&folder) {
                names.touch(&folder);
                names.folders.insert(folder, false);
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        if self.shared.faults.bad_folder.lock().as_deref() == Some(dir) {
            return Err(io::Error::other("bad folder"));
        }
        let names = self.shared.names.lock();
        let mut entries = BTreeMap::new();
        for (path, file) in &names.now {
            let Ok(below) = path.strip_prefix(dir) else { continue };
            let mut parts = below.components();
            let Some(first) = parts.next() else { continue };
            let is_file = parts.next().is_none();
            let len = if is_file { file.lock().now.len() as u64 } else { 0 };
            entries.insert(first.as_os_str().to_string_lossy().into_owned(), len);
        }
        Ok(entries.into_iter().map(|(name, len)| DirEntry { name, len }).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let names = self.shared.names.lock();
        Ok(names.now.contains_key(path) || names.folders.contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.shared.names.lock();
        let file = names.now.remove(from).ok_or_else(|| missing(from))?;
        names.now.insert(to.to_owned(), file);
        names.touch(from);
        names.touch(to);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if self.shared.faults.fail_remove.load(Ordering::Relaxed) {
            return Err(io::Error::other("remove failed"));
        }
        let mut names = self.shared.names.lock();
        names.now.remove(path).ok_or_else(|| missing(path))?;
        names.touch(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let faults = &self.shared.faults;
        let mut names = self.shared.names.lock();
        let failing = faults.fail_sync_dir.load(Ordering::Relaxed);
        if failing != 0 {
            names.dropped.insert(dir.to_owned());
            return Err(io::Error::from_raw_os_error(failing));
        }
        if faults.unsyncable_folder.lock().as_deref() == Some(dir) {
            names.dropped.insert(dir.to_owned());
            return Err(io::Error::other("sync failed"));
        }
        if names.dropped.contains(dir) {
            return Ok(());
        }
        let here = |path: &PathBuf| path.parent() == Some(dir);
        let now: Vec<_> = names.now.iter().filter(|(path, _)| here(path)).collect();
        let now: Vec<_> = now
            .into_iter()
            .map(|(path, file)| (path.clone(), file.clone()))
            .collect();
        for (_, synced) in names.folders.iter_mut().filter(|(path, _)| here(path)) {
            *synced = true;
        }
        names.synced.retain(|path, _| !here(path));
        names.synced.extend(now);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut names = self.shared.names.lock();
        if names.locked.insert(path.to_owned(), ()).is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock {
            path: path.to_owned(),
            shared: self.shared.clone(),
        }))
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.shared.faults.free_bytes.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_nothing_else() {
        let (disk, dir) = (MemoryDisk::new(), Path::new("/d"));
        let file = disk.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        file.sync_data().unwrap();
        assert!(disk.crash().list(dir).unwrap().is_empty());
        disk.sync_dir(dir).unwrap();
        file.write_all_at(b"lost", 4).unwrap();
        assert_eq!(disk.crash().content(&dir.join("a")).unwrap(), b"kept");
        disk.rename(&dir.join("a"), &dir.join("b")).unwrap();
        assert!(disk.crash().content(&dir.join("b")).is_none());
        assert_eq!(disk.content(&dir.join("b")).unwrap(), b"keptlost");
    }

    #[test]
    fn a_failed_folder_sync_is_not_made_good_by_a_later_one_but_by_a_change() {
        let (disk, dir) = (MemoryDisk::new(), Path::new("/d"));
        disk.put(&dir.join("a"), Vec::new());
        disk.remove_file(&dir.join("a")).unwrap();
        disk.faults().fail_sync_dir.store(EIO, Ordering::Relaxed);
        assert!(disk.sync_dir(dir).is_err());
        disk.faults().fail_sync_dir.store(0, Ordering::Relaxed);
        disk.sync_dir(dir).unwrap();
        assert!(disk.crash().content(&dir.join("a")).is_some());
        crate::store::disk::sync_dir_anew(&disk, dir, "mark.tmp").unwrap();
        assert!(disk.crash().list(dir).unwrap().is_empty() && disk.list(dir).unwrap().is_empty());
    }
}
