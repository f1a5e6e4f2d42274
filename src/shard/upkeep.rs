//! Upkeep: sealing memtables, merging segments, reclaiming the space of what was cleared, and setting damage aside.

use std::sync::Arc;

use super::cleanup::Cleanup;
use super::{MergeError, Shard};
use crate::core::clock::SlotClocks;
use crate::store::compact::{Merge, MergeContext, Merged, Progress, Source};
use crate::store::segment::{ReadError, SegmentMeta, SegmentWriter};
use crate::types::WallMs;

/// What a merge writes between two looks at the clients' needs, bytes.
const STEP_BYTES: u64 = 1 << 20;

/// What the merge under way is made of.
pub(super) struct Running {
    /// Of the segment that it writes.
    number: u64,
    /// The oldest frozen memtable is its input.
    seals: bool,
    /// The segments that are its inputs.
    segments: Vec<u64>,
    salvages: bool,
    /// All segments are its inputs.
    takes_all: bool,
    /// Clears that it was to apply, counted again if it fails.
    clears: u64,
    /// What every other replica's clock covered when it began.
    stable: Option<SlotClocks>,
}

enum State {
    New(Vec<Source>, Box<MergeContext>),
    Under(Box<Merge>),
}

/// A merge, done step by step.
pub struct MergeJob {
    state: State,
    /// Writes wait for it, so it is not to be paced.
    pub urgent: bool,
}

/// What a step of a merge led to.
pub enum MergeOutcome {
    /// To be run again.
    More(MergeJob),
    Done(Result<Box<Merged>, MergeError>),
}

impl MergeJob {
    /// Blocks on the disk for one step.
    pub fn run(self) -> MergeOutcome {
        let merge = match self.state {
            State::New(sources, context) => Merge::start(sources, *context).map(Box::new),
            State::Under(merge) => Ok(merge),
        };
        match merge.and_then(|merge| merge.step(STEP_BYTES)) {
            Ok(Progress::More(merge)) => MergeOutcome::More(Self {
                state: State::Under(merge),
                urgent: self.urgent,
            }),
            Ok(Progress::Done(merged)) => MergeOutcome::Done(Ok(merged)),
            Err(error) => MergeOutcome::Done(Err(error)),
        }
    }

    /// Gives it up.
    pub fn abandon(self) {
        if let State::Under(merge) = self.state {
            merge.abandon();
        }
    }
}

