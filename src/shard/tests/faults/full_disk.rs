//! A disk that is full, and has room again.

use super::*;
use crate::shard::full_disk::Reserve;
use crate::shard::picking::TooLarge;

impl Rig {
    fn reserved_bytes(&self) -> usize {
        let reserve = self.disk.content(&Path::new(DIR).join("reserve"));
        reserve.map_or(0, |bytes| bytes.len())
    }
}

#[test]
fn a_merge_that_does_not_fit_on_the_disk_gives_way_to_smaller_ones() {
    let mut rig = Rig::new(ShardConfig {
        fan_out: 100,
        ..small()
    });
    rig.fill(1_200);
    rig.clear_keys(0..400);
    rig.commit();
    while rig.shard.logs.frozen_count() > 0 {
        let sealed = rig.merge_result().unwrap();
        rig.shard.merged(sealed);
    }
    let count = rig.shard.segments.count();
    assert!(count >= 4, "{count} segments");
    let picked = |rig: &Rig| rig.shard.pick(rig.now).map_or(0, |picked| picked.len());
    assert_eq!(picked(&rig), count, "the clears are worth a merge of all");

    rig.disk.faults().free_bytes.store(0, Ordering::Relaxed);
    let failed = rig.merge_result().expect("the same");
    assert!(failed.result.is_err());
    rig.shard.merged(failed);
    assert!((2..=count / 2).contains(&picked(&rig)), "{}", picked(&rig));
    rig.shard.disk.merge_did_not_fit(TooLarge::of_failed(1, 1));
    assert_eq!(picked(&rig), 0, "nothing fits");

    // With so many clears more it will be much smaller.
    let expected = rig.shard.bytes_needed(rig.shard.segments.all());
    assert!(rig.shard.disk.merge_fits(u64::MAX));
    rig.shard.disk.merge_did_not_fit(TooLarge::of_failed(expected, 0));
    assert!(picked(&rig) < count);
    for key in 400..700 {
        let (user, key) = (UserId::new("u").unwrap(), Key::new(&format!("key {key}")).unwrap());
        let hash = KeyHash::of(&user, &key);
        rig.shard.note_clear(slot_of(&user, hash), hash, (&user, &key));
    }
    assert_eq!(picked(&rig), count);

    rig.disk.faults().free_bytes.store(1 << 30, Ordering::Relaxed);
    for _ in 0..3 {
        rig.idle();
        rig.run_jobs();
    }
    assert!(rig.shard.disk.merge_too_large().is_none() && !rig.shard.disk.is_full());
    assert!(rig.shard.segments.count() < count, "there is space again");
}

#[test]
fn a_merge_of_mostly_cleared_keys_that_did_not_fit_waits_until_it_may() {
    let mut rig = Rig::new(ShardConfig {
        fan_out: 100,
        ..small()
    });
    rig.fill(1_200);
    rig.clear_keys(0..700);
    rig.freeze();
    while rig.shard.logs.frozen_count() > 0 {
        let sealed = rig.merge_result().unwrap();
        rig.shard.merged(sealed);
    }
    let count = rig.shard.segments.count();
    let picked = |rig: &Rig| rig.shard.pick(rig.now).map_or(0, |picked| picked.len());
    assert_eq!(picked(&rig), count, "the clears are worth a merge of all");
    rig.disk.faults().free_bytes.store(20 << 10, Ordering::Relaxed);
    for _ in 0..3 {
        let failed = rig.merge_result().expect("one, or one half");
        assert!(failed.result.is_err());
        rig.shard.merged(failed);
        rig.now.0 += 1000;
        rig.shard.tick(rig.now);
        let probe = rig.shard.next_space_job().expect("a look at the space");
        rig.shard.space_made(probe.run());
        assert!(picked(&rig) <= count / 2, "{} of {count}", picked(&rig));
        if picked(&rig) == 0 {
            break;
        }
    }
    rig.disk.faults().free_bytes.store(1 << 30, Ordering::Relaxed);
    for _ in 0..3 {
        rig.idle();
        rig.run_jobs();
    }
    assert!(rig.shard.disk.merge_too_large().is_none() && !rig.shard.disk.is_full());
    assert_eq!(rig.shard.segments.count(), 1);
}

