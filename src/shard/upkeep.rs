//! Upkeep: sealing memtables, merging segments, reclaiming the space of what was cleared, and setting damage aside.
//!
//! A merge may take minutes, and writes must not wait for it: while it is under way, memtables are sealed beside it. Neither sees the other's
//! result, and need not: the inputs of each are among what the other one asks before it lets go of a clear or a request id, the memtable as a
//! memtable, the segments as segments outside. Nothing merges what a seal is just making, and no merge begins during a seal.

use std::sync::Arc;

use super::cleanup::Cleanup;
use super::picking::TooLarge;
use super::reclaim::Cleared;
use super::{MergeError, Shard};
use crate::core::clock::SlotClocks;
use crate::store::compact::{Merge, MergeContext, Merged, Progress, Source, StepFailed};
use crate::store::memtable::SharedMemtable;
use crate::store::segment::{ReadError, Segment};
use crate::types::WallMs;

/// What a merge writes between two looks at the clients' needs, bytes.
const STEP_BYTES: u64 = 1 << 20;

/// What a merge, or a seal, under way is made of.
pub(super) struct Running {
    /// Of the segment that it writes.
    number: u64,
    /// The oldest frozen memtable is its input.
    seals: bool,
    /// The segments that are its inputs.
    segments: Vec<u64>,
    salvages: bool,
    /// Space that it was expected to take.
    bytes_needed: u64,
    /// All segments are its inputs.
    takes_all: bool,
    /// Clears that it was to apply, counted again if it fails.
    clears: u64,
    cleared: Cleared,
    /// What every other replica's clock covered when it began.
    stable: Option<SlotClocks>,
}

enum State {
    New(Vec<Source>, Box<MergeContext>),
    Under(Box<Merge>),
}

/// A merge, or a seal, done step by step.
pub struct MergeJob {
    state: State,
    number: u64,
    /// Writes wait for it, so it is not to be paced.
    pub urgent: bool,
}

/// What a step of a merge led to.
pub enum MergeOutcome {
    /// To be run again.
    More(MergeJob),
    Done(MergeEnd),
}

/// How a merge ended.
pub struct MergeEnd {
    /// Of the segment that it was to write: says which merge it was.
    pub number: u64,
    pub result: Result<Box<Merged>, MergeError>,
    /// Of its file, if it failed.
    written_bytes: u64,
}

impl MergeEnd {
    /// Of a merge that was given up, or whose job died.
    pub fn abandoned(number: u64) -> Self {
        Self {
            number,
            result: Err(MergeError::Abandoned),
            written_bytes: 0,
        }
    }
}

impl MergeJob {
    /// Of the segment that it writes.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Blocks on the disk for one step.
    pub fn run(self) -> MergeOutcome {
        let number = self.number;
        let merge = match self.state {
            State::New(sources, context) => Merge::start(sources, *context)
                .map(Box::new)
                .map_err(|error| StepFailed {
                    error,
                    written_bytes: 0,
                }),
            State::Under(merge) => Ok(merge),
        };
        let (result, written_bytes) = match merge.and_then(|merge| merge.step(STEP_BYTES)) {
            Ok(Progress::More(merge)) => {
                return MergeOutcome::More(Self {
                    state: State::Under(merge),
                    ..self
                });
            }
            Ok(Progress::Done(merged)) => (Ok(merged), 0),
            Err(failed) => (Err(failed.error), failed.written_bytes),
        };
        MergeOutcome::Done(MergeEnd {
            number,
            result,
            written_bytes,
        })
    }

    /// Gives it up.
    pub fn abandon(self) -> MergeEnd {
        if let State::Under(merge) = self.state {
            merge.abandon();
        }
        MergeEnd::abandoned(self.number)
    }
}

