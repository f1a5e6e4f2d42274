//! A disk in memory whose every fault comes from one seed.
//!
//! Fault model, the letter of the contract in `kv_storage::store::disk`:
//! - *crash*: of every sector (512 bytes, atomic) written since the last sync of its file, the durable version or any later one
//!   stays, each sector for itself; so also of the length. Of the names changed since the last sync of their directory, a
//!   random part is changed, in order per name; a rename within a directory is one change. Every open handle fails from then on;
//! - *crash point*: any change of the disk (write, sync, length, name) can be the one in which the crash happens; it may or may not
//!   have reached the disk. A crash before a read leaves the same disk as one before the next change, so reads are no crash points;
//! - *failed write*: some prefix may have been written;
//! - *failed sync*: each dirty sector was written, or dropped from the cache, or is kept there and counts as clean: a later sync
//!   succeeds without it, until a write to its page makes it dirty again;
//! - *failed sync of a directory*: some of its changes happened; the others are pending, or all of them dropped while everybody sees them: a later
//!   sync succeeds without them, until a change of the directory makes it dirty again;
//! - *failed read*: an error, once;
//! - *failed name*: to make, open, rename, remove, list or look for a file fails, once, or to set its length; what was to be changed may be
//!   changed all the same;
//! - *rot*: a bit flips at rest;
//! - *bad sector*: every read of it fails, also after a crash and in a copy, until it is written;
//! - *full disk*: a write beyond the capacity writes what fits, or less, and fails with `StorageFull`.
//!
//! Invariant: the same seed and the same calls give the same answers and the same trace, byte for byte.

mod inode;
mod mount;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::rng::Rng;
use inode::Inode;
pub use mount::Mount;
use tree::Tree;

/// What can be made to fail, once, some calls from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Read,
    Write,
    Sync,
    SyncDir,
    /// Anything done with names and lengths.
    Name,
}

/// The disk itself; it outlives the processes that mount it. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// The content of a disk at some moment.
pub struct Image {
    tree: Tree,
    inodes: BTreeMap<u64, Inode>,
}

struct State {
    rng: Rng,
    /// Counts the crashes and kills: handles of an earlier life fail.
    life: u64,
    tree: Tree,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    locks: BTreeSet<PathBuf>,
    capacity_bytes: u64,
    changes: u64,
    crash_at: Option<u64>,
    faults: BTreeMap<Fault, u64>,
    trace: Option<Vec<String>>,
    watcher: Option<Watcher>,
    /// Syncs of files and of directories that say they did, and did not.
    skips: (bool, bool),
    retried_syncs: Vec<PathBuf>,
}

/// Hears of every operation.
type Watcher = Box<dyn Fn(&str) + Send>;

