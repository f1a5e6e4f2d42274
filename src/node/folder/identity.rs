//! The data folder: its lock, and the file that says who this node is.
//!
//! `node.json` holds the format version, the number of shards, the node's id, its origins and how often it was started. It is written whole
//! (`whole_file`) and with a checksum; a member, which writes it with each start, keeps space for that beside it. If it is damaged it is set aside:
//! the number of shards stands in the shards' folder names too, and the origin and the id are drawn anew. Where the two numbers differ, the folders
//! are right: by another number their data would be passed over, and empty shards made beside them.
//!
//! | in the data folder | what it is |
//! | --- | --- |
//! | `node.lock` | held while a process has the folder |
//! | `node.json`, `node.spare` | this file, and the space for its next state |
//! | `lives.json` | the lives of other members that this one has met (`cluster::lives`) |
//! | `shard-NNN-of-MMM`, `system-of-MMM` | the folders of the shards (`store::recover`); the system's has users and members |
//! | `quarantine-*` | what was damaged, set aside |
//!
//! Invariant: a member of a cluster takes a new origin with each start. What it had stamped and not made durable before it died may live
//! on with its peers, and a copy of its folder may have been put back: neither can make it use a name twice.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checked_json;
use crate::core::stamp::OriginId;
use crate::env::{Entropy, Env};
use crate::planted::{Bug, planted};
use crate::store::disk::{Disk, DiskLock, sync_dir_anew};
use crate::store::whole_file;
use crate::types::{NodeId, SHARDS_MAX};

const FILE: &str = "node.json";
const LOCK: &str = "node.lock";
/// A file of nobody's, beside the folders that are made: see `sync_dir_anew`.
const SYNC_MARK: &str = ".kv-storage-opening.tmp";
/// Version 1 knew of no cluster.
pub const VERSION: u32 = 2;
/// The file is some hundred bytes long, and 20 more with each start in a cluster.
const RECORD_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    shards: u16,
    /// 16 hex digits, as are the others.
    origin: String,
    #[serde(default)]
    node: String,
    /// Origins of former lives.
    #[serde(default)]
    former: Vec<String>,
    #[serde(default)]
    starts: u64,
    /// The node is a member and waits for its first copy of what the others hold.
    #[serde(default)]
    is_new: bool,
}

/// What the node is started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// There are no others.
    Alone,
    /// Of a cluster; should the folder be new, one that others have to fill first, or that founds one.
    Member,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use the data folder {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the data folder {0} is in use by another process")]
    InUse(PathBuf),
    #[error(
        "the data folder {0} is that of a member of a cluster, and useless without it: start the node with --cluster-listen, --cluster-key-file and --join, as before"
    )]
    Member(PathBuf),
    #[error("{path} has format version {found}, this program knows versions up to {known}: use a newer program")]
    NewerVersion { path: PathBuf, found: u32, known: u32 },
}

/// An open data folder, locked while this lives.
pub struct Identity {
    dir: PathBuf,
    pub shards: u16,
    pub origin: OriginId,
    pub node: NodeId,
    /// Origins of former lives of this disk.
    pub former: Vec<OriginId>,
    /// Starts as a member of a cluster, this one included.
    pub starts: u64,
    /// What the other replicas hold did not come yet, so that this one's word counts for nothing.
    pub is_new: bool,
    /// Made just now.
    pub fresh: bool,
    lock: Option<Box<dyn DiskLock>>,
}

/// Keeps others from using the data folder while this lives.
pub struct FolderLock(Option<Box<dyn DiskLock>>);

impl FolderLock {
    /// Lets others use the folder; nothing below it may be touched any more.
    pub fn unlock(&mut self) {
        self.0 = None;
    }

    /// Leaves the folder locked until this process ends: something of it may still be at work there, and the next one must not meet that.
    pub fn stay_locked(&mut self) {
        std::mem::forget(self.0.take());
    }
}

