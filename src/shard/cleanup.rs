//! Removing files that are not needed any more, or setting them aside because they are damaged. `files` knows which they are; what fails is
//! tried again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Shard;
use crate::store::disk::{Disk, sync_dir_anew};
use crate::store::segment::Segment;
use crate::store::{log, recover, segment};

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
    /// Dropped by the job: dropping the last handle of a segment looks for each of its blocks in the cache, and frees the space of its
    /// file.
    merged: Vec<Arc<Segment>>,
}

/// What a cleanup achieved.
#[derive(Debug, Default)]
pub struct CleanedUp {
    /// The numbers of the files that are durably gone.
    pub(super) gone: Vec<u64>,
    /// Those of them whose removal may not be durable, now or later.
    pub(super) doubted: Vec<u64>,
    quarantined: u64,
    /// To be tried again.
    pub(super) failed: Vec<Cleanup>,
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
    /// Files to remove or set aside, if there are any.
    pub fn next_cleanup(&mut self) -> Option<CleanupJob> {
        let tasks = self.files.begin_cleanup()?;
        Some(CleanupJob {
            disk: self.place.disk.clone(),
            dir: self.place.dir.clone(),
            tasks,
            merged: self.segments.take_merged(),
        })
    }

    /// Takes the result of a cleanup.
    pub fn cleaned_up(&mut self, cleaned: CleanedUp) {
        self.stats.quarantined_files += cleaned.quarantined;
        self.files.cleaned_up(cleaned);
    }
}
