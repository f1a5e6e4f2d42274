//! The record of which life of each member was met last, on the disk.
//!
//! It is `lives.json`, with a checksum, and a copy beside it that is written after it. A damaged file is set aside, and the copy goes on for it.
//!
//! Invariants:
//! - a life is met when it is durable;
//! - what could not be read is not overwritten: as long as the disk does not say what was recorded, no life is met at all.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::node::folder::checked_json;
use crate::node::jobs::JobGate;
use crate::store::disk::Disk;
use crate::store::whole_file;
use crate::types::NodeId;
use crate::wire::{Response, WireError};

const FILE: &str = "lives.json";
/// In no name a part of the other one's: each has its own file for what is not whole yet.
const COPY: &str = "lives-copy.json";
/// Some 200,000 lives: nodes without a volume bring one with each start.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A life of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    pub starts: u64,
    pub origin: u64,
}

type Met = BTreeMap<String, Life>;

pub(super) struct LivesFile {
    dir: PathBuf,
    /// None as long as it could not be read.
    met: Arc<Mutex<Option<Met>>>,
    /// One write at a time. The write itself holds it: it goes on when nobody waits for it any more.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// The folder stays locked while something of this is under way.
    gate: JobGate,
}

impl LivesFile {
    pub(super) async fn open(env: &Env, dir: PathBuf, gate: JobGate) -> Self {
        let file = Self {
            dir,
            met: Arc::default(),
            writing: Arc::default(),
            gate,
        };
        let one = file.writing.clone().lock_owned().await;
        file.read(env, &one).await;
        file
    }

    /// So many starts of the member are known.
    pub(super) fn starts_of(&self, node: NodeId) -> u64 {
        let met = self.met.lock();
        let life = met.as_ref().and_then(|met| met.get(&node.to_string()));
        life.map_or(0, |life| life.starts)
    }

    /// Whether this is so of everybody who was met; not while the disk does not say who was.
    pub(super) fn all_met_are(&self, is_so: impl Fn(NodeId) -> bool) -> bool {
        let met = self.met.lock();
        met.as_ref()
            .is_some_and(|met| met.keys().all(|name| name.parse().is_ok_and(&is_so)))
    }

    /// Meets a member; durable before it is answered with `Done`. Of those that `is_gone`, nothing is kept.
    pub(super) async fn meet(&self, env: &Env, node: NodeId, life: Life, is_gone: impl Fn(NodeId) -> bool) -> Response {
        let name = node.to_string();
        let one = self.writing.clone().lock_owned().await;
        self.read(env, &one).await;
        let Some(mut all) = self.met.lock().clone() else {
            return Response::Failed(WireError::Disk(
                "the record of members' lives cannot be read".to_owned(),
            ));
        };
        match all.get(&name) {
            Some(met) if *met == life => return Response::Done,
            Some(met) if met.starts >= life.starts => {
                tracing::warn!(%node, starts = life.starts, met = met.starts, "a member came with an older copy of its disk");
                return Response::OlderCopy { starts: met.starts };
            }
            _ => {}
        }
        all.retain(|name, _| !name.parse().is_ok_and(&is_gone));
        all.insert(name, life);
        let (disk, dir, met) = (env.disk.clone(), self.dir.clone(), self.met.clone());
        let permit = self.gate.0.clone().try_acquire_owned();
        let write = move || {
            let written = write(&*disk, &dir, &all);
            if written.is_ok() {
                *met.lock() = Some(all);
            }
            drop((one, permit));
            written
        };
        match env.run_blocking(write).await {
            Ok(Ok(())) => Response::Done,
            Ok(Err(error)) => Response::Failed(WireError::Disk(error.to_string())),
            Err(_) => Response::Failed(WireError::ShuttingDown),
        }
    }

    /// Reads the record, unless it was read before.
    async fn read(&self, env: &Env, _one: &tokio::sync::OwnedMutexGuard<()>) {
        if self.met.lock().is_some() {
            return;
        }
        let (disk, dir) = (env.disk.clone(), self.dir.clone());
        let permit = self.gate.0.clone().try_acquire_owned();
        let read = move || {
            let read = read(&*disk, &dir);
            drop(permit);
            read
        };
        match env.run_blocking(read).await {
            Ok(Ok(met)) => *self.met.lock() = Some(met),
            Ok(Err(error)) => {
                tracing::error!(dir = %self.dir.display(), %error, "the record of members' lives cannot be read: nobody is met until it can");
            }
            Err(_) => {}
        }
    }
}

fn write(disk: &dyn Disk, dir: &Path, met: &Met) -> io::Result<()> {
    let bytes = checked_json::encode(met).map_err(io::Error::other)?;
    whole_file::write(disk, &dir.join(FILE), &bytes)?;
    // Only where the file is damaged does the copy count, and without it the record is what it was.
    if let Err(error) = whole_file::write(disk, &dir.join(COPY), &bytes) {
        tracing::warn!(dir = %dir.display(), %error, "the copy of the record of members' lives cannot be written");
    }
    Ok(())
}

fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Met> {
    let mut is_damaged = false;
    for name in [FILE, COPY] {
        let path = dir.join(name);
        // A read that fails once says nothing of the file.
        let bytes =
            whole_file::read(disk, &path, FILE_BYTES_MAX).or_else(|_| whole_file::read(disk, &path, FILE_BYTES_MAX))?;
        let Some(bytes) = bytes else {
            continue;
        };
        match decode(&bytes) {
            Ok(met) => return Ok(met),
            Err(why) => {
                is_damaged = true;
                tracing::error!(path = %path.display(), why, "a record of members' lives is damaged: set aside");
                disk.rename(&path, &dir.join(format!("quarantine-{name}")))?;
            }
        }
    }
    if is_damaged {
        tracing::error!(dir = %dir.display(), "the record of members' lives begins anew");
    }
    Ok(Met::new())
}

fn decode(bytes: &[u8]) -> Result<Met, String> {
    let object = checked_json::checked(bytes).map_err(|error| error.to_string())?;
    serde_json::from_slice(&object).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::store::memory_disk::MemoryDisk;

    const PEER: NodeId = NodeId(7);

    async fn open(disk: &MemoryDisk) -> (LivesFile, Env) {
        let env = Env {
            disk: disk.as_disk(),
            ..crate::os::env()
        };
        env.disk.create_dir_all(Path::new("/data")).unwrap();
        let file = LivesFile::open(&env, PathBuf::from("/data"), JobGate::default()).await;
        (file, env)
    }

    async fn meet(disk: &MemoryDisk, starts: u64) -> Response {
        let (file, env) = open(disk).await;
        let life = Life {
            starts,
            origin: 100 + starts,
        };
        file.meet(&env, PEER, life, |_| false).await
    }

    fn is_older(response: &Response) -> bool {
        matches!(response, Response::OlderCopy { starts: 5 })
    }

    #[tokio::test]
    async fn a_read_that_fails_once_forgets_no_life() {
        let disk = MemoryDisk::new();
        assert!(matches!(meet(&disk, 5).await, Response::Done));
        disk.faults().fail_read_once.store(1, Ordering::Relaxed);
        let older = meet(&disk, 4).await;
        assert!(is_older(&older), "{older:?}");
    }

    #[tokio::test]
    async fn nobody_is_met_while_the_record_cannot_be_read() {
        let disk = MemoryDisk::new();
        assert!(matches!(meet(&disk, 5).await, Response::Done));
        disk.faults().fail_read.store(true, Ordering::Relaxed);
        let (file, env) = open(&disk).await;
        let life = |starts| Life {
            starts,
            origin: 100 + starts,
        };
        for starts in [4, 6] {
            let refused = file.meet(&env, PEER, life(starts), |_| false).await;
            assert!(matches!(refused, Response::Failed(WireError::Disk(_))), "{refused:?}");
        }
        disk.faults().fail_read.store(false, Ordering::Relaxed);
        let older = file.meet(&env, PEER, life(4), |_| false).await;
        assert!(is_older(&older), "{older:?}");
    }

    #[tokio::test]
    async fn the_copy_goes_on_for_a_damaged_record() {
        let disk = MemoryDisk::new();
        assert!(matches!(meet(&disk, 5).await, Response::Done));
        let path = Path::new("/data/lives.json");
        let text = String::from_utf8(disk.content(path).unwrap()).unwrap();
        for damaged in ["{", &text.replace("\"starts\":5", "\"starts\":4")] {
            disk.put(path, damaged.as_bytes().to_vec());
            let older = meet(&disk, 4).await;
            assert!(is_older(&older), "{older:?}");
            assert_eq!(
                disk.content(Path::new("/data/quarantine-lives.json")).unwrap(),
                damaged.as_bytes()
            );
        }
    }

    #[tokio::test]
    async fn a_record_of_an_earlier_version_is_read() {
        let disk = MemoryDisk::new();
        let name = PEER.to_string();
        open(&disk).await;
        let text = format!("{{\"{name}\":{{\"starts\":5,\"origin\":105}}}}");
        disk.put(Path::new("/data/lives.json"), text.into_bytes());
        assert!(is_older(&meet(&disk, 4).await));
        assert!(matches!(meet(&disk, 5).await, Response::Done));
    }

    #[tokio::test]
    async fn of_who_is_gone_nothing_is_kept() {
        let disk = MemoryDisk::new();
        assert!(matches!(meet(&disk, 5).await, Response::Done));
        let (file, env) = open(&disk).await;
        let life = Life { starts: 1, origin: 1 };
        assert!(matches!(
            file.meet(&env, NodeId(8), life, |node| node == PEER).await,
            Response::Done
        ));
        assert_eq!((file.starts_of(PEER), file.starts_of(NodeId(8))), (0, 1));
    }
}