impl Shard {
    /// A merge or a seal to run, if there is one to do now and none is in its way.
    pub fn next_merge(&mut self, now: WallMs) -> Option<MergeJob> {
        if self.notes_soon && self.failed.is_none() {
            self.take_over_if_wanted();
        }
        // Asked after every message: the answer must cost nothing while nothing changed.
        let idle = !self.upkeep_due || self.merge_paused;
        if idle || self.seal_under_way.is_some() || self.failed.is_some() {
            return None;
        }
        let merges = self.merge_under_way.is_some();
        if merges && (self.frozen.is_empty() || self.seal_waits) {
            return None;
        }
        // On a full disk, a failed merge waits for the next look at the disk.
        if self.disk_full && !std::mem::take(&mut self.merge_due) {
            return None;
        }
        let seal_waits = std::mem::take(&mut self.seal_waits);
        if let Some(frozen) = self.frozen.front().filter(|_| !seal_waits) {
            let source = Source::Memtable(frozen.memtable.clone());
            let urgent = self.frozen.len() >= self.config.frozen_max;
            return Some(self.merge(vec![source], true, false, urgent, now));
        }
        debug_assert!(!merges, "one merge at a time");
        if let Some(damaged) = self.pick_damaged() {
            self.damaged_segments.remove(&damaged.number());
            return Some(self.merge(vec![Source::Segment(damaged)], false, true, false, now));
        }
        let Some(inputs) = self.pick(now) else {
            self.upkeep_due = false;
            return None;
        };
        let urgent = self.segments.len() > self.config.fan_out * 4;
        Some(self.merge(
            inputs.into_iter().map(Source::Segment).collect(),
            false,
            false,
            urgent,
            now,
        ))
    }

    fn merge(&mut self, sources: Vec<Source>, seals: bool, salvage: bool, urgent: bool, now: WallMs) -> MergeJob {
        let inputs: Vec<u64> = sources.iter().map(Source::number).collect();
        let outside: Vec<_> = self
            .segments
            .iter()
            .filter(|segment| !inputs.contains(&segment.number()))
            .cloned()
            .collect();
        let taken = self
            .segments
            .iter()
            .filter(|segment| inputs.contains(&segment.number()));
        let bytes_needed = self.bytes_needed(taken);
        let number = self.next_number;
        self.next_number += 1;
        let takes_all = !seals && outside.is_empty();
        let (mut clears, mut cleared) = (0, Cleared::default());
        // What is cleared in a segment that waits to be salvaged is not worth that all others are merged for it again and again.
        let only_damaged = |segment: &Arc<_>| self.damaged_segments.contains(&Segment::number(segment));
        if takes_all || (!seals && !salvage && outside.iter().all(only_damaged)) {
            self.merged_all_at = now;
            clears = std::mem::take(&mut self.clears_since_merge);
            cleared = std::mem::take(&mut self.cleared);
        }
        let durable = |memtable: &SharedMemtable| (memtable.clone(), memtable.read().durable_groups());
        let context = MergeContext {
            disk: self.place.disk.clone(),
            dir: self.place.dir.clone(),
            cache: self.place.cache.clone(),
            shard: self.place.shard,
            number,
            obsolete: self.obsolete.iter().copied().collect(),
            outside,
            in_memory: self.memtables().map(durable).collect(),
            memtables: self.memtables().cloned().collect(),
            stable: self.stable(),
            covered_extra: self.dropped.clone(),
            lost: self.lost.clone(),
            time: self.published.highest_time().max(self.clock.last()),
            now,
            heard: self.heard(now),
            salvage,
        };
        let running = Running {
            bytes_needed,
            number,
            seals,
            segments: if seals { Vec::new() } else { inputs },
            salvages: salvage,
            takes_all,
            clears,
            cleared,
            stable: self.stable.clone().filter(|_| takes_all),
        };
        *self.under_way(seals) = Some(running);
        MergeJob {
            state: State::New(sources, Box::new(context)),
            number,
            urgent,
        }
    }

    fn under_way(&mut self, seals: bool) -> &mut Option<Running> {
        match seals {
            true => &mut self.seal_under_way,
            false => &mut self.merge_under_way,
        }
    }

    /// Takes the result of a merge or a seal.
    pub fn merged(&mut self, end: MergeEnd) {
        let is_it = |running: &mut Running| running.number == end.number;
        let ended = self.seal_under_way.take_if(is_it);
        let Some(running) = ended.or_else(|| self.merge_under_way.take_if(is_it)) else {
            return;
        };
        self.upkeep_due = true;
        match end.result {
            Ok(merged) => self.install(running, *merged),
            Err(error) => {
                self.seal_waits = running.seals && is_full(&error);
                if !running.seals && is_full(&error) {
                    let failed = TooLarge::of_failed(running.bytes_needed, end.written_bytes);
                    self.merge_too_large = Some(failed.after(self.merge_too_large));
                }
                self.take_back(running);
                self.merge_failed(error);
            }
        }
    }

