//! One shard: a contiguous run of slots, and the only owner of that run's files.
//!
//! A synchronous state machine. It never touches the disk inside a call that changes it: blocking work is handed out as jobs
//! (`CommitJob`, `SpaceJob`, `MergeJob`, `CleanupJob`), run wherever blocking is allowed, and their results are handed back. What a
//! job depended on is checked again when its result arrives.
//!
//! Invariants:
//! - at most one commit is under way; a group is written only after the one before it is durable;
//! - a log gives way to the next only when all its groups are durable;
//! - an op is visible to readers exactly when it is durable;
//! - after a failed commit nothing more is written: the shard must be opened anew from what is on disk (guarantee G10).

mod cleanup;
mod commit;
mod damage;
mod full_disk;
mod open_parts;
mod picking;
mod published;
mod reclaim;
mod replica;
mod requests;
mod settle;
mod space;
mod upkeep;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::core::clock::SlotClocks;
use crate::core::op::Dot;
use crate::core::slot::SlotId;
use crate::core::stamp::{HybridClock, OriginId};
use crate::store::log::LogSecret;
use crate::store::memtable::SharedMemtable;
use crate::store::recover::{self, ClosedOrigins, RecoverError};
use crate::store::segment::Segment;
use crate::types::WallMs;

use cleanup::Cleanup;
use published::Published;

pub use crate::store::compact::MergeError;
pub use crate::store::recover::Place;
pub use cleanup::{CleanedUp, CleanupJob};
pub use commit::CommitJob;
pub use published::{Damaged, ShardReader};
pub use replica::Applied;
pub use requests::RequestHeld;
pub use space::{SpaceFailed, SpaceJob, SpaceReady};
pub use upkeep::{MergeEnd, MergeJob, MergeOutcome};
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

/// The log that is being written, and its memtable.
struct Active {
    memtable: SharedMemtable,
    file: space::LogFile,
    /// Number of the memtable's first group.
    first_group: u64,
    /// Not written yet: goes out with the first group.
    header: Option<[u8; crate::store::log::HEADER_BYTES]>,
}

/// A memtable that waits to be sealed; everything in it is durable in its log.
#[derive(Clone)]
struct Frozen {
    memtable: SharedMemtable,
    /// Its log holds damage and is to be kept aside.
    damaged: bool,
}

/// What opening a shard found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    pub torn_logs: u64,
    pub damage: Vec<String>,
    pub recovered_ops: u64,
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

pub struct Shard {
    place: Place,
    config: ShardConfig,
    origin: OriginId,
    closed: ClosedOrigins,
    clock: HybridClock,
    /// The next sequence of this origin, per slot of the run.
    next_seq: Vec<u64>,
    /// Dots held or known to be dropped, those that are not durable yet too.
    covered: SlotClocks,
    /// Of these, the ones that are dropped and that no file here says so of.
    dropped: SlotClocks,
    /// A file is to say so of the dropped ones as soon as possible, and not only when nobody writes.
    notes_soon: bool,
    /// Dots of the open group, and of the one that is being committed.
    open_dots: Vec<Dot>,
    closed_dots: Vec<Dot>,
    /// What every other replica's clock covers; absent where there is none.
    stable: Option<SlotClocks>,
    heard: Option<WallMs>,
    /// When the last merge of all segments began.
    merged_all_at: WallMs,
    /// Dots that were on this disk and are no more.
    lost: SlotClocks,
    active: Option<Active>,
    frozen: VecDeque<Frozen>,
    segments: Vec<Arc<Segment>>,
    /// Segments that were merged away, for a job to let go.
    merged: Vec<Arc<Segment>>,
    /// Of the logs, and whether it is durable in its file.
    secret: LogSecret,
    secret_stored: bool,
    /// The next log, ready to be used.
    prepared: Option<space::LogFile>,
    /// Logs whose content is sealed; their space is used again.
    spares: Vec<u64>,
    /// Files whose content lives on elsewhere, until their removal is durable.
    obsolete: BTreeSet<u64>,
    /// Of these, the ones that stay there: a sync of their removal failed.
    doubted: BTreeSet<u64>,
    /// Files to remove or set aside.
    cleanup: Vec<Cleanup>,
    /// Those of which this failed: tried again at the next tick.
    cleanup_failed: Vec<Cleanup>,
    next_number: u64,
    /// Groups handed out so far, and how many of them are durable.
    groups: u64,
    durable_groups: u64,
    commit_under_way: Option<u64>,
    space_under_way: bool,
    merge_under_way: Option<upkeep::Running>,
    seal_under_way: Option<upkeep::Running>,
    cleanup_under_way: bool,
    /// Bytes that a waiting write needs in the log.
    wanted_bytes: u64,
    open_parts: open_parts::OpenParts,
    /// Segments in which a read met damage.
    damaged_segments: BTreeSet<u64>,
    disk_full: bool,
    /// The disk was full, or too full for a merge, and it is time to look again.
    probe_due: bool,
    /// The disk was full, and it is time to try for room for clears.
    clear_room_due: bool,
    /// A seal found the disk full: other merges, which may free space, have their turn first.
    seal_waits: bool,
    /// Something changed since it was last found that there is nothing to merge.
    upkeep_due: bool,
    /// A merge may be tried although the disk is full.
    merge_due: bool,
    /// The disk has not the space for this merge.
    merge_too_large: Option<picking::TooLarge>,
    /// A merge failed: not before the next tick.
    merge_paused: bool,
    /// The active memtable is to be sealed although its log is not used up.
    wanted_takeover: bool,
    reserve: full_disk::Reserve,
    failed: Option<String>,
    last_write: WallMs,
    clears_since_merge: u64,
    /// What they are estimated to free.
    cleared: reclaim::Cleared,
    /// Clears that the last merge of all segments had to keep, by slot, as long as nothing that they wait for has come there.
    clears_left: BTreeMap<SlotId, u64>,
    /// What the clears saw that the last merge of all segments had to keep, and not every replica's clock covered then.
    awaited: SlotClocks,
    published: Published,
    stats: ShardStats,
}

