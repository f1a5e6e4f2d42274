//! The simulated disk as the store sees it: `Disk`, `DiskFile` and `DiskLock` of one process' life.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use kv_storage::store::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

use super::inode::Inode;
use super::tree::Entry;
use super::{Fault, SimDisk, State, injected};

/// What a disk says of a sector that it cannot read.
const EIO: i32 = 5;

#[derive(Clone)]
pub struct Mount {
    disk: SimDisk,
    life: u64,
}

fn crashed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "simulated: the machine went down")
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "simulated: no space left on device")
}

impl Mount {
    pub(super) fn new(disk: SimDisk, life: u64) -> Self {
        Self { disk, life }
    }

    pub(super) fn life(&self) -> u64 {
        self.life
    }

    /// An operation that changes nothing.
    fn look<T>(&self, what: impl FnOnce() -> String, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(crashed());
        }
        let result = act(&mut state);
        state.note(|| format!("{} {}", what(), outcome(&result)));
        result
    }

    /// An operation that changes the disk: the crash may happen in it.
    fn change<T>(&self, what: impl FnOnce() -> String, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(crashed());
        }
        state.changes += 1;
        let crash = state.crash_at == Some(state.changes);
        let result = if crash && state.rng.percent(50) {
            Err(crashed())
        } else {
            act(&mut state)
        };
        let number = state.changes;
        state.note(|| format!("{number} {} {}", what(), outcome(&result)));
        if crash {
            state.crash();
            return Err(crashed());
        }
        result
    }
}

/// A change of names or lengths. One that fails may have been done all the same.
fn change_or_fail(state: &mut State, act: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
    if !state.strikes(Fault::Name) {
        return act(state);
    }
    if state.rng.percent(50) {
        act(state)?;
    }
    Err(injected("a change of names"))
}

/// A look at names.
fn look_or_fail(state: &mut State) -> io::Result<()> {
    match state.strikes(Fault::Name) {
        true => Err(injected("a look at names")),
        false => Ok(()),
    }
}

fn outcome<T>(result: &io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => error.to_string(),
    }
}

impl Disk for Mount {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let what = || format!("open {mode:?} {}", path.display());
        let open = |state: &mut State| {
            let inode = match mode {
                OpenMode::CreateNew => {
                    let inode = state.next_inode;
                    change_or_fail(state, |state| {
                        state.tree.create(path, inode)?;
                        state.next_inode += 1;
                        state.inodes.insert(inode, Inode::new());
                        Ok(())
                    })?;
                    inode
                }
                OpenMode::Read | OpenMode::ReadWrite => {
                    look_or_fail(state)?;
                    state.tree.file(path)?
                }
            };
            if let Some(inode) = state.inodes.get_mut(&inode) {
                inode.handles += 1;
            }
            Ok(inode)
        };
        let inode = match mode {
            OpenMode::CreateNew => self.change(what, open),
            OpenMode::Read | OpenMode::ReadWrite => self.look(what, open),
        }?;
        Ok(Box::new(File {
            mount: self.clone(),
            inode,
            path: path.to_owned(),
            writable: mode != OpenMode::Read,
            sync_failed: AtomicBool::new(false),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(
            || format!("create_dir_all {}", path.display()),
            |state| change_or_fail(state, |state| state.tree.create_dir_all(path)),
        )
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.look(
            || format!("list {}", dir.display()),
            |state| {
                look_or_fail(state)?;
                let entry = |(name, entry): (&String, Entry)| DirEntry {
                    name: name.clone(),
                    len: match entry {
                        Entry::Dir => 0,
                        Entry::File(inode) => state.inodes.get(&inode).map_or(0, Inode::len),
                    },
                };
                Ok(state.tree.names(dir)?.map(entry).collect())
            },
        )
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.look(
            || format!("exists {}", path.display()),
            |state| {
                look_or_fail(state)?;
                Ok(state.tree.get(path).is_some())
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(
            || format!("rename {} {}", from.display(), to.display()),
            |state| {
                change_or_fail(state, |state| {
                    state.tree.rename(from, to)?;
                    state.collect();
                    Ok(())
                })
            },
        )
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(
            || format!("remove {}", path.display()),
            |state| {
                change_or_fail(state, |state| {
                    state.tree.remove_file(path)?;
                    state.collect();
                    Ok(())
                })
            },
        )
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(
            || format!("sync_dir {}", dir.display()),
            |state| {
                if state.strikes(Fault::SyncDir) {
                    state.tree.sync_dir_failing(dir, &mut state.rng)?;
                    return Err(injected("sync of a directory"));
                }
                if state.skips.1 {
                    return Ok(());
                }
                state.tree.sync_dir(dir)?;
                state.collect();
                Ok(())
            },
        )
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.change(
            || format!("lock {}", path.display()),
            |state| {
                if state.tree.get(path).is_none() {
                    let inode = state.next_inode;
                    state.tree.create(path, inode)?;
                    state.next_inode += 1;
                    state.inodes.insert(inode, Inode::new());
                }
                if !state.locks.insert(path.to_owned()) {
                    return Err(io::Error::new(
                        io::ErrorKind::WouldBlock,
                        "simulated: locked by another process",
                    ));
                }
                Ok(())
            },
        )?;
        Ok(Box::new(Lock {
            mount: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.look(
            || format!("free_bytes {}", dir.display()),
            |state| Ok(state.free_bytes()),
        )
    }
}

struct Lock {
    mount: Mount,
    path: PathBuf,
}

impl DiskLock for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        // Fails only when the lock went with the life it was taken in.
        let _ = self.mount.look(
            || format!("unlock {}", self.path.display()),
            |state| {
                state.locks.remove(&self.path);
                Ok(())
            },
        );
    }
}

struct File {
    mount: Mount,
    inode: u64,
    /// The name it was opened by; only for the trace.
    path: PathBuf,
    writable: bool,
    /// The kernel tells of a failed write-back once: what later syncs of this open file say is no proof any more.
    sync_failed: AtomicBool,
}

impl File {
    fn inode<'s>(&self, state: &'s mut State) -> io::Result<&'s mut Inode> {
        state.inodes.get_mut(&self.inode).ok_or_else(crashed)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} was opened for reading", self.path.display()),
        ))
    }
}

