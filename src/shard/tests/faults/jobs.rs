//! Jobs that fail or take long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::shard::space::SpaceReady;
use crate::store::disk::{Disk, OpenMode};
use crate::store::log;
use crate::store::memory_disk::MemoryDisk;
use crate::store::memtable::DECODED;

#[test]
fn a_segment_that_a_failed_merge_left_behind_brings_nothing_back() {
    let mut rig = Rig::with_unsealed_value();
    // The file has its name, but the merge is reported as failed.
    let end = rig.merge_result().unwrap();
    assert!(end.result.is_ok());
    rig.shard.merged(MergeEnd::abandoned(end.number));
    rig.idle();
    rig.run_jobs();
    rig.clear("u", "k");
    rig.run_jobs();
    for _ in 0..3 {
        rig.idle();
        rig.run_jobs();
    }
    rig.reopen();
    assert!(rig.get("u", "k").is_empty(), "the cleared value is back");
    assert_eq!(rig.shard.stats().sealed_ops, 0);
}

#[test]
fn a_file_that_cannot_be_removed_is_tried_again_at_the_next_tick_and_not_at_once() {
    let mut rig = Rig::with_unsealed_value();
    // A merge that failed when its file had its name already.
    let left = rig.merge_result().unwrap().number;
    rig.shard.merged(MergeEnd::abandoned(left));
    rig.disk.faults().fail_remove.store(true, Ordering::Relaxed);
    rig.run_jobs();
    assert!(rig.shard.next_cleanup().is_none(), "not in a busy loop");
    assert!(
        rig.shard.files.obsolete().any(|number| number == left),
        "every new segment names it"
    );
    rig.disk.faults().fail_remove.store(false, Ordering::Relaxed);
    rig.idle();
    rig.run_jobs();
    assert!(!rig.shard.files.obsolete().any(|number| number == left));
    let left = Path::new(DIR).join(crate::store::segment::file_name(left));
    assert!(rig.disk.content(&left).is_none());
}

impl Rig {
    fn fail_folder_syncs(&self, fails: bool) {
        *self.disk.faults().unsyncable_folder.lock() = fails.then(|| DIR.into());
    }

    /// A cleanup that is due, and whose sync fails.
    fn clean_up_unsynced(&mut self) {
        self.fail_folder_syncs(true);
        let job = self.shard.next_cleanup().unwrap();
        self.shard.cleaned_up(job.run());
        self.fail_folder_syncs(false);
    }

    /// Time passes, and all is done but cleanups.
    fn merge_all(&mut self) {
        for _ in 0..3 {
            self.idle();
            while let Some(job) = self.shard.next_space_job() {
                self.shard.space_made(job.run());
            }
            while let Some(end) = self.merge_result() {
                self.shard.merged(end);
            }
        }
    }
}

#[test]
fn a_file_whose_removal_failed_to_be_synced_is_named_as_replaced_while_the_shard_is_open() {
    let mut rig = Rig::with_unsealed_value();
    let left = rig.merge_result().unwrap().number;
    rig.shard.merged(MergeEnd::abandoned(left));
    rig.clean_up_unsynced();
    assert!(rig.shard.next_cleanup().is_none() && rig.shard.files.obsolete().any(|number| number == left));
    rig.idle();
    let job = rig.shard.next_cleanup().unwrap();
    rig.shard.cleaned_up(job.run());
    let path = Path::new(DIR).join(crate::store::segment::file_name(left));
    assert!(
        rig.disk.crash().content(&path).is_none(),
        "the retry syncs more than nothing"
    );
    rig.run_jobs();
    assert!(rig.shard.segments.all()[0].replaces().contains(&left));
    rig.reopen();
    assert!(!rig.shard.files.obsolete().any(|number| number == left));
}

#[test]
fn a_removal_that_a_failed_sync_dropped_is_durable_once_the_shard_is_open_again() {
    let mut rig = Rig::with_unsealed_value();
    let left = rig.merge_result().unwrap().number;
    rig.shard.merged(MergeEnd::abandoned(left));
    rig.clean_up_unsynced();
    let path = Path::new(DIR).join(crate::store::segment::file_name(left));
    assert!(rig.disk.crash().content(&path).is_some());
    rig.reopen();
    assert!(rig.disk.crash().content(&path).is_none());
}