/// Whether another process has the folder open; not when there is no folder.
pub fn is_in_use(disk: &dyn Disk, dir: &Path) -> bool {
    let file = dir.join(LOCK);
    // To lock it would make it.
    let is_there = matches!(disk.exists(&file), Ok(true));
    is_there
        && disk
            .lock(&file)
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl Identity {
    /// Opens the folder, making it if need be. `shards` counts only then.
    pub fn open(env: &Env, dir: &Path, shards: u16, role: Role) -> Result<Self, IdentityError> {
        let fail = |source| IdentityError::Io {
            path: dir.to_owned(),
            source,
        };
        make_folder(&*env.disk, dir).map_err(fail)?;
        let lock = env.disk.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => IdentityError::InUse(dir.to_owned()),
            _ => fail(error),
        })?;
        let on_disk = shards_on_disk(&*env.disk, dir).map_err(fail)?;
        let record = read(&*env.disk, dir, &on_disk)?;
        // Alone, it would acknowledge what no other replica hears of, and go on with an origin that they know from this start.
        if role == Role::Alone && record.as_ref().is_some_and(|record| record.starts > 0) {
            return Err(IdentityError::Member(dir.to_owned()));
        }
        let created = record.as_ref().map(|record| record.shards);
        let created = created.or(on_disk.first().copied());
        if let Some(created) = created.filter(|created| *created != shards) {
            tracing::info!(
                created,
                asked = shards,
                "the data folder keeps the number of shards that it was made with"
            );
        }
        let mut identity = Self {
            dir: dir.to_owned(),
            shards: created.unwrap_or(shards),
            origin: OriginId(0),
            node: NodeId(0),
            former: Vec::new(),
            starts: 0,
            is_new: created.is_none() && role == Role::Member,
            fresh: created.is_none(),
            lock: Some(lock),
        };
        identity.take_record(record);
        if identity.node.0 == 0 {
            identity.node = NodeId(env.entropy.u64().max(1));
        }
        let is_member = role != Role::Alone;
        identity.starts += u64::from(is_member);
        if (is_member && !planted(Bug::DotReused)) || identity.origin.0 == 0 {
            identity.renew_origin(&*env.disk, &*env.entropy)?;
        }
        Ok(identity)
    }

    /// Takes a new origin: durable on Ok.
    pub fn renew_origin(&mut self, disk: &dyn Disk, entropy: &dyn Entropy) -> Result<(), IdentityError> {
        let before = self.origin;
        self.origin = OriginId(entropy.u64().max(1));
        if before.0 != 0 {
            self.former.push(before);
        }
        let saved = self.save(disk);
        if saved.is_err() {
            self.former.retain(|origin| *origin != before);
            self.origin = before;
        }
        saved
    }

    /// Whether the node waits for its first copy of what the others hold: durable on Ok.
    pub fn set_new(&mut self, is_new: bool, starts: u64, disk: &dyn Disk) -> Result<(), IdentityError> {
        self.is_new = is_new;
        self.starts = self.starts.max(starts);
        self.save(disk)
    }

    /// Every origin that this disk ever had.
    pub fn own_origins(&self) -> BTreeSet<OriginId> {
        self.former.iter().copied().chain([self.origin]).collect()
    }

    fn take_record(&mut self, record: Option<Record>) {
        let Some(record) = record else {
            return;
        };
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
        self.origin = OriginId(number(&record.origin));
        self.node = NodeId(number(&record.node));
        self.former = record.former.iter().map(|text| OriginId(number(text))).collect();
        self.starts = record.starts;
        self.is_new = record.is_new;
    }

    fn save(&self, disk: &dyn Disk) -> Result<(), IdentityError> {
        let record = Record {
            version: VERSION,
            shards: self.shards,
            origin: format!("{:016x}", self.origin.0),
            node: self.node.to_string(),
            former: self.former.iter().map(|origin| format!("{:016x}", origin.0)).collect(),
            starts: self.starts,
            is_new: self.is_new,
        };
        let path = self.dir.join(FILE);
        let write = match self.starts {
            0 => whole_file::write,
            _ => whole_file::write_with_spare,
        };
        let bytes = checked_json::encode(&record).map_err(io::Error::other);
        let written = bytes.and_then(|bytes| write(disk, &path, &bytes));
        written.map_err(|source| IdentityError::Io { path, source })
    }

    /// Whoever has it decides when others may use the folder.
    pub fn take_lock(&mut self) -> FolderLock {
        FolderLock(self.lock.take())
    }

    /// The folder of a shard; `index == shards` is the system's.
    pub fn shard_dir(&self, index: u16) -> PathBuf {
        self.dir.join(shard_dir_name(index, self.shards))
    }
}

