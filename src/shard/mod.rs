//! One shard: a contiguous run of slots, and the only owner of that run's files.
//!
//! A synchronous state machine. It never touches the disk inside a call that changes it: blocking work is handed out as jobs
//! (`CommitJob`, `SpaceJob`, `MergeJob`, `CleanupJob`), run wherever blocking is allowed, and their results are handed back. What a
//! job depended on is checked again when its result arrives.
//!
//! What changes together is kept together, in a part whose fields only its own file sees, and whose invariants stand there:
//!
//! | part | what it keeps |
//! | --- | --- |
//! | `naming` | what the next op is called: origin, sequence, time |
//! | `dots` | which ops are held, known to be dropped, or lost |
//! | `replica` | what is known of the other replicas (`Others`) |
//! | `logs` | the logs that are not sealed, their memtables, and the groups of ops in them |
//! | `space` | what is wanted of log space (`SpaceWanted`) |
//! | `segments` | the segments, and which of them are damaged |
//! | `files` | the numbers of files, and those files that are not needed any more |
//! | `merges` | merges and seals that are under way, and whose turn it is |
//! | `reclaim` | clears that may free space (`Clears`) |
//! | `full_disk` | what is known of the space on the disk (`DiskSpace`) |
//! | `open_parts` | how long the values are that are being assembled |
//! | `published` | what readers see |
//!
//! The other files are what the shard does with its parts:
//!
//! | file | what it does |
//! | --- | --- |
//! | `write`, `requests`, `commit` | from a request to a record in the open group; request ids that were taken; the group commit |
//! | `upkeep`, `picking`, `merge_job` | sealing and merging: when, of what, and the job that does it |
//! | `damage`, `cleanup` | what damage takes with it; removing files that are not needed any more |
//! | `settle` | runs all jobs on the spot, for tools and tests |
//!
//! Invariants of the whole:
//! - an op is visible to readers exactly when it is durable;
//! - after a failed commit nothing more is written: the shard must be reopened from what is on disk (guarantee G10).

mod cleanup;
mod commit;
mod damage;
mod dots;
mod files;
mod full_disk;
mod logs;
mod merge_job;
mod merges;
mod naming;
mod open_parts;
mod picking;
mod published;
mod reclaim;
mod replica;
mod requests;
mod segments;
mod settle;
mod space;
mod upkeep;
mod write;

use crate::core::stamp::OriginId;
use crate::store::recover::{self, RecoverError, Recovered};
use crate::store::segment::Segment;
use crate::types::WallMs;

use dots::Dots;
use files::Files;
use full_disk::DiskSpace;
use logs::Logs;
use merges::Merges;
use naming::Naming;
use open_parts::OpenParts;
use published::Published;
use reclaim::Clears;
use replica::Others;
use segments::Segments;
use space::SpaceWanted;

pub use crate::store::compact::MergeError;
pub use crate::store::recover::Place;
pub use cleanup::{CleanedUp, CleanupJob};
pub use commit::CommitJob;
pub use merge_job::{MergeEnd, MergeJob, MergeOutcome};
pub use published::{Damaged, ShardReader};
pub use replica::Applied;
pub use requests::RequestHeld;
pub use space::{SpaceFailed, SpaceJob, SpaceReady};
pub use write::{GroupNumber, PastLookup, Submitted, Write, WriteContext, WriteKind, WriteRefused};

/// How a shard uses memory and disk.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Size at which the active segment's log gives way to the next, bytes. One record may exceed it.
    pub log_bytes: u64,
    /// How far ahead of its end a new log is filled with zeroes, bytes.
    pub fill_bytes: u64,
    /// Memtables that may wait to be sealed before writes have to wait too.
    pub frozen_max: usize,
    /// Segments of about one size that are merged into one.
    pub fan_out: usize,
    /// Largest value that may be assembled from parts, bytes.
    pub value_bytes_max: u64,
    /// Without writes for so long, a shard tidies up, milliseconds.
    pub idle_ms: u64,
    /// The shard's ops have other replicas: a clear is kept until it is told that all of them know it (`Shard::set_stable`).
    pub replicated: bool,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            log_bytes: 8 << 20,
            fill_bytes: 1 << 20,
            frozen_max: 2,
            fan_out: 4,
            value_bytes_max: crate::types::VALUE_BYTES_MAX,
            idle_ms: 20_000,
            replicated: false,
        }
    }
}