#[test]
fn what_was_cleared_does_not_come_back_with_a_file_whose_removal_failed_to_be_synced() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "v");
    rig.seal();
    let former = Path::new(DIR).join(&rig.segment_names()[0]);
    let bytes = rig.disk.content(&former).unwrap();
    rig.clear("u", "k");
    rig.commit();
    rig.merge_all();
    assert_eq!((rig.shard.stats().sealed_ops, rig.shard.stats().memtable_ops), (0, 0));
    rig.clean_up_unsynced();
    rig.idle();
    rig.run_jobs();
    assert!(rig.disk.content(&former).is_none());
    let merged = rig.shard.segments.all()[0].number();
    for value in 0..3 {
        rig.add("u", "other", &noise(value, 4_000));
        rig.commit();
        rig.shard.space.want_takeover();
        rig.merge_all();
    }
    rig.run_jobs();
    assert!(
        !rig.shard
            .segments
            .all()
            .iter()
            .any(|segment| segment.number() == merged)
    );
    // The power goes, and the disk had kept the name.
    rig.disk = Arc::new(rig.disk.crash());
    rig.disk.put(&former, bytes);
    rig.reopen();
    assert!(rig.get("u", "k").is_empty(), "the cleared value is back");
    assert_eq!(rig.get("u", "other").len(), 3);
}

#[test]
fn a_seal_that_fails_is_tried_again_at_the_next_tick_and_not_at_once() {
    let mut rig = Rig::with_unsealed_value();
    rig.disk.faults().fail_sync.store(true, Ordering::Relaxed);
    let failed = rig.merge_result().unwrap();
    assert!(failed.result.is_err());
    rig.shard.merged(failed);
    assert!(rig.shard.next_merge(rig.now).is_none(), "not in a busy loop");
    rig.disk.faults().fail_sync.store(false, Ordering::Relaxed);
    rig.idle();
    rig.run_jobs();
    assert_eq!(rig.shard.stats().frozen_memtables, 0);
    assert_eq!(rig.get("u", "k"), strings(&["v"]));
    let temporary = rig.segment_names().into_iter().filter(|name| name.ends_with(".tmp"));
    assert_eq!(temporary.count(), 0, "what the failed one wrote is gone");
}

#[test]
fn a_reclaim_that_failed_is_tried_again() {
    let mut rig = Rig::new(small());
    rig.fill(50);
    rig.seal();
    rig.clear_keys(0..50);
    rig.commit();
    rig.shard.tick(rig.now);
    rig.disk.faults().fail_sync.store(true, Ordering::Relaxed);
    let failed = rig.merge_result().expect("the clears in memory are worth a merge");
    assert!(failed.result.is_err());
    rig.shard.merged(failed);
    rig.disk.faults().fail_sync.store(false, Ordering::Relaxed);
    rig.shard.tick(rig.now);
    let again = rig.merge_result().expect("still worth it");
    rig.shard.merged(again);
    assert_eq!(rig.shard.stats().sealed_ops, 0);
}

#[test]
fn writes_do_not_wait_for_a_merge_that_takes_long() {
    let mut rig = Rig::new(small());
    for key in 0..600u64 {
        rig.request(&format!("key {key}"), &key.to_string()).unwrap();
        rig.add("u", &format!("key {key}"), &noise(key, 400));
        if key % 150 == 149 {
            rig.shard.space.want_takeover();
            rig.shard.tick(rig.now);
            rig.commit();
        }
    }
    rig.clear_keys((0..600).step_by(2));
    rig.idle();
    let mut merge = None;
    for _ in 0..20 {
        match rig.shard.next_merge(rig.now) {
            Some(job) if rig.shard.merges.is_merging() => {
                merge = Some(job);
                break;
            }
            Some(job) => rig.shard.merged(end_of(job)),
            None => rig.idle(),
        }
    }
    // Many times as much as logs that may wait to be sealed can hold.
    let merge = merge.expect("the clears are worth a merge");
    for key in 0..2_000u64 {
        rig.add("u", &format!("later {key}"), &noise(key, 400));
    }
    rig.clear("u", "key 1");
    rig.clear("u", "later 1");
    assert!(!rig.request("key 3", "3").unwrap(), "its request id was taken");
    let sealed = rig.shard.stats().segments;
    rig.shard.merged(end_of(merge));
    assert!(rig.shard.stats().segments < sealed);
    for _ in 0..3 {
        rig.idle();
        rig.run_jobs();
    }
    rig.reopen();
    for key in 0..600u64 {
        let cleared = key % 2 == 0 || key == 1;
        let values = rig.get("u", &format!("key {key}"));
        assert_eq!(values.len(), if cleared { 0 } else { 2 }, "key {key}");
    }
    for key in 0..2_000u64 {
        assert_eq!(
            rig.get("u", &format!("later {key}")).len(),
            usize::from(key != 1),
            "later {key}"
        );
    }
}

