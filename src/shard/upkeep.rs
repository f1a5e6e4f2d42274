//! Upkeep: sealing memtables, merging segments, reclaiming the space of what was cleared, and setting damage aside.
//!
//! A merge may take minutes, and writes must not wait for it: while it is under way, memtables are sealed beside it. Neither sees the
//! other's result, nor needs to: before a merge drops a clear or a request id, it asks everything that is not among its own inputs, and
//! that includes the inputs of the other one. Nothing merges what a seal is just making, and no merge begins during a seal.

use std::sync::Arc;

use super::merges::{Purpose, Running};
use super::picking::TooLarge;
use super::reclaim::Cleared;
use super::{MergeEnd, MergeError, MergeJob, Shard};
use crate::store::compact::{MergeContext, Merged, Source};
use crate::store::memtable::SharedMemtable;
use crate::store::segment::{ReadError, Segment};
use crate::types::WallMs;

impl Shard {
    /// A merge or a seal to run, if there is one to do now and none is in its way.
    pub fn next_merge(&mut self, now: WallMs) -> Option<MergeJob> {
        self.last_write.get_or_insert(now);
        if self.failed.is_some() {
            return None;
        }
        if self.dots.is_note_wanted() {
            self.take_over_if_wanted();
        }
        if !self.merges.may_begin(self.logs.frozen_count() > 0) || !self.disk.take_merge() {
            return None;
        }
        let seals_first = self.merges.take_turn_of_seal();
        if let Some(memtable) = self.logs.oldest_frozen().filter(|_| seals_first) {
            let source = Source::Memtable(memtable.clone());
            let urgent = self.logs.frozen_count() >= self.config.frozen_max;
            return Some(self.begin_merge(Purpose::Seal, vec![source], urgent, now));
        }
        debug_assert!(!self.merges.is_merging(), "one merge at a time");
        if let Some(damaged) = self.pick_damaged() {
            self.segments.begin_salvage(damaged.number());
            return Some(self.begin_merge(Purpose::Salvage, vec![Source::Segment(damaged)], false, now));
        }
        let Some(inputs) = self.pick(now) else {
            self.merges.none_is_due();
            return None;
        };
        let urgent = self.segments.count() > self.config.fan_out * 4;
        let sources = inputs.into_iter().map(Source::Segment).collect();
        Some(self.begin_merge(Purpose::Merge, sources, urgent, now))
    }

    fn begin_merge(&mut self, purpose: Purpose, sources: Vec<Source>, urgent: bool, now: WallMs) -> MergeJob {
        let inputs: Vec<u64> = sources.iter().map(Source::number).collect();
        let is_input = |segment: &Arc<Segment>| inputs.contains(&segment.number());
        let segments = self.segments.all().iter().cloned();
        let (taken, outside): (Vec<_>, Vec<_>) = segments.partition(is_input);
        let bytes_needed = self.bytes_needed(&taken);
        let takes_all = purpose != Purpose::Seal && outside.is_empty();
        // What is cleared in a segment that waits to be salvaged is not worth that all others are merged for it again and again.
        let takes_sound = || outside.iter().all(|segment| self.segments.is_damaged(segment.number()));
        let cleared = match takes_all || (purpose == Purpose::Merge && takes_sound()) {
            true => self.clears.take(now),
            false => Cleared::default(),
        };
        let context = self.merge_context(outside, purpose, now);
        self.merges.begin(Running {
            purpose,
            number: context.number,
            segments: match purpose {
                Purpose::Seal => Vec::new(),
                Purpose::Merge | Purpose::Salvage => inputs,
            },
            bytes_needed,
            takes_all,
            cleared,
            stable: self.others.stable().filter(|_| takes_all).cloned(),
        });
        MergeJob::new(sources, context, urgent)
    }

