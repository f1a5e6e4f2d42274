//! Log space: zeroes written ahead, and the files of sealed logs used again for new ones.
//!
//! A log is written into space that was filled with zeroes and synced before (measured: about twice as many syncs a second as
//! extending the file), and a sealed log's file is used again. A write is accepted only into filled space, so a full disk is met
//! before an op has a place in the log, never in the middle of a commit.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Shard;
use super::full_disk::RESERVE_BYTES;
use super::write::WriteRefused;
use crate::store::disk::{Disk, DiskFile, OpenMode, is_full, sync_dir_anew};
use crate::store::log::{self, LogSecret};
use crate::store::recover;

/// Space at the end of the filled part that only clears may use, so that a full disk can still be emptied: about 500 of them.
pub(super) const CLEAR_RESERVE_BYTES: u64 = 64 * 1024;
/// What the kernel writes at once.
const PAGE_BYTES: u64 = 4096;
/// Zeroes are written in pieces of this size, bytes.
const ZEROES_BYTES: usize = 256 * 1024;

/// A log's file.
#[derive(Clone)]
pub struct LogFile {
    pub(super) number: u64,
    pub(super) file: Arc<dyn DiskFile>,
    /// Up to here the file's space is allocated and synced, bytes.
    pub(super) filled: u64,
}

/// Makes room in a log.
pub struct SpaceJob {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// To be made durable before a log that it seals is used.
    secret: Option<LogSecret>,
    task: SpaceTask,
}

pub(super) enum SpaceTask {
    /// Fill the log further.
    Fill { log: LogFile, to: u64 },
    /// Make a log ready, from a spare if there is one.
    Prepare { number: u64, spare: Option<u64>, to: u64 },
    /// Take space that is let go when the disk is full, so that compaction can free more.
    Reserve,
    /// See how much space there is.
    Probe,
}

/// See `sync_dir_anew`.
const SYNC_MARK: &str = "space.tmp";

/// What a space job made.
pub enum SpaceReady {
    Filled(LogFile),
    Prepared { log: LogFile, spare: Option<u64> },
    Reserved,
    Free(u64),
}

/// Why a space job made nothing.
pub struct SpaceFailed {
    error: io::Error,
    /// Logs that nobody needs, if they are there.
    left: Vec<u64>,
}

impl From<io::Error> for SpaceFailed {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            left: Vec::new(),
        }
    }
}

impl SpaceJob {
    /// Blocks on the disk.
    pub fn run(self) -> Result<SpaceReady, SpaceFailed> {
        match self.task {
            SpaceTask::Fill { mut log, to } => {
                // Through a handle of its own: the kernel tells each handle once that writing back failed. What befell a group that
                // is being committed must be told to the commit, and not be used up here.
                let path = self.dir.join(log::file_name(log.number));
                let file = self.disk.open(&path, OpenMode::ReadWrite)?;
                fill(&*file, log.filled, to)?;
                log.filled = to;
                Ok(SpaceReady::Filled(log))
            }
            SpaceTask::Prepare { number, spare, to } => match self.prepare(number, spare, to) {
                Ok(log) => Ok(SpaceReady::Prepared { log, spare }),
                Err(error) => Err(SpaceFailed {
                    error,
                    // It has one name or the other.
                    left: spare.into_iter().flat_map(|spare| [spare, number]).collect(),
                }),
            },
            SpaceTask::Reserve => {
                self.reserve()?;
                Ok(SpaceReady::Reserved)
            }
            SpaceTask::Probe => Ok(SpaceReady::Free(self.disk.free_bytes(&self.dir)?)),
        }
    }

    fn reserve(&self) -> io::Result<()> {
        let path = self.dir.join(recover::RESERVE_NAME);
        let file = match self.disk.open(&path, OpenMode::CreateNew) {
            // It could not be removed when it was to be let go, or is of a former life, which may have ended before it was filled.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&path, OpenMode::ReadWrite)?,
            created => created?,
        };
        let made = file.len().and_then(|len| fill(&*file, len, RESERVE_BYTES));
        if made.is_err() {
            let _ = self.disk.remove_file(&path);
        }
        made
    }