#[test]
fn a_repeated_request_is_told_although_its_key_is_written_all_the_time() {
    let mut rig = Rig::new(small());
    rig.request("k", "r").unwrap();
    rig.seal();
    let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
    let hash = KeyHash::of(&user, &key);
    let write = Write {
        slot: slot_of(&user, hash),
        hash,
        user,
        key,
        kind: WriteKind::Add {
            text: "value".into(),
            finish: true,
        },
        request_id: Some(RequestId::new("r").unwrap()),
        context: WriteContext::default(),
    };
    rig.run_jobs();
    let Ok(Submitted::NeedsPast(write, mut lookup)) = rig.shard.submit(write, None, rig.now) else {
        panic!("the request id lies on disk");
    };
    lookup.run().unwrap();
    rig.add("u", "k", "meanwhile");
    let again = rig.shard.submit(write, Some(&lookup), rig.now);
    assert!(matches!(again, Ok(Submitted::Repeated(None))));
}

#[test]
fn what_was_merged_away_is_let_go_by_a_job() {
    let mut rig = Rig::with_segment();
    rig.clear_keys(0..KEYS);
    rig.commit();
    let merged = Arc::downgrade(&rig.shard.segments.all()[0]);
    rig.merge_all();
    assert!(
        !rig.shard
            .segments
            .all()
            .iter()
            .any(|held| held.number() == merged.upgrade().unwrap().number())
    );
    let job = rig.shard.next_cleanup().unwrap();
    assert!(merged.upgrade().is_some());
    rig.shard.cleaned_up(job.run());
    assert!(merged.upgrade().is_none());
}

#[test]
fn what_clears_in_memory_saw_is_looked_at_by_the_merge_and_not_by_the_shard() {
    let mut rig = Rig::with_segment();
    rig.clear_keys(0..KEYS);
    rig.commit();
    rig.shard.tick(rig.now);
    let before = DECODED.get();
    let job = rig
        .shard
        .next_merge(rig.now)
        .expect("the clears in memory are worth a merge");
    assert_eq!(DECODED.get() - before, 0);
    rig.shard.merged(end_of(job));
    assert_eq!((DECODED.get() - before, rig.shard.stats().sealed_ops), (KEYS, 0));
}

#[test]
fn a_file_that_is_used_again_is_as_long_on_the_disk_as_it_looks() {
    let mut rig = Rig::new(small());
    let bytes = vec![0; small().log_bytes as usize];
    let path = |number| Path::new(DIR).join(log::file_name(number));
    let file = rig.disk.open(&path(1), OpenMode::CreateNew).unwrap();
    // The process was killed before it had synced this.
    file.write_all_at(&bytes, 0).unwrap();
    rig.reopen();
    let Some(Ok(SpaceReady::Prepared { log, spare })) = rig.shard.next_space_job().map(|job| job.run()) else {
        panic!("no log was made ready");
    };
    assert_eq!(spare, Some(1));
    let left = rig.disk.crash().content(&path(log.number));
    assert_eq!(
        left.map(|bytes| bytes.len()),
        Some(bytes.len()),
        "up to here records may be written"
    );
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a job that is held needs a thread and a wait of its own"
)]
fn a_log_has_its_name_after_a_crash_though_another_jobs_sync_of_the_folder_failed_while_it_was_made() {
    let mut rig = Rig::new(ShardConfig::default());
    let held = rig.disk.hold_syncs(".kvl");
    let job = rig.shard.next_space_job().unwrap();
    let made = std::thread::spawn(move || job.run());
    let is_log = |name: &str| log::parse_file_name(name).is_some();
    let logs = |disk: &MemoryDisk| {
        disk.list(Path::new(DIR))
            .unwrap()
            .into_iter()
            .filter(|entry| is_log(&entry.name))
            .count()
    };
    let began = Instant::now();
    while logs(&rig.disk) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no log is made");
        std::thread::sleep(Duration::from_millis(1));
    }
    rig.fail_folder_syncs(true);
    rig.disk.sync_dir(Path::new(DIR)).unwrap_err();
    rig.fail_folder_syncs(false);
    drop(held);
    assert!(matches!(made.join().unwrap(), Ok(SpaceReady::Prepared { .. })));
    assert_eq!(logs(&rig.disk.crash()), 1);
}