impl DiskFile for File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let count = buf.len();
        self.mount.look(
            || format!("read {} {offset}+{count}", self.path.display()),
            |state| {
                if state.strikes(Fault::Read) {
                    return Err(injected("read"));
                }
                let inode = self.inode(state)?;
                if !inode.is_readable(offset, count as u64) {
                    // As the system says it: the code tells it from an error that passes.
                    return Err(io::Error::from_raw_os_error(EIO));
                }
                match inode.read(buf, offset) {
                    true => Ok(()),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            },
        )
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let what = || {
            let crc = crc32c::crc32c(bytes);
            format!("write {} {offset}+{} {crc:08x}", self.path.display(), bytes.len())
        };
        self.mount.change(what, |state| {
            let growth = (offset + bytes.len() as u64).saturating_sub(self.inode(state)?.len());
            let missing = growth.saturating_sub(state.free_bytes());
            let error = if state.strikes(Fault::Write) {
                injected("write")
            } else if missing > 0 {
                full()
            } else {
                self.inode(state)?.write(bytes, offset);
                return Ok(());
            };
            let fits = (bytes.len() as u64).saturating_sub(missing);
            let written = state.rng.below(fits + 1);
            self.inode(state)?.write(&bytes[..written as usize], offset);
            Err(error)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.mount.change(
            || format!("sync {}", self.path.display()),
            |state| {
                if self.sync_failed.load(Relaxed) {
                    state.retried_syncs.push(self.path.clone());
                }
                if state.strikes(Fault::Sync) {
                    self.sync_failed.store(true, Relaxed);
                    let mut rng = state.rng.fork();
                    self.inode(state)?.sync_failing(&mut rng);
                    return Err(injected("sync"));
                }
                if state.skips.0 {
                    return Ok(());
                }
                self.inode(state)?.sync();
                Ok(())
            },
        )
    }

    fn len(&self) -> io::Result<u64> {
        self.mount.look(
            || format!("len {}", self.path.display()),
            |state| Ok(self.inode(state)?.len()),
        )
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.mount.change(
            || format!("set_len {} {len}", self.path.display()),
            |state| {
                let growth = len.saturating_sub(self.inode(state)?.len());
                if growth > state.free_bytes() {
                    return Err(full());
                }
                change_or_fail(state, |state| {
                    self.inode(state)?.set_len(len);
                    Ok(())
                })
            },
        )
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Fails only when the handle went with the life it was opened in.
        let _ = self.mount.look(
            || format!("close {}", self.path.display()),
            |state| {
                let inode = self.inode(state)?;
                inode.handles = inode.handles.saturating_sub(1);
                state.collect();
                Ok(())
            },
        );
    }
}
