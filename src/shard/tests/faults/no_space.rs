//! What must not wait behind a merge that has not the space it needs.

use super::*;
use crate::core::clock::SlotClocks;
use crate::core::slot::SlotId;

#[test]
fn a_salvage_that_does_not_fit_waits_for_space_and_holds_up_no_other_merge() {
    let mut rig = Rig::new(ShardConfig {
        fan_out: 100,
        ..small()
    });
    rig.fill(KEYS);
    rig.seal();
    let damaged = rig.shard.segments.all()[0].number();
    for round in 0..4 {
        for key in 0..25u64 {
            rig.add("u", &format!("other {key}"), &noise(round * 25 + key, 400));
        }
        rig.freeze();
        let sealed = rig.merge_result().unwrap();
        rig.shard.merged(sealed);
    }
    for key in 0..25 {
        rig.clear("u", &format!("other {key}"));
    }
    rig.commit();
    rig.damage();
    rig.shard.report_damage(damaged);
    rig.disk.faults().free_bytes.store(20 << 10, Ordering::Relaxed);
    let mut merges = 0;
    for _ in 0..10 {
        rig.now.0 += 1000;
        rig.shard.tick(rig.now);
        if let Some(probe) = rig.shard.next_space_job() {
            rig.shard.space_made(probe.run());
        }
        if let Some(merge) = rig.merge_result() {
            rig.shard.merged(merge);
            merges += 1;
        }
    }
    assert_eq!(
        (merges, rig.shard.segments.count()),
        (2, 2),
        "one salvage, and one merge of the others"
    );
    assert_eq!(
        rig.shard.clears.untaken(),
        0,
        "nor is there another for the same clears"
    );
    rig.disk.faults().free_bytes.store(1 << 30, Ordering::Relaxed);
    for _ in 0..3 {
        rig.idle();
        rig.run_jobs();
    }
    assert!(rig.shard.dots.lost().count() > 0 && rig.shard.stats().quarantined_files == 1);
    assert!(rig.get("u", "other 1").is_empty());
}

#[test]
fn what_is_dropped_is_noted_without_writing_a_large_segment_again() {
    let mut rig = Rig::with_segment();
    let number = rig.shard.segments.all()[0].number();
    let mut dropped = SlotClocks::default();
    dropped.insert(SlotId(7), OriginId(0xbeef), 1);
    rig.shard.know_dropped(&dropped);
    for _ in 0..3 {
        rig.idle();
        rig.run_jobs();
    }
    assert!(rig.shard.dots.dropped().is_empty(), "a footer says it");
    assert!(
        rig.shard
            .segments
            .all()
            .iter()
            .any(|segment| segment.number() == number)
    );
    rig.reopen();
    assert!(rig.shard.dots.covered().covers(&dropped));
}