impl SimDisk {
    /// An empty disk without limit.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                rng: Rng::new(seed),
                life: 0,
                tree: Tree::new(),
                inodes: BTreeMap::new(),
                next_inode: 1,
                locks: BTreeSet::new(),
                capacity_bytes: u64::MAX,
                changes: 0,
                crash_at: None,
                faults: BTreeMap::new(),
                trace: None,
                watcher: None,
                skips: (false, false),
                retried_syncs: Vec::new(),
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation of the simulated disk panics")
    }

    /// The disk as one process sees it, until the next crash or kill.
    pub fn mount(&self) -> Mount {
        Mount::new(self.clone(), self.state().life)
    }

    /// The machine loses power now.
    pub fn crash(&self) {
        self.state().crash();
    }

    /// The process dies, the machine stays: handles and locks go, every byte written stays in the cache.
    pub fn kill(&self) {
        self.state().kill();
    }

    /// Crash within the `nth` change from now; the first is 1.
    pub fn crash_after(&self, nth: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.changes + nth);
    }

    /// No crash is planned any more.
    pub fn cancel_crash(&self) {
        self.state().crash_at = None;
    }

    /// Whether a handle made by `mount` is of an earlier life: the crash has happened.
    pub fn is_dead(&self, mount: &Mount) -> bool {
        self.state().life != mount.life()
    }

    /// Changes of the disk so far: writes, syncs, lengths, names.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// The `nth` call of this kind from now fails, once; the first is 1.
    pub fn fail(&self, fault: Fault, nth: u64) {
        self.state().faults.insert(fault, nth);
    }

    pub fn cancel_faults(&self) {
        self.state().faults.clear();
    }

    /// Below what is used now, it means that nothing can grow.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Flips one bit of a file at rest; nothing when the file is not that long.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let mut state = self.state();
        if let Ok(inode) = state.tree.file(path)
            && let Some(inode) = state.inodes.get_mut(&inode)
        {
            inode.flip(offset, bit);
        }
    }

    /// One sector of a file at rest cannot be read any more; nothing when the file is not that long.
    pub fn spoil_sector(&self, path: &Path, offset: u64) {
        let mut state = self.state();
        if let Ok(inode) = state.tree.file(path)
            && let Some(inode) = state.inodes.get_mut(&inode)
        {
            inode.spoil(offset);
        }
    }

    /// From now on, every operation leaves a line.
    pub fn start_trace(&self) {
        self.state().trace = Some(Vec::new());
    }

    pub fn trace(&self) -> Vec<String> {
        self.state().trace.clone().unwrap_or_default()
    }

    /// From now on, `watcher` hears every operation's line.
    pub fn watch(&self, watcher: impl Fn(&str) + Send + 'static) {
        self.state().watcher = Some(Box::new(watcher));
    }

    /// From now on, syncs of files or of directories do nothing and say Ok: a planted bug.
    pub fn skip_syncs(&self, files: bool, directories: bool) {
        self.state().skips = (files, directories);
    }

    /// The disk is replaced by an empty one. Nobody may be using it.
    pub fn wipe(&self) {
        let mut state = self.state();
        state.end_life();
        state.tree = Tree::new();
        state.inodes.clear();
        state.note(|| "wipe".into());
    }

    /// A disk of its own that holds what is certain to be left if the power goes now: what was synced, and nothing else.
    pub fn after_power_loss(&self) -> Self {
        let copy = Self::new(0);
        {
            let (state, mut left) = (self.state(), copy.state());
            left.tree = state.tree.clone();
            left.inodes = state.inodes.clone();
            left.next_inode = state.next_inode;
            left.lose_power(0);
        }
        copy
    }

    /// Syncs that came after a failed one of the same open file, by the name it was opened by: they say Ok and prove nothing.
    pub fn retried_syncs(&self) -> Vec<PathBuf> {
        self.state().retried_syncs.clone()
    }

    /// What the disk holds now, while nobody uses it: for a `restore` later.
    pub fn image(&self) -> Image {
        let state = self.state();
        Image {
            tree: state.tree.clone(),
            inodes: state.inodes.clone(),
        }
    }

    /// The disk is replaced by one that holds what this one held when the image was taken. Nobody may be using it.
    pub fn restore(&self, image: &Image) {
        let mut state = self.state();
        state.end_life();
        state.tree = image.tree.clone();
        state.inodes = image.inodes.clone();
        state.note(|| "restore".into());
    }

    /// All files that have a name, with their lengths.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let lengths = state.tree.file_paths().into_iter();
        lengths
            .filter_map(|(path, inode)| Some((path, state.inodes.get(&inode)?.len())))
            .collect()
    }
}

impl State {
    fn crash(&mut self) {
        // Whole crashes of one kind find other faults than an even mixture.
        let keep = *self.rng.pick(&[0, 10, 50, 90, 100]);
        self.lose_power(keep);
        self.note(|| format!("crash keeping {keep}%"));
    }

    /// `keep` is the chance in percent of what is not synced.
    fn lose_power(&mut self, keep: u64) {
        for inode in self.inodes.values_mut() {
            inode.crash(&mut self.rng, keep);
        }
        self.tree.crash(&mut self.rng, keep);
        self.end_life();
    }

    fn kill(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.handles = 0;
        }
        self.end_life();
        self.note(|| "kill".into());
    }

    fn end_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.crash_at = None;
        self.collect();
    }

    /// Forgets the files that no name and no handle leads to any more.
    fn collect(&mut self) {
        let possible = self.tree.possible_files();
        self.inodes
            .retain(|id, inode| inode.handles > 0 || possible.contains(id));
    }

    fn used_bytes(&self) -> u64 {
        let named = self.tree.live_files();
        let counted = self
            .inodes
            .iter()
            .filter(|(id, inode)| inode.handles > 0 || named.contains(id));
        counted.map(|(_, inode)| inode.len()).sum()
    }

    fn free_bytes(&self) -> u64 {
        match self.capacity_bytes {
            u64::MAX => u64::MAX,
            capacity => capacity.saturating_sub(self.used_bytes()),
        }
    }

    /// Whether the planned fault of this kind strikes now.
    fn strikes(&mut self, fault: Fault) -> bool {
        match self.faults.get_mut(&fault) {
            Some(1) => {
                self.faults.remove(&fault);
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.is_none() && self.watcher.is_none() {
            return;
        }
        let line = line();
        if let Some(watcher) = &self.watcher {
            watcher(&line);
        }
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }
}

fn injected(what: &str) -> io::Error {
    io::Error::other(format!("injected: {what} failed"))
}