    fn prepare(&self, number: u64, spare: Option<u64>, to: u64) -> io::Result<LogFile> {
        if let Some(secret) = self.secret {
            log::store_secret(&*self.disk, &self.dir, secret)?;
        }
        let path = self.dir.join(log::file_name(number));
        let file = match spare {
            Some(spare) => {
                self.disk.rename(&self.dir.join(log::file_name(spare)), &path)?;
                self.disk.open(&path, OpenMode::ReadWrite)?
            }
            None => self.disk.open(&path, OpenMode::CreateNew)?,
        };
        let filled = file.len()?;
        // A file that is used again may be longer than what is durable of it: whoever filled it was killed, or its sync failed. A page at its end that
        // is written again makes its length durable; without that, a crash could leave a record that ends behind the end of the file.
        let made = fill(&*file, filled.saturating_sub(PAGE_BYTES), filled.max(to))
            // While it was filled, another job's sync of the folder may have failed, and dropped the new name.
            .and_then(|()| sync_dir_anew(&*self.disk, &self.dir, SYNC_MARK));
        if let Err(error) = made {
            // Half a log would only take up the space that is missing.
            if spare.is_none() {
                let _ = self.disk.remove_file(&path);
            }
            return Err(error);
        }
        Ok(LogFile {
            number,
            file: file.into(),
            filled: filled.max(to),
        })
    }
}

fn fill(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    if from >= to {
        return Ok(());
    }
    let zeroes = vec![0; ZEROES_BYTES];
    let mut at = from;
    while at < to {
        let count = (to - at).min(ZEROES_BYTES as u64);
        file.write_all_at(&zeroes[..count as usize], at)?;
        at += count;
    }
    file.sync_data()
}

/// What is wanted of log space.
#[derive(Default)]
pub(super) struct SpaceWanted {
    job_under_way: bool,
    /// That a waiting write needs in the log, until a job has ended.
    bytes: u64,
    /// The active memtable is to be sealed although its log is not used up.
    takeover: bool,
}

impl SpaceWanted {
    pub fn want_takeover(&mut self) {
        self.takeover = true;
    }

    pub fn is_takeover_wanted(&self) -> bool {
        self.takeover
    }

    fn want(&mut self, bytes: u64) {
        self.bytes = self.bytes.max(bytes);
    }

    /// Whoever waits comes back, and says again what is needed.
    fn job_ended(&mut self) {
        self.job_under_way = false;
        self.bytes = 0;
    }
}

impl Shard {
    /// Makes sure that `bytes` more fit into the active log; false if a job has to make room first.
    pub(super) fn make_room(&mut self, bytes: u64, clear: bool) -> Result<bool, WriteRefused> {
        let reserve = if clear { 0 } else { CLEAR_RESERVE_BYTES };
        for _ in 0..2 {
            if let Some(active) = self.logs.active()
                && active.has_room(bytes + reserve)
                && (clear || !self.disk.is_full())
            {
                return Ok(true);
            }
            if self.disk.is_full() {
                if clear && self.take_over() {
                    continue;
                }
                return Err(WriteRefused::DiskFull);
            }
            if !self.needs_next_log(bytes) || !self.take_over() {
                break;
            }
        }
        self.space.want(bytes);
        Ok(false)
    }

    /// Whether so many bytes more would make the active log larger than its size. Only a record that is larger than a whole log
    /// does that, and it gets a log of its own.
    fn needs_next_log(&self, bytes: u64) -> bool {
        self.logs.active().is_none_or(|active| {
            let memtable = active.memtable().read();
            let end = memtable.end() + bytes + CLEAR_RESERVE_BYTES;
            end > self.config.log_bytes.max(active.file().filled) && !memtable.is_empty()
        })
    }

