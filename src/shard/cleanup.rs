//! Files that are not needed any more: used again, removed, or set aside because they are damaged.
//!
//! Invariant: a file whose content lives on elsewhere is named as replaced by every new segment until its removal is durable. What cannot be
//! removed is tried again. What was removed when a sync failed stays named as long as the shard is open: a later sync that succeeds proves
//! little, and the name may come back with the next loss of power.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Shard;
use crate::store::disk::{Disk, sync_dir_anew};
use crate::store::segment::Segment;
use crate::store::{log, recover, segment};

/// Sealed logs kept for use again; more are removed.
const SPARES_MAX: usize = 2;

/// See `sync_dir_anew`.
const SYNC_MARK: &str = "cleanup.tmp";

/// What is to happen to a file that is not needed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cleanup {
    RemoveLog(u64),
    RemoveSegment(u64),
    QuarantineLog(u64),
    QuarantineSegment(u64),
    RemoveReserve,
}

/// Removes or sets aside files, durably.
pub struct CleanupJob {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    tasks: Vec<Cleanup>,
    /// Let go here: with the last of those who hold a segment, each of its blocks is looked for in the cache, and its file's space comes free.
    merged: Vec<Arc<Segment>>,
}

/// What a cleanup achieved.
#[derive(Debug, Default)]
pub struct CleanedUp {
    /// The numbers of the files that are durably gone.
    gone: Vec<u64>,
    /// Of those that are gone, not durably for all that is known, now or later.
    doubted: Vec<u64>,
    quarantined: u64,
    /// To be tried again.
    failed: Vec<Cleanup>,
}

impl CleanupJob {
    /// Blocks on the disk.
    pub fn run(self) -> CleanedUp {
        let mut cleaned = CleanedUp::default();
        for task in &self.tasks {
            let (number, name, keep) = match *task {
                Cleanup::RemoveLog(number) => (number, log::file_name(number), false),
                Cleanup::RemoveSegment(number) => (number, segment::file_name(number), false),
                Cleanup::QuarantineLog(number) => (number, log::file_name(number), true),
                Cleanup::QuarantineSegment(number) => (number, segment::file_name(number), true),
                Cleanup::RemoveReserve => (0, recover::RESERVE_NAME.to_owned(), false),
            };
            let path = self.dir.join(&name);
            let done = if keep {
                self.disk.rename(&path, &recover::quarantine_path(&self.dir, &name))
            } else {
                self.disk.remove_file(&path)
            };
            match done {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a file that is not needed any more");
                    cleaned.failed.push(task.clone());
                }
                done => {
                    cleaned.quarantined += u64::from(keep && done.is_ok());
                    cleaned.gone.push(number);
                }
            }
        }
        // Until the directory is synced, a crash may bring any of these names back. A sync that failed, this job's or another's since the removal,
        // may have dropped them as well.
        if let Err(error) = sync_dir_anew(&*self.disk, &self.dir, SYNC_MARK) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot sync the directory");
            cleaned.doubted = std::mem::take(&mut cleaned.gone);
            cleaned.failed = self.tasks;
        }
        drop(self.merged);
        cleaned
    }
}

impl Shard {
    /// Keeps a sealed log for use again, or lets it go.
    pub(super) fn retire_log(&mut self, number: u64, damaged: bool) {
        self.obsolete.insert(number);
        if damaged {
            self.cleanup.push(Cleanup::QuarantineLog(number));
        } else if self.spares.len() < SPARES_MAX && !self.disk_full {
            self.spares.push(number);
        } else {
            self.cleanup.push(Cleanup::RemoveLog(number));
        }
    }

    /// Files to remove or set aside, if there are any.
    pub fn next_cleanup(&mut self) -> Option<CleanupJob> {
        if self.cleanup_under_way || self.cleanup.is_empty() {
            return None;
        }
        self.cleanup_under_way = true;
        Some(CleanupJob {
            disk: self.place.disk.clone(),
            dir: self.place.dir.clone(),
            tasks: std::mem::take(&mut self.cleanup),
            merged: std::mem::take(&mut self.merged),
        })
    }

    /// Takes the result of a cleanup.
    pub fn cleaned_up(&mut self, cleaned: CleanedUp) {
        self.cleanup_under_way = false;
        self.stats.quarantined_files += cleaned.quarantined;
        self.doubted.extend(cleaned.doubted);
        for number in cleaned.gone {
            if !self.doubted.contains(&number) {
                self.obsolete.remove(&number);
            }
        }
        // Not before the next tick: what failed now would fail at once again.
        self.cleanup_failed.extend(cleaned.failed);
    }

    pub(super) fn clean_up_again(&mut self) {
        let mut failed = std::mem::take(&mut self.cleanup_failed);
        // With space on the disk again, the reserve is to stay where it is.
        failed.retain(|task| *task != Cleanup::RemoveReserve || self.disk_full);
        self.cleanup.append(&mut failed);
    }
}