    /// Everything is as it was before the merge: its inputs are all still there.
    fn take_back(&mut self, running: Running) {
        self.clears_since_merge += running.clears;
        self.cleared.take_back(running.cleared);
        if running.salvages {
            self.damaged_segments.extend(running.segments);
        }
        // It may have failed when the file had its name already. Left on disk, it would bring back what is cleared from now on.
        self.obsolete.insert(running.number);
        self.cleanup.push(Cleanup::RemoveSegment(running.number));
    }

    fn merge_failed(&mut self, error: MergeError) {
        match error {
            error if is_full(&error) => return self.space_missing("segment"),
            MergeError::Read(ReadError::Damaged(block)) => {
                tracing::error!(shard = self.place.shard, %block, "a merge met damage");
                self.report_damage(block.segment);
            }
            error => {
                tracing::error!(shard = self.place.shard, %error, "a merge failed");
                // Not before the next tick: what failed now would fail at once again.
                self.merge_paused = true;
            }
        }
        self.stats.merge_errors += 1;
    }

    fn install(&mut self, running: Running, merged: Merged) {
        let segment = Arc::new(merged.segment);
        self.stats.merges += 1;
        // Before anybody finds that it has forgotten a request id.
        self.published.tell_time(segment.stats().max_time);
        self.dropped = self.dropped.minus(segment.covered());
        self.notes_soon &= !self.dropped.is_empty();
        if running.seals
            && let Some(frozen) = self.frozen.pop_front()
        {
            self.retire_log(frozen.memtable.read().number(), frozen.damaged);
        }
        self.want_note();
        let is_input = |held: &mut Arc<Segment>| running.segments.contains(&held.number());
        self.merged.extend(self.segments.extract_if(.., is_input));
        for number in running.segments {
            self.obsolete.insert(number);
            self.damaged_segments.remove(&number);
            self.cleanup.push(if running.salvages {
                Cleanup::QuarantineSegment(number)
            } else {
                Cleanup::RemoveSegment(number)
            });
        }
        if running.takes_all {
            self.clears_left = merged.clears_kept;
            self.awaited = merged.awaited;
            self.let_clears_go(running.stable.as_ref());
        }
        let newly_lost = self.still_lost(&segment).minus(&self.lost);
        self.lost.join(&newly_lost);
        self.segments.push(segment);
        if running.salvages {
            self.recount_covered();
        }
        // Not what is here again in an open group only: to be whole is to hold it durably.
        self.lost = self.lost.minus(&self.reader().durable_clocks());
        if running.salvages {
            let (lost_ops, slots) = (self.lost.count(), self.lost.slots().count());
            tracing::error!(
                shard = self.place.shard,
                lost_ops,
                slots,
                "what this shard lacks after damage"
            );
            self.end_origin_if_among(&newly_lost);
        }
        self.publish();
    }

    /// To be called about once a second: looks for space, and for work that only time makes due.
    pub fn tick(&mut self, now: WallMs) {
        self.probe_due = self.disk_full || self.merge_too_large.is_some();
        self.clear_room_due = self.disk_full;
        self.merge_due = true;
        self.upkeep_due = true;
        self.merge_paused = false;
        self.clean_up_again();
        let has_clears = self
            .active
            .as_ref()
            .is_some_and(|active| active.memtable.read().clear_count() > 0);
        if self.is_idle(now) && (has_clears || !self.dropped.is_empty()) && self.frozen.is_empty() {
            // Sealed, the clears can meet what they cleared, and both go; and a footer says what is dropped.
            self.wanted_takeover = true;
        }
        self.want_note();
        self.take_over_if_wanted();
        if self.is_idle(now) {
            self.let_spares_go();
        }
    }

    pub(super) fn is_idle(&self, now: WallMs) -> bool {
        now.0.saturating_sub(self.last_write.0) >= self.config.idle_ms
    }
}

fn is_full(error: &MergeError) -> bool {
    matches!(error, MergeError::Write(error) if error.is_full())
}