    /// Whether as many memtables wait to be sealed as may. On a full disk, where nothing but clears is taken and logs are small, one more may;
    /// and where there is no active one, as after a restart, none is added to those that wait.
    fn seals_are_behind(&self) -> bool {
        let (max, frozen) = (self.config.frozen_max, self.logs.frozen_count());
        match self.disk.is_full() {
            true => self.logs.active().is_some() && frozen > max,
            false => frozen >= max,
        }
    }

    /// Freezes the active memtable and starts the prepared log; false if that cannot be now.
    pub(super) fn take_over(&mut self) -> bool {
        let freezes = self.logs.active().is_some();
        if self.seals_are_behind() || !self.logs.give_way(&self.place) {
            return false;
        }
        if freezes {
            self.merges.make_due();
        }
        self.publish();
        true
    }

    /// Seals a log that is not used up, where that is wanted and can be.
    pub(super) fn take_over_if_wanted(&mut self) {
        if self.space.takeover && self.take_over() {
            self.space.takeover = false;
        }
    }

    /// Work that makes room for writes, if there is any to do now.
    pub fn next_space_job(&mut self) -> Option<SpaceJob> {
        if self.space.job_under_way || self.failed.is_some() {
            return None;
        }
        let task = self.space_task()?;
        self.space.job_under_way = true;
        Some(SpaceJob {
            disk: self.place.disk.clone(),
            dir: self.place.dir.clone(),
            secret: self.logs.unstored_secret(),
            task,
        })
    }

    fn space_task(&mut self) -> Option<SpaceTask> {
        if self.disk.is_full() {
            return self.task_on_full_disk();
        }
        if self.disk.take_probe() {
            return Some(SpaceTask::Probe);
        }
        let wanted = self.space.bytes + CLEAR_RESERVE_BYTES;
        let Some(active) = self.logs.active() else {
            return self.prepare_task(wanted);
        };
        let (end, size, filled) = (active.end(), self.config.log_bytes, active.file().filled);
        let fill = |to| {
            let log = active.file().clone();
            Some(SpaceTask::Fill { log, to })
        };
        let next = (filled + self.config.fill_bytes).min(size);
        let waits = self.space.bytes > 0;
        if waits && end + wanted > filled && !self.needs_next_log(self.space.bytes) {
            return fill((end + wanted).max(next));
        }
        if filled < size && end + self.config.fill_bytes / 2 > filled {
            return fill(next);
        }
        let soon_used_up = filled >= size && end * 2 > size;
        let next_log = (soon_used_up || waits || self.space.takeover)
            .then(|| self.prepare_task(wanted))
            .flatten();
        next_log.or_else(|| self.reserve_task())
    }

    fn prepare_task(&mut self, wanted: u64) -> Option<SpaceTask> {
        if self.logs.has_next() {
            return None;
        }
        let usual = self.config.fill_bytes.min(self.config.log_bytes);
        Some(self.next_log(usual.max(log::HEADER_BYTES as u64 + wanted)))
    }

    /// A log with the next number, filled up `to` there.
    pub(super) fn next_log(&mut self, to: u64) -> SpaceTask {
        SpaceTask::Prepare {
            number: self.files.next_number(),
            spare: self.files.take_spare(),
            to,
        }
    }

    /// Takes the result of a space job.
    pub fn space_made(&mut self, result: Result<SpaceReady, SpaceFailed>) {
        match result {
            Ok(SpaceReady::Filled(log)) => self.logs.filled(&log),
            Ok(SpaceReady::Prepared { log, spare }) => {
                if let Some(spare) = spare {
                    self.files.spare_used(spare);
                }
                self.logs.prepared(log);
                if self.logs.active().is_none() {
                    self.take_over();
                }
            }
            Ok(SpaceReady::Reserved) => self.reserve_made(),
            Ok(SpaceReady::Free(bytes)) => self.space_probed(bytes),
            Err(SpaceFailed { error, left }) if is_full(&error) => {
                self.files.remove_logs(left);
                self.space_missing("log");
            }
            Err(SpaceFailed { error, .. }) => self.fail(format!("log space could not be made: {error}")),
        }
        self.space.job_ended();
    }
}
