//! Losses that are healed while a merge is under way, which knows nothing of that.

use std::sync::atomic::Ordering;

use super::*;
use crate::core::clock::COPIED;
use crate::core::slot::SlotId;
use crate::store::recover::UNKNOWN_ORIGIN;

/// Runs it to its end; the shard is not told.
pub(super) fn end_of(mut job: MergeJob) -> MergeEnd {
    loop {
        match job.run() {
            MergeOutcome::More(next) => job = next,
            MergeOutcome::Done(end) => return end,
        }
    }
}

impl Rig {
    /// A member one of whose logs has a sector that cannot be read: something of every slot is lost, and nobody can say what.
    fn with_unnamed_losses() -> Self {
        let mut rig = Self::new(ShardConfig { fan_out: 2, ..small() });
        rig.live(1);
        for key in 0..40u64 {
            rig.add("u", &format!("key {key}"), &noise(key, 400));
        }
        rig.run_jobs();
        rig.disk.faults().bad_byte.store(600, Ordering::Relaxed);
        rig.live(2);
        rig.disk.faults().bad_byte.store(0, Ordering::Relaxed);
        assert!(
            rig.shard
                .dots
                .lost()
                .slots()
                .all(|(_, clock)| clock.get(UNKNOWN_ORIGIN).is_some())
        );
        assert!(!rig.shard.dots.lost().is_empty());
        rig
    }

    /// The active memtable waits to be sealed.
    pub(super) fn freeze(&mut self) {
        self.shard.space.want_takeover();
        for _ in 0..4 {
            if let Some(job) = self.shard.next_commit() {
                self.shard.committed(job.run());
            }
            if let Some(job) = self.shard.next_space_job() {
                self.shard.space_made(job.run());
            }
            self.shard.tick(self.now);
        }
        assert!(self.shard.logs.frozen_count() > 0);
    }

    fn is_whole(&self) -> bool {
        let reader = self.shard.reader();
        self.shard.dots.lost().is_empty() && self.shard.place.slots.clone().all(|slot| reader.is_whole(SlotId(slot)))
    }
}

#[test]
fn a_loss_that_was_healed_during_a_merge_does_not_come_back_with_it() {
    let mut rig = Rig::with_unnamed_losses();
    let job = rig.shard.next_merge(rig.now).unwrap();
    let lost = rig.shard.dots.lost().clone();
    rig.shard.heal(&lost);
    rig.shard.merged(end_of(job));
    assert!(rig.is_whole());
    rig.run_jobs();
    rig.live(3);
    assert!(rig.is_whole());
}

#[test]
fn nor_when_another_segment_says_meanwhile_that_it_was_healed() {
    let mut rig = Rig::with_unnamed_losses();
    let sealed = end_of(rig.shard.next_merge(rig.now).unwrap());
    rig.shard.merged(sealed);
    rig.add("u", "k", "one");
    rig.freeze();
    let sealed = end_of(rig.shard.next_merge(rig.now).unwrap());
    rig.shard.merged(sealed);
    rig.add("u", "k", "two");
    let merge = rig.shard.next_merge(rig.now).expect("two segments of one size");
    assert!(rig.shard.merges.is_merging());
    let lost = rig.shard.dots.lost().clone();
    rig.shard.heal(&lost);
    rig.freeze();
    let sealed = end_of(rig.shard.next_merge(rig.now).unwrap());
    rig.shard.merged(sealed);
    assert!(rig.shard.dots.dropped().is_empty(), "it is said by a footer");
    rig.shard.merged(end_of(merge));
    assert!(rig.is_whole());
    rig.run_jobs();
    rig.live(3);
    assert!(rig.is_whole());
}

#[test]
fn what_is_given_up_is_told_at_once_however_much_waits_for_the_disk() {
    let mut rig = Rig::with_unnamed_losses();
    rig.run_jobs();
    for key in 0..500u64 {
        rig.add("u", &format!("open {key}"), "value");
    }
    assert!(rig.shard.dots.open().len() > 100);
    let (lost, reader) = (rig.shard.dots.lost().clone(), rig.shard.reader());
    let open = rig.shard.dots.open().to_vec();
    let before = COPIED.get();
    rig.shard.heal(&lost);
    assert!(COPIED.get() - before < 10, "{} copies", COPIED.get() - before);
    let told = reader.durable_clocks();
    assert!(!open.iter().any(|dot| told.contains(dot.slot, dot.origin, dot.seq)));
    assert!(told.slots().all(|(_, clock)| clock.get(UNKNOWN_ORIGIN).is_none()));
    rig.run_jobs();
    let told = reader.durable_clocks();
    assert!(open.iter().all(|dot| told.contains(dot.slot, dot.origin, dot.seq)));
}