#[test]
fn a_merge_that_takes_more_than_expected_is_not_tried_again_when_a_smaller_one_fails_too() {
    let mut rig = Rig::new(ShardConfig {
        fan_out: 100,
        ..small()
    });
    rig.fill(1_200);
    rig.freeze();
    while rig.shard.logs.frozen_count() > 0 {
        let sealed = rig.merge_result().unwrap();
        rig.shard.merged(sealed);
    }
    // Counted as cleared, but nothing clears them.
    for key in 0..1_100 {
        let (user, key) = (UserId::new("u").unwrap(), Key::new(&format!("key {key}")).unwrap());
        let hash = KeyHash::of(&user, &key);
        rig.shard.note_clear(slot_of(&user, hash), hash, (&user, &key));
    }
    let count = rig.shard.segments.count();
    rig.disk.faults().free_bytes.store(50 << 10, Ordering::Relaxed);
    let mut tried = Vec::new();
    for _ in 0..10 {
        rig.now.0 += 1000;
        rig.shard.tick(rig.now);
        if let Some(probe) = rig.shard.next_space_job() {
            rig.shard.space_made(probe.run());
        }
        tried.extend(rig.shard.pick(rig.now).map(|picked| picked.len()));
        if let Some(merge) = rig.merge_result() {
            rig.shard.merged(merge);
        }
    }
    let of_all = tried.iter().filter(|tried| **tried == count).count();
    assert_eq!((of_all, tried.len() < 6), (1, true), "{tried:?} of {count}");
}

#[test]
fn clears_that_had_to_be_kept_free_nothing_more() {
    let mut rig = Rig::new(ShardConfig {
        replicated: true,
        ..small()
    });
    rig.fill(300);
    rig.clear_keys(0..290);
    rig.seal();
    rig.idle();
    rig.run_jobs();
    assert_eq!(rig.shard.clears.left(), 290);
    let bytes = rig.shard.segments.totals().bytes;
    assert_eq!(rig.shard.bytes_needed(rig.shard.segments.all()), bytes);
}

#[test]
fn a_full_disk_refuses_adds_takes_clears_and_recovers_by_itself() {
    let mut rig = Rig::new(small());
    let reserve = Path::new(DIR).join("reserve");
    rig.fill(100);
    rig.run_jobs();
    assert!(rig.disk.content(&reserve).is_some());
    rig.disk.faults().free_bytes.store(0, Ordering::Relaxed);
    let value = |text: String| WriteKind::Add {
        text: text.as_str().into(),
        finish: true,
    };
    let mut taken = 0;
    while rig.write("u", "more", value(noise(taken, 4000)), None).is_ok() {
        taken += 1;
        assert!(taken < 1000, "the disk is full");
    }
    rig.run_jobs();
    assert_eq!(rig.get("u", "more").len() as u64, taken, "what was taken is there");
    assert_eq!(rig.get("u", "key 1").len(), 1, "reads go on");
    assert!(rig.disk.content(&reserve).is_none(), "the reserve was let go");
    rig.clear_keys(0..100);
    rig.run_jobs();
    assert!(rig.get("u", "key 1").is_empty());
    for _ in 0..3 {
        rig.now.0 += 1000;
        rig.shard.tick(rig.now);
        rig.run_jobs();
    }
    assert!(rig.shard.stats().disk_full && rig.shard.failure().is_none());
    rig.disk.faults().free_bytes.store(1 << 30, Ordering::Relaxed);
    for _ in 0..3 {
        rig.now.0 += 1000;
        rig.shard.tick(rig.now);
        rig.run_jobs();
    }
    assert!(!rig.shard.stats().disk_full);
    rig.add("u", "key 1", "new");
    rig.run_jobs();
    assert_eq!(rig.get("u", "key 1"), strings(&["new"]));
    assert!(rig.disk.content(&reserve).is_some(), "and taken again");
    rig.reopen();
    assert_eq!(rig.get("u", "more").len() as u64, taken);
}