    /// What a merge that begins now has to know of the shard, `outside` being the segments that it does not take.
    fn merge_context(&mut self, outside: Vec<Arc<Segment>>, purpose: Purpose, now: WallMs) -> MergeContext {
        let durable = |memtable: &SharedMemtable| (memtable.clone(), memtable.read().durable_groups());
        MergeContext {
            disk: self.place.disk.clone(),
            dir: self.place.dir.clone(),
            cache: self.place.cache.clone(),
            shard: self.place.shard,
            number: self.files.next_number(),
            obsolete: self.files.obsolete().collect(),
            outside,
            in_memory: self.logs.memtables().map(durable).collect(),
            memtables: self.logs.memtables().cloned().collect(),
            stable: self.others.stable_with(self.dots.covered()),
            covered_extra: self.dots.dropped().clone(),
            lost: self.dots.lost().clone(),
            time: self.published.highest_time().max(self.naming.highest_time()),
            now,
            heard: self.others.heard(now),
            salvage: purpose == Purpose::Salvage,
        }
    }

    /// Takes the result of a merge or a seal.
    pub fn merged(&mut self, end: MergeEnd) {
        let Some(running) = self.merges.end(end.number) else {
            return;
        };
        match end.result {
            Ok(merged) => self.install(running, *merged),
            Err(error) => {
                let is_seal = running.purpose == Purpose::Seal;
                self.merges.let_seal_wait(is_seal && is_full(&error));
                if !is_seal && is_full(&error) {
                    let failed = TooLarge::of_failed(running.bytes_needed, end.written_bytes);
                    self.disk.merge_did_not_fit(failed);
                }
                self.take_back(running);
                self.merge_failed(error);
            }
        }
    }

    /// Everything is as it was before the merge: its inputs are all still there.
    fn take_back(&mut self, running: Running) {
        self.clears.take_back(running.cleared);
        if running.purpose == Purpose::Salvage {
            for number in running.segments {
                self.segments.note_damaged(number);
            }
        }
        // It may have failed when the file had its name already. Left on disk, it would bring back what is cleared from now on.
        self.files.retire_segment(running.number, false);
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
                self.merges.pause();
            }
        }
        self.stats.merge_errors += 1;
    }

    fn install(&mut self, running: Running, merged: Merged) {
        let segment = Arc::new(merged.segment);
        let salvages = running.purpose == Purpose::Salvage;
        self.stats.merges += 1;
        // Before anybody finds that it has forgotten a request id.
        self.published.tell_time(segment.stats().max_time);
        self.dots.note(segment.covered());
        if running.purpose == Purpose::Seal
            && let Some((log, damaged)) = self.logs.sealed()
        {
            self.files.retire_log(log, damaged, self.disk.is_full());
        }
        self.want_note();
        self.segments.merge_away(&running.segments);
        for number in running.segments {
            self.files.retire_segment(number, salvages);
        }
        if running.takes_all {
            self.clears.keep(merged.clears_kept, merged.awaited);
            self.clears.let_go(running.stable.as_ref(), self.others.stable());
        }
        let newly_lost = self.dots.newly_lost(&segment, &self.segments);
        self.dots.lose(&newly_lost);
        self.segments.add(segment);
        if salvages {
            self.recount_covered();
        }
        // Not what is here again in an open group only: to be whole is to hold it durably.
        self.dots.find(&self.reader().durable_clocks());
        if salvages {
            self.tell_of_losses();
            self.end_origin_if_among(&newly_lost);
        }
        self.publish();
    }

    /// To be called about once a second: looks for space, and for work that only time makes due.
    pub fn tick(&mut self, now: WallMs) {
        self.last_write.get_or_insert(now);
        self.disk.tick();
        self.merges.tick();
        self.files.clean_up_again(self.disk.is_full());
        let active = self.logs.active();
        let has_clears = active.is_some_and(|active| active.memtable().read().clear_count() > 0);
        let is_worth_it = has_clears || !self.dots.dropped().is_empty();
        if self.is_idle(now) && is_worth_it && self.logs.frozen_count() == 0 {
            // Sealed, the clears can meet what they cleared, and both go; and a footer says what is dropped.
            self.space.want_takeover();
        }
        self.want_note();
        self.take_over_if_wanted();
        if self.is_idle(now) {
            self.files.let_spares_go();
        }
    }

    pub(super) fn is_idle(&self, now: WallMs) -> bool {
        self.last_write
            .is_some_and(|last| now.0.saturating_sub(last.0) >= self.config.idle_ms)
    }
}

fn is_full(error: &MergeError) -> bool {
    matches!(error, MergeError::Write(error) if error.is_full())
}