impl Shard {
    /// Opens the shard's folder, creating it when it is not there. Blocks on the disk.
    ///
    /// When the report names damage, sequences of `origin` may have been lost: the caller must give the shard a new origin
    /// (`set_origin`) before it takes a write.
    pub fn open(place: Place, config: ShardConfig, origin: OriginId) -> Result<(Self, OpenReport), RecoverError> {
        let found = recover::recover(&place)?;
        let mut clock = HybridClock::default();
        clock.observe(found.max_time);
        let report = OpenReport {
            torn_logs: found.torn_logs,
            damage: found.damage,
            recovered_ops: found.logs.iter().map(|log| log.memtable.read().op_count() as u64).sum(),
        };
        let secret = found.secret.unwrap_or(place.new_secret);
        let removed = found.obsolete.iter().copied().map(Cleanup::RemoveSegment);
        let set_aside = found.set_aside.iter().copied().map(Cleanup::QuarantineSegment);
        let mut shard = Self {
            next_seq: vec![1; place.slots.len()],
            origin,
            closed: found.closed,
            clock,
            stable: config.replicated.then(SlotClocks::default),
            heard: None,
            merged_all_at: WallMs::default(),
            open_parts: open_parts::OpenParts::new(place.names()),
            place,
            config,
            covered: found.covered,
            dropped: SlotClocks::default(),
            notes_soon: false,
            open_dots: Vec::new(),
            closed_dots: Vec::new(),
            lost: found.lost,
            active: None,
            frozen: found
                .logs
                .into_iter()
                .map(|log| Frozen {
                    memtable: log.memtable,
                    damaged: log.damaged,
                })
                .collect(),
            segments: found.segments,
            merged: Vec::new(),
            secret,
            secret_stored: found.secret_stored,
            prepared: None,
            obsolete: [&found.obsolete, &found.set_aside, &found.spares]
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            doubted: BTreeSet::new(),
            spares: found.spares,
            cleanup: removed.chain(set_aside).collect(),
            cleanup_failed: Vec::new(),
            next_number: found.next_number,
            groups: 0,
            durable_groups: 0,
            commit_under_way: None,
            space_under_way: false,
            merge_under_way: None,
            seal_under_way: None,
            cleanup_under_way: false,
            wanted_bytes: 0,
            damaged_segments: BTreeSet::new(),
            disk_full: false,
            probe_due: false,
            clear_room_due: false,
            seal_waits: false,
            upkeep_due: true,
            merge_due: false,
            merge_too_large: None,
            merge_paused: false,
            wanted_takeover: false,
            reserve: full_disk::Reserve::found(found.reserved),
            failed: None,
            last_write: WallMs(0),
            clears_since_merge: 0,
            cleared: reclaim::Cleared::default(),
            clears_left: BTreeMap::new(),
            awaited: SlotClocks::default(),
            published: Published::default(),
            stats: ShardStats::default(),
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
        if let Some(own) = &self.place.own_origins {
            let mut own = own.as_ref().clone();
            own.insert(self.origin);
            let (disk, dir) = (&*self.place.disk, &self.place.dir);
            if let Err(error) = self.closed.close(&own, origin, &self.covered, disk, dir) {
                // Gaps that come from elsewhere will look like losses, until the other replicas were asked.
                tracing::warn!(shard = self.place.shard, %error, "it cannot be noted what former origins held");
            }
        }
        self.origin = origin;
        for (index, next) in self.next_seq.iter_mut().enumerate() {
            let slot = SlotId(self.place.slots.start + index as u16);
            let last = |clocks: &SlotClocks| clocks.get(slot).and_then(|clock| clock.get(origin)?.last());
            *next = last(&self.covered).max(last(&self.lost)).unwrap_or(0) + 1;
        }
    }

    /// Why the shard must be opened anew, once it must.
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    fn fail(&mut self, why: String) {
        tracing::error!(shard = self.place.shard, %why, "the shard stops");
        self.failed.get_or_insert(why);
    }

    pub fn stats(&self) -> ShardStats {
        let sealed = |figure: fn(&Segment) -> u64| self.segments.iter().map(|segment| figure(segment)).sum();
        let frozen_ops: usize = self.frozen.iter().map(|frozen| frozen.memtable.read().op_count()).sum();
        let active_ops = self
            .active
            .as_ref()
            .map_or(0, |active| active.memtable.read().op_count());
        ShardStats {
            segments: self.segments.len() as u64,
            segment_bytes: sealed(Segment::file_bytes),
            segment_memory_bytes: sealed(|segment| segment.memory_bytes() as u64),
            sealed_ops: sealed(|segment| segment.stats().ops),
            sealed_keys: sealed(|segment| segment.stats().keys),
            memtable_ops: (frozen_ops + active_ops) as u64,
            frozen_memtables: self.frozen.len() as u64,
            lost_ops: self.lost.count(),
            damaged_slots: self.lost.slots().count() as u64,
            disk_full: self.disk_full,
            ..self.stats.clone()
        }
    }

    fn slot_index(&self, slot: SlotId) -> usize {
        usize::from(slot.0 - self.place.slots.start)
    }

    /// Every memtable, oldest first.
    fn memtables(&self) -> impl DoubleEndedIterator<Item = &SharedMemtable> {
        let frozen = self.frozen.iter().map(|frozen| &frozen.memtable);
        frozen.chain(self.active.iter().map(|active| &active.memtable))
    }
}

#[cfg(test)]
mod tests;