impl Shard {
    /// A merge to run, if there is one to do now and none is under way.
    pub fn next_merge(&mut self, now: WallMs) -> Option<MergeJob> {
        // Asked after every message: the answer must cost nothing while nothing changed.
        let idle = !self.upkeep_due || self.merge_paused;
        if idle || self.merge_under_way.is_some() || self.failed.is_some() {
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
        if let Some(damaged) = self.damaged_segments.pop_first() {
            let segment = self.segments.iter().find(|segment| segment.number() == damaged)?;
            let source = Source::Segment(segment.clone());
            return Some(self.merge(vec![source], false, true, false, now));
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
        let number = self.next_number;
        self.next_number += 1;
        let takes_all = !seals && outside.is_empty();
        let clears = if takes_all {
            self.merged_all_at = now;
            std::mem::take(&mut self.clears_since_merge)
        } else {
            0
        };
        let context = MergeContext {
            disk: self.place.disk.clone(),
            dir: self.place.dir.clone(),
            cache: self.place.cache.clone(),
            shard: self.place.shard,
            number,
            obsolete: self.obsolete.iter().copied().collect(),
            outside,
            cleared_in_memory: self.cleared_in_memory(),
            memtables: self.memtables().cloned().collect(),
            stable: self.stable(),
            covered_extra: self.dropped.clone(),
            lost: self.lost.clone(),
            now,
            heard: self.heard(now),
            salvage,
        };
        self.merge_under_way = Some(Running {
            number,
            seals,
            segments: if seals { Vec::new() } else { inputs },
            salvages: salvage,
            takes_all,
            clears,
            stable: self.stable.clone().filter(|_| takes_all),
        });
        MergeJob {
            state: State::New(sources, Box::new(context)),
            urgent,
        }
    }

    /// Takes the result of a merge.
    pub fn merged(&mut self, result: Result<Box<Merged>, MergeError>) {
        let Some(running) = self.merge_under_way.take() else {
            return;
        };
        self.upkeep_due = true;
        match result {
            Ok(merged) => self.install(running, *merged),
            Err(error) => {
                self.seal_waits = running.seals && is_full(&error);
                self.take_back(running);
                self.merge_failed(error);
            }
        }
    }

    /// Everything is as it was before the merge: its inputs are all still there.
    fn take_back(&mut self, running: Running) {
        self.clears_since_merge += running.clears;
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
        self.dropped = self.dropped.minus(segment.covered());
        self.has_healed &= !self.dropped.is_empty();
        if running.seals
            && let Some(frozen) = self.frozen.pop_front()
        {
            self.retire_log(frozen.memtable.read().number(), frozen.damaged);
        }
        self.segments.retain(|held| !running.segments.contains(&held.number()));
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
            self.let_clears_go(running.stable.as_ref());
        }
        self.lost.join(segment.lost());
        self.segments.push(segment);
        if running.salvages {
            self.recount_covered();
        }
        self.lost = self.lost.minus(&self.covered);
        if running.salvages {
            let (lost_ops, slots) = (self.lost.count(), self.lost.slots().count());
            tracing::error!(
                shard = self.place.shard,
                lost_ops,
                slots,
                "what this shard lacks after damage"
            );
        }
        self.publish();
    }

    /// After a salvage the clock is smaller than before: it is derived from the footers anew.
    fn recount_covered(&mut self) {
        let before = std::mem::replace(&mut self.covered, self.dropped.clone());
        for segment in &self.segments {
            self.covered.join(segment.covered());
        }
        let memtables: Vec<_> = self.memtables().cloned().collect();
        for memtable in memtables {
            self.covered.join(&memtable.read().covered());
        }
        self.published.tell_lost(&before.minus(&self.covered));
    }

    /// Takes everything that is lost for dropped, durably: reads of the damaged slots are answered again, without what was lost.
    /// Gives the number of lost ops (a loss that cannot be counted is one in every slot). Blocks on the disk.
    pub fn accept_loss(&mut self) -> Result<u64, MergeError> {
        let lost = self.lost.clone();
        if lost.is_empty() {
            return Ok(0);
        }
        let meta = SegmentMeta {
            shard: self.place.shard,
            number: self.next_number,
            replaces: self.obsolete.iter().copied().collect(),
        };
        self.next_number += 1;
        let writer = SegmentWriter::create(self.place.disk.clone(), &self.place.dir, meta)?;
        let segment = writer.finish(lost.clone(), SlotClocks::default(), &self.place.cache)?;
        self.segments.push(Arc::new(segment));
        self.covered.join(&lost);
        self.lost = SlotClocks::default();
        self.publish();
        self.publish_clock();
        Ok(lost.count())
    }

    /// To be called about once a second: looks for space, and for work that only time makes due.
    pub fn tick(&mut self, now: WallMs) {
        self.probe_due = self.disk_full;
        self.clear_room_due = self.disk_full;
        self.merge_due = true;
        self.upkeep_due = true;
        self.merge_paused = false;
        self.clean_up_again();
        let has_clears = self
            .active
            .as_ref()
            .is_some_and(|active| active.memtable.read().clear_count() > 0);
        if self.is_idle(now) && has_clears && self.frozen.is_empty() {
            // Sealed, the clears can meet what they cleared, and both go.
            self.wanted_takeover = true;
        }
        if self.wanted_takeover && self.take_over() {
            self.wanted_takeover = false;
        }
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
