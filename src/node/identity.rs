//! The data folder: its lock, and the file that says who this node is.
//!
//! `node.json` holds the format version, the number of shards and the origin. It is written whole to another name, synced and
//! renamed. If it is damaged it is set aside: the number of shards stands in the shards' folder names too, and the origin is drawn anew.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::core::stamp::OriginId;
use crate::env::{Entropy, Env};
use crate::store::disk::{Disk, DiskLock, OpenMode};

const FILE: &str = "node.json";
const LOCK: &str = "node.lock";
pub const VERSION: u32 = 1;
/// Most shards a node can have: one per slot would be the end of it.
pub const SHARDS_MAX: u16 = 256;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    shards: u16,
    /// 16 hex digits.
    origin: String,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot use the data folder {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the data folder {0} is in use by another process")]
    InUse(PathBuf),
    #[error("{path} has format version {found}, this program knows versions up to {known}: use a newer program")]
    NewerVersion { path: PathBuf, found: u32, known: u32 },
}

/// An open data folder, locked while this lives.
pub struct Identity {
    dir: PathBuf,
    pub shards: u16,
    pub origin: OriginId,
    /// Made just now.
    pub fresh: bool,
    lock: Option<Box<dyn DiskLock>>,
}

impl Identity {
    /// Opens the folder, making it if need be. `shards` counts only then.
    pub fn open(env: &Env, dir: &Path, shards: u16) -> Result<Self, IdentityError> {
        let fail = |source| IdentityError::Io {
            path: dir.to_owned(),
            source,
        };
        env.disk.create_dir_all(dir).map_err(fail)?;
        sync_parent(&*env.disk, dir);
        let lock = env.disk.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => IdentityError::InUse(dir.to_owned()),
            _ => fail(error),
        })?;
        let record = read(&*env.disk, dir)?;
        let on_disk = shards_on_disk(&*env.disk, dir).map_err(fail)?;
        let created = record.as_ref().map(|record| record.shards).or(on_disk);
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
            fresh: created.is_none(),
            lock: Some(lock),
        };
        match record.and_then(|record| u64::from_str_radix(&record.origin, 16).ok()) {
            Some(origin) if origin != 0 => identity.origin = OriginId(origin),
            _ => identity.renew_origin(&*env.disk, &*env.entropy)?,
        }
        Ok(identity)
    }

    /// Takes a new origin: durable on Ok.
    pub fn renew_origin(&mut self, disk: &dyn Disk, entropy: &dyn Entropy) -> Result<(), IdentityError> {
        let origin = OriginId(entropy.u64().max(1));
        let record = Record {
            version: VERSION,
            shards: self.shards,
            origin: format!("{:016x}", origin.0),
        };
        write(disk, &self.dir, &record).map_err(|source| IdentityError::Io {
            path: self.dir.join(FILE),
            source,
        })?;
        self.origin = origin;
        Ok(())
    }

    /// Lets others use the folder; nothing below it may be touched any more.
    pub fn unlock(&mut self) {
        self.lock = None;
    }

    /// The folder of a shard; `index == shards` is the system's.
    pub fn shard_dir(&self, index: u16) -> PathBuf {
        self.dir.join(shard_dir_name(index, self.shards))
    }
}

/// Makes the folder's own name durable, if it is new. Somebody else's folder may not let us: then it is theirs to do.
fn sync_parent(disk: &dyn Disk, dir: &Path) {
    let parent = dir.parent().map(|parent| match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    });
    if let Some(Err(error)) = parent.map(|parent| disk.sync_dir(parent)) {
        tracing::warn!(dir = %dir.display(), %error, "the name of the data folder may not be durable yet");
    }
}

fn shard_dir_name(index: u16, shards: u16) -> String {
    if index == shards {
        return format!("system-of-{shards:03}");
    }
    format!("shard-{index:03}-of-{shards:03}")
}

fn shards_on_disk(disk: &dyn Disk, dir: &Path) -> io::Result<Option<u16>> {
    let names = disk.list(dir)?;
    let count = |name: &str| name.rsplit_once("-of-").and_then(|(_, count)| count.parse().ok());
    Ok(names
        .iter()
        .filter(|entry| entry.name.starts_with("shard-") || entry.name.starts_with("system-"))
        .filter_map(|entry| count(&entry.name))
        .find(|count| (1..=SHARDS_MAX).contains(count)))
}

fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Record>, IdentityError> {
    let path = dir.join(FILE);
    let fail = |source| IdentityError::Io {
        path: path.clone(),
        source,
    };
    let file = match disk.open(&path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(fail)?,
    };
    // It is some 60 bytes long; of anything longer, only that it is no such file matters.
    let length = file.len().map_err(fail)?.min(4096) as usize;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).map_err(fail)?;
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice::<Version>(&bytes) {
        Ok(Version { version }) if version > VERSION => Err(IdentityError::NewerVersion {
            path,
            found: version,
            known: VERSION,
        }),
        _ => match serde_json::from_slice::<Record>(&bytes) {
            Ok(record) if (1..=SHARDS_MAX).contains(&record.shards) => Ok(Some(record)),
            _ => {
                tracing::error!(path = %path.display(), "the node's identity file is damaged: set aside, a new origin is taken");
                disk.rename(&path, &dir.join(format!("quarantine-{FILE}")))
                    .map_err(fail)?;
                Ok(None)
            }
        },
    }
}

fn write(disk: &dyn Disk, dir: &Path, record: &Record) -> io::Result<()> {
    let temporary = dir.join(format!("{FILE}.tmp"));
    if disk.exists(&temporary)? {
        disk.remove_file(&temporary)?;
    }
    let file = disk.open(&temporary, OpenMode::CreateNew)?;
    let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, &dir.join(FILE))?;
    disk.sync_dir(dir)
}