#[test]
fn a_reserve_that_could_not_be_removed_does_not_stop_the_shard() {
    let mut rig = Rig::new(small());
    rig.run_jobs();
    assert!(rig.shard.disk.take_reserve());
    rig.add("u", "k", "v");
    rig.run_jobs();
    assert_eq!((rig.shard.failure(), rig.shard.disk.reserve()), (None, Reserve::Whole));
}

#[test]
fn a_reserve_that_was_not_filled_before_the_process_ended_is_filled_by_the_next_one() {
    for filled in [0, 5_000] {
        let mut rig = Rig::new(small());
        rig.run_jobs();
        let whole = rig.reserved_bytes();
        rig.disk.put(&Path::new(DIR).join("reserve"), vec![0; filled]);
        rig.reopen();
        rig.run_jobs();
        assert_eq!(rig.reserved_bytes(), whole);
        assert!(whole > 0);
    }
}

#[test]
fn a_reserve_that_waits_to_be_let_go_stays_when_there_is_space_again() {
    for is_under_way in [false, true] {
        let mut rig = Rig::new(small());
        rig.run_jobs();
        let whole = rig.reserved_bytes();
        let mut cleanup = None;
        if !is_under_way {
            rig.shard.files.remove_logs(vec![99]);
            cleanup = rig.shard.next_cleanup();
        }
        rig.shard.space_missing("test");
        let cleanup = cleanup.or_else(|| rig.shard.next_cleanup()).unwrap();
        rig.shard.tick(rig.now);
        while let Some(job) = rig.shard.next_space_job() {
            rig.shard.space_made(job.run());
        }
        assert!(!rig.shard.disk.is_full());
        rig.shard.cleaned_up(cleanup.run());
        rig.run_jobs();
        assert_eq!(
            (rig.reserved_bytes(), rig.shard.disk.reserve()),
            (whole, Reserve::Whole)
        );
    }
}

#[test]
fn a_log_that_could_not_be_made_ready_leaves_its_space_to_others() {
    let mut rig = Rig::new(small());
    rig.fill(300);
    rig.run_jobs();
    assert!(!rig.shard.files.spares().is_empty() && !rig.shard.logs.has_next());
    rig.disk.faults().free_bytes.store(0, Ordering::Relaxed);
    let long = WriteKind::Add {
        text: noise(1, 300_000).as_str().into(),
        finish: true,
    };
    assert_eq!(rig.write("u", "long", long, None), Err(WriteRefused::DiskFull));
    rig.run_jobs();
    let mut used: Vec<u64> = rig
        .shard
        .logs
        .memtables()
        .map(|memtable| memtable.read().number())
        .collect();
    used.sort_unstable();
    let names = crate::store::disk::Disk::list(&*rig.disk, Path::new(DIR)).unwrap();
    let there = names
        .iter()
        .filter_map(|entry| crate::store::log::parse_file_name(&entry.name));
    assert_eq!(there.collect::<Vec<_>>(), used);
    let unknown: Vec<_> = rig.shard.files.obsolete().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn a_full_disk_can_be_emptied_by_clears_after_a_restart_too() {
    let mut rig = Rig::new(small());
    rig.fill(100);
    rig.run_jobs();
    rig.seal();
    let free = &rig.disk.faults().free_bytes;
    free.store(0, Ordering::Relaxed);
    // Nothing is left to use again either.
    let names = crate::store::disk::Disk::list(&*rig.disk, Path::new(DIR)).unwrap();
    for name in names.into_iter().filter(|entry| entry.name.starts_with("log-")) {
        crate::store::disk::Disk::remove_file(&*rig.disk, &Path::new(DIR).join(name.name)).unwrap();
    }
    rig.reopen();
    for _ in 0..5 {
        rig.now.0 += 1000;
        rig.shard.tick(rig.now);
        rig.run_jobs();
        // What the reserve gave back.
        if rig.disk.content(&Path::new(DIR).join("reserve")).is_none() {
            let _ = rig
                .disk
                .faults()
                .free_bytes
                .compare_exchange(0, 1 << 20, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
    let full = WriteKind::Add {
        text: "x".into(),
        finish: true,
    };
    assert_eq!(rig.write("u", "k", full, None), Err(WriteRefused::DiskFull));
    rig.clear_keys(0..100);
    rig.run_jobs();
    assert!(rig.get("u", "key 1").is_empty());
}
