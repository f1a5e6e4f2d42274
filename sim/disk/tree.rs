//! Simulated directories: the names that are seen, the names that a crash leaves, and the changes in between.
//!
//! Invariant: the durable names plus all pending and dropped changes, in order, are the live names; there are not both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::rng::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    File(u64),
    Dir,
}

#[derive(Debug, Clone)]
enum Change {
    Link(String, Entry),
    Unlink(String),
    Rename(String, String),
}

impl Change {
    fn names(&self) -> Vec<&String> {
        match self {
            Change::Link(name, _) | Change::Unlink(name) => vec![name],
            Change::Rename(from, to) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, Entry>) {
        match self {
            Change::Link(name, entry) => {
                names.insert(name.clone(), *entry);
            }
            Change::Unlink(name) => {
                names.remove(name);
            }
            Change::Rename(from, to) => {
                if let Some(entry) = names.remove(from) {
                    names.insert(to.clone(), entry);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Dir {
    live: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    pending: Vec<Change>,
    /// What a failed sync dropped: it happens in no crash, and the directory counts as clean, until the next change makes all of it pending
    /// again.
    dropped: Vec<Change>,
}

impl Dir {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.append(&mut self.dropped);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        if self.dropped.is_empty() {
            self.durable = self.live.clone();
            self.pending.clear();
        }
    }

    /// Some of the changes are durable all the same; the others are still pending, or dropped.
    fn sync_failing(&mut self, rng: &mut Rng) {
        let left = self.settle(rng, 50);
        match rng.percent(50) {
            true => self.dropped.extend(left),
            false => self.pending = left,
        }
    }

    /// A random part of the pending changes happens, the rest does not. Changes of one name keep their order: a later one never
    /// happens without an earlier one.
    fn settle(&mut self, rng: &mut Rng, keep: u64) -> Vec<Change> {
        let mut lost = Vec::new();
        let mut stuck = BTreeSet::new();
        for change in std::mem::take(&mut self.pending) {
            let free = change.names().iter().all(|name| !stuck.contains(*name));
            if free && rng.percent(keep) {
                change.apply(&mut self.durable);
            } else {
                stuck.extend(change.names().into_iter().cloned());
                lost.push(change);
            }
        }
        lost
    }
}

#[derive(Debug, Clone)]
pub struct Tree {
    dirs: BTreeMap<PathBuf, Dir>,
}

fn error(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{}: {kind}", path.display()))
}

fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(dir), Some(name)) => Ok((dir.to_owned(), name.to_owned())),
        _ => Err(error(io::ErrorKind::InvalidInput, path)),
    }
}

impl Tree {
    /// Only the root directory.
    pub fn new() -> Self {
        Self {
            dirs: BTreeMap::from([(PathBuf::from("/"), Dir::default())]),
        }
    }

    fn dir(&self, path: &Path) -> io::Result<&Dir> {
        self.dirs.get(path).ok_or_else(|| error(io::ErrorKind::NotFound, path))
    }

    fn dir_mut(&mut self, path: &Path) -> io::Result<&mut Dir> {
        self.dirs
            .get_mut(path)
            .ok_or_else(|| error(io::ErrorKind::NotFound, path))
    }

    /// Every named file.
    pub fn file_paths(&self) -> Vec<(PathBuf, u64)> {
        let of_dir = |(dir, names): (&PathBuf, &Dir)| {
            let files = names.live.iter().filter_map(|(name, entry)| match entry {
                Entry::File(inode) => Some((dir.join(name), *inode)),
                Entry::Dir => None,
            });
            files.collect::<Vec<_>>()
        };
        self.dirs.iter().flat_map(of_dir).collect()
    }

    pub fn get(&self, path: &Path) -> Option<Entry> {
        if self.dirs.contains_key(path) {
            return Some(Entry::Dir);
        }
        let (dir, name) = split(path).ok()?;
        self.dirs.get(&dir)?.live.get(&name).copied()
    }

    pub fn file(&self, path: &Path) -> io::Result<u64> {
        match self.get(path) {
            Some(Entry::File(inode)) => Ok(inode),
            Some(Entry::Dir) => Err(error(io::ErrorKind::IsADirectory, path)),
            None => Err(error(io::ErrorKind::NotFound, path)),
        }
    }

    pub fn names(&self, path: &Path) -> io::Result<impl Iterator<Item = (&String, Entry)>> {
        Ok(self.dir(path)?.live.iter().map(|(name, entry)| (name, *entry)))
    }

    pub fn create(&mut self, path: &Path, inode: u64) -> io::Result<()> {
        if self.get(path).is_some() {
            return Err(error(io::ErrorKind::AlreadyExists, path));
        }
        let (dir, name) = split(path)?;
        self.dir_mut(&dir)?.change(Change::Link(name, Entry::File(inode)));
        Ok(())
    }

    pub fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        match self.get(path) {
            Some(Entry::Dir) => return Ok(()),
            Some(Entry::File(_)) => return Err(error(io::ErrorKind::AlreadyExists, path)),
            None => {}
        }
        let (dir, name) = split(path)?;
        self.create_dir_all(&dir)?;
        self.dir_mut(&dir)?.change(Change::Link(name, Entry::Dir));
        self.dirs.insert(path.to_owned(), Dir::default());
        Ok(())
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.file(from)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from)?, split(to)?);
        if self.get(to) == Some(Entry::Dir) {
            return Err(error(io::ErrorKind::IsADirectory, to));
        }
        self.dir(&to_dir)?;
        if from_dir == to_dir {
            if from_name != to_name {
                self.dir_mut(&from_dir)?.change(Change::Rename(from_name, to_name));
            }
        } else {
            // Atomic only within one directory: here a crash may leave both names, or none.
            self.dir_mut(&from_dir)?.change(Change::Unlink(from_name));
            self.dir_mut(&to_dir)?.change(Change::Link(to_name, Entry::File(inode)));
        }
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let (dir, name) = split(path)?;
        self.dir_mut(&dir)?.change(Change::Unlink(name));
        Ok(())
    }

    pub fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.dir_mut(path)?.sync();
        Ok(())
    }

    pub fn sync_dir_failing(&mut self, path: &Path, rng: &mut Rng) -> io::Result<()> {
        self.dir_mut(path)?.sync_failing(rng);
        Ok(())
    }

    /// The power goes; `keep` is the chance in percent that a pending change happened.
    pub fn crash(&mut self, rng: &mut Rng, keep: u64) {
        for dir in self.dirs.values_mut() {
            dir.settle(rng, keep);
            dir.dropped.clear();
            dir.live = dir.durable.clone();
        }
        // Parents come before children in the map, so one pass finds every directory that lost its name.
        let mut left: BTreeMap<PathBuf, Dir> = BTreeMap::new();
        for (path, dir) in std::mem::take(&mut self.dirs) {
            let named = split(&path).is_ok_and(|(parent, name)| {
                left.get(&parent)
                    .is_some_and(|parent| parent.live.get(&name) == Some(&Entry::Dir))
            });
            if named || path == Path::new("/") {
                left.insert(path, dir);
            }
        }
        self.dirs = left;
    }

    /// The files that have a name now.
    pub fn live_files(&self) -> BTreeSet<u64> {
        files(self.dirs.values().flat_map(|dir| dir.live.values()))
    }

    /// The files that have a name now, or would after some crash.
    pub fn possible_files(&self) -> BTreeSet<u64> {
        let pending = self
            .dirs
            .values()
            .flat_map(|dir| dir.pending.iter().chain(&dir.dropped));
        let linked = pending.filter_map(|change| match change {
            Change::Link(_, entry) => Some(entry),
            _ => None,
        });
        let named = self
            .dirs
            .values()
            .flat_map(|dir| dir.live.values().chain(dir.durable.values()));
        files(named.chain(linked))
    }
}

fn files<'a>(entries: impl Iterator<Item = &'a Entry>) -> BTreeSet<u64> {
    entries
        .filter_map(|entry| match entry {
            Entry::File(inode) => Some(*inode),
            Entry::Dir => None,
        })
        .collect()
}