/// What opening a shard found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    pub torn_logs: u64,
    pub damage: Vec<String>,
    pub recovered_ops: u64,
}

impl OpenReport {
    fn of(found: &Recovered) -> Self {
        let ops = found.logs.iter().map(|log| log.memtable.read().op_count() as u64);
        Self {
            torn_logs: found.torn_logs,
            damage: found.damage.clone(),
            recovered_ops: ops.sum(),
        }
    }
}

/// Figures for metrics; each in the unit its name says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardStats {
    pub segments: u64,
    pub segment_bytes: u64,
    pub segment_memory_bytes: u64,
    pub sealed_ops: u64,
    pub sealed_keys: u64,
    pub memtable_ops: u64,
    pub frozen_memtables: u64,
    pub commits: u64,
    pub merges: u64,
    pub merge_errors: u64,
    pub lost_ops: u64,
    pub damaged_slots: u64,
    pub quarantined_files: u64,
    pub disk_full: bool,
}

/// One shard. Its state is kept in parts: see the table above.
pub struct Shard {
    place: Place,
    config: ShardConfig,
    naming: Naming,
    dots: Dots,
    others: Others,
    logs: Logs,
    /// Requests for log space.
    space: SpaceWanted,
    segments: Segments,
    files: Files,
    merges: Merges,
    clears: Clears,
    disk: DiskSpace,
    open_parts: OpenParts,
    published: Published,
    stats: ShardStats,
    /// The last write; before the first one, when the shard was first looked at. A start is no sign that nobody writes.
    last_write: Option<WallMs>,
    failed: Option<String>,
}

impl Shard {
    /// Opens the shard's folder, creating it when it is not there. Blocks on the disk.
    ///
    /// When the report names damage, sequences of `origin` may have been lost: the caller must give the shard a new origin
    /// (`set_origin`) before it takes a write.
    pub fn open(place: Place, config: ShardConfig, origin: OriginId) -> Result<(Self, OpenReport), RecoverError> {
        let found = recover::recover(&place)?;
        let report = OpenReport::of(&found);
        let secret = found.secret.unwrap_or(place.new_secret);
        let mut shard = Self {
            files: Files::found(&found),
            naming: Naming::found(origin, found.closed, &place.slots, found.max_time),
            dots: Dots::found(found.covered, found.lost),
            others: Others::new(config.replicated),
            logs: Logs::found(found.logs, secret, found.secret_stored),
            space: SpaceWanted::default(),
            segments: Segments::found(found.segments),
            merges: Merges::due(),
            clears: Clears::default(),
            disk: DiskSpace::found(found.reserved),
            open_parts: OpenParts::new(place.names()),
            published: Published::default(),
            stats: ShardStats::default(),
            last_write: None,
            failed: None,
            place,
            config,
        };
        shard.publish();
        shard.publish_clock();
        shard.set_origin(origin);
        shard.note_recovered_clears();
        Ok((shard, report))
    }

    /// From here on, ops are named by this origin. To be called before anything comes from other replicas: what is here of former origins is
    /// what they held when they ended. Blocks on the disk.
    pub fn set_origin(&mut self, origin: OriginId) {
        self.naming.set_origin(origin, &self.dots, &self.place);
    }

    /// Why the shard must be reopened, once it must.
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    fn fail(&mut self, why: String) {
        tracing::error!(shard = self.place.shard, %why, "the shard stops");
        self.failed.get_or_insert(why);
    }

    pub fn stats(&self) -> ShardStats {
        let ops = self.logs.memtables().map(|memtable| memtable.read().op_count() as u64);
        ShardStats {
            segments: self.segments.count() as u64,
            segment_bytes: self.segments.sum(Segment::file_bytes),
            segment_memory_bytes: self.segments.sum(|segment| segment.memory_bytes() as u64),
            sealed_ops: self.segments.sum(|segment| segment.stats().ops),
            sealed_keys: self.segments.sum(|segment| segment.stats().keys),
            memtable_ops: ops.sum(),
            frozen_memtables: self.logs.frozen_count() as u64,
            lost_ops: self.dots.lost().count(),
            damaged_slots: self.dots.lost().slots().count() as u64,
            disk_full: self.disk.is_full(),
            ..self.stats.clone()
        }
    }
}

#[cfg(test)]
mod tests;