/// Makes the folder, and those above it that are not there, and their names durable. An earlier try may have made them and ended before it came to
/// that, so while the folder is new it is done for all above it, as far as they let us.
fn make_folder(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let mut missing = 0;
    for folder in dir.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        if disk.exists(folder)? {
            break;
        }
        missing += 1;
    }
    disk.create_dir_all(dir)?;
    let is_new = !disk.exists(&dir.join(FILE))?;
    for (level, folder) in dir.ancestors().enumerate() {
        match sync_parent(disk, folder, is_new) {
            Err(error) if level > 0 && level >= missing => {
                tracing::debug!(folder = %folder.display(), %error, "the name of a folder may not be durable");
            }
            synced => synced?,
        }
        if !is_new {
            break;
        }
    }
    Ok(())
}

/// Makes the folder's own name durable, if it is new: with it, all that is synced below it would be lost. Somebody else's folder may not let us:
/// then it is theirs to do.
fn sync_parent(disk: &dyn Disk, dir: &Path, is_new: bool) -> io::Result<()> {
    let parent = match dir.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    // An earlier try may have made the name, and failed to make it durable.
    let synced = match is_new {
        true => sync_dir_anew(disk, parent, SYNC_MARK),
        false => disk.sync_dir(parent),
    };
    let synced = match synced {
        // Who may make no file there has made no folder there either.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            disk.sync_dir(parent)
        }
        synced => synced,
    };
    match synced {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
            ) =>
        {
            tracing::warn!(dir = %dir.display(), %error, "the name of the data folder may not be durable yet");
            Ok(())
        }
        synced => synced,
    }
}

fn shard_dir_name(index: u16, shards: u16) -> String {
    if index == shards {
        return format!("system-of-{shards:03}");
    }
    format!("shard-{index:03}-of-{shards:03}")
}

/// The numbers of shards that the folders' names say: one, unless a damaged record had others made.
fn shards_on_disk(disk: &dyn Disk, dir: &Path) -> io::Result<BTreeSet<u16>> {
    let names = disk.list(dir)?;
    let count = |name: &str| name.rsplit_once("-of-").and_then(|(_, count)| count.parse().ok());
    Ok(names
        .iter()
        .filter(|entry| entry.name.starts_with("shard-") || entry.name.starts_with("system-"))
        .filter_map(|entry| count(&entry.name))
        .filter(|count| (1..=SHARDS_MAX).contains(count))
        .collect())
}

/// The record, if there is one and it is whole; `on_disk` is what the folders say of the number of shards.
fn read(disk: &dyn Disk, dir: &Path, on_disk: &BTreeSet<u16>) -> Result<Option<Record>, IdentityError> {
    let path = dir.join(FILE);
    let fail = |source| IdentityError::Io {
        path: path.clone(),
        source,
    };
    let Some(bytes) = whole_file::read(disk, &path, RECORD_BYTES_MAX).map_err(fail)? else {
        return Ok(None);
    };
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let why = match checked_json::checked(&bytes) {
        Err(error) => error.to_string(),
        Ok(bytes) => match (
            serde_json::from_slice::<Version>(&bytes),
            serde_json::from_slice(&bytes),
        ) {
            (Ok(Version { version }), _) if version > VERSION => {
                return Err(IdentityError::NewerVersion {
                    path,
                    found: version,
                    known: VERSION,
                });
            }
            (_, Ok(record)) => match why_wrong(&record, on_disk) {
                None => return Ok(Some(record)),
                Some(why) => why,
            },
            (_, Err(error)) => error.to_string(),
        },
    };
    tracing::error!(path = %path.display(), why, "the node's identity file is damaged: set aside, a new origin is taken");
    disk.rename(&path, &dir.join(format!("quarantine-{FILE}")))
        .map_err(fail)?;
    Ok(None)
}

fn why_wrong(record: &Record, on_disk: &BTreeSet<u16>) -> Option<String> {
    let shards = record.shards;
    if !(1..=SHARDS_MAX).contains(&shards) {
        return Some(format!("it names {shards} shards"));
    }
    let is_another = !on_disk.is_empty() && !on_disk.contains(&shards);
    is_another.then(|| format!("it names {shards} shards, and the folders are of {on_disk:?}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::store::memory_disk::MemoryDisk;

    #[test]
    fn a_folder_whose_name_is_not_durable_is_not_used_unless_its_parent_is_not_ours() {
        const EIO: i32 = 5;
        const EACCES: i32 = 13;
        for (error, is_used) in [(0, true), (EACCES, true), (EIO, false)] {
            let disk = MemoryDisk::new();
            disk.faults().fail_sync_dir.store(error, Ordering::Relaxed);
            assert_eq!(
                sync_parent(&*disk.as_disk(), Path::new("/data/kv"), true).is_ok(),
                is_used,
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_made_with_those_above_it_survives_a_loss_of_power() {
        let dir = Path::new("/data/a/b/c");
        let open = |disk: &MemoryDisk| {
            let env = Env {
                disk: disk.as_disk(),
                ..crate::os::env()
            };
            Identity::open(&env, dir, 4, Role::Alone).unwrap();
        };
        let disk = MemoryDisk::new();
        open(&disk);
        assert!(disk.crash().content(&dir.join(FILE)).is_some());
        // An earlier try ended right after it had made them, or could not make their names durable.
        for failed_folder in [None, Some("/"), Some("/data/a"), Some("/data/a/b")] {
            let disk = MemoryDisk::new();
            disk.as_disk().create_dir_all(dir).unwrap();
            if let Some(folder) = failed_folder {
                *disk.faults().unsyncable_folder.lock() = Some(folder.into());
                disk.as_disk().sync_dir(Path::new(folder)).unwrap_err();
                *disk.faults().unsyncable_folder.lock() = None;
            }
            open(&disk);
            assert!(disk.crash().content(&dir.join(FILE)).is_some(), "{failed_folder:?}");
        }
    }

    #[tokio::test]
    async fn nodes_that_start_beside_each_other_in_a_new_folder_do_not_trip_over_each_other() {
        let disk = crate::os::env().disk;
        for _ in 0..30 {
            let root = tempfile::tempdir().unwrap();
            let folder = |node: usize| root.path().join(format!("cluster/node{node}/data"));
            let at_once = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for node in 0..4 {
                    let (disk, at_once) = (&disk, &at_once);
                    scope.spawn(move || {
                        at_once.wait();
                        make_folder(&**disk, &folder(node)).unwrap();
                    });
                }
            });
        }
    }

    fn opened(disk: &MemoryDisk, shards: u16) -> Identity {
        let env = Env {
            disk: disk.as_disk(),
            ..crate::os::env()
        };
        Identity::open(&env, Path::new("/data"), shards, Role::Member).unwrap()
    }

    #[tokio::test]
    async fn a_flipped_bit_of_the_file_is_found() {
        let disk = MemoryDisk::new();
        let first = opened(&disk, 16);
        let (node, starts) = (first.node, first.starts);
        drop(first);
        let path = Path::new("/data/node.json");
        let whole = disk.content(path).unwrap();
        let text = String::from_utf8(whole.clone()).unwrap();
        for (from, to) in [
            ("\"starts\":1", "\"starts\":3"),
            ("is_new", "is_nev"),
            ("former", "fnrmer"),
        ] {
            assert!(text.contains(from));
            disk.put(path, text.replace(from, to).into_bytes());
            let damaged = opened(&disk, 16);
            assert!(damaged.node != node && damaged.starts == starts, "{from}");
        }
        // One of an earlier version has no checksum.
        let (begin, _) = text.split_once(",\"check\"").unwrap();
        for bytes in [whole, format!("{begin}}}").into_bytes()] {
            disk.put(path, bytes);
            let again = opened(&disk, 16);
            assert!(again.node == node && again.starts == starts + 1);
        }
    }
}
