//! What jobs that fail, damage and a full disk do to a shard.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::*;

const DIR: &str = "/data/shard";

impl Rig {
    /// 200 keys in one segment, a block of which is damaged, which was noticed.
    fn with_damaged_segment() -> Self {
        let mut rig = Self::new(small());
        for key in 0..200u64 {
            rig.add("u", &format!("key {key}"), &noise(key, 400));
        }
        rig.seal();
        rig.damage(&rig.segment_names()[0].clone(), 600);
        let number = rig.shard.segments[0].number();
        rig.shard.report_damage(number);
        rig
    }

    fn idle(&mut self) {
        self.now.0 += 60_000;
        self.shard.tick(self.now);
    }

    /// The next merge, run to its end, but its result not told to the shard.
    fn merge_result(&mut self) -> Option<MergeEnd> {
        let mut job = self.shard.next_merge(self.now)?;
        loop {
            match job.run() {
                MergeOutcome::More(next) => job = next,
                MergeOutcome::Done(result) => return Some(result),
            }
        }
    }

    fn segment_names(&self) -> Vec<String> {
        let names = crate::store::disk::Disk::list(&*self.disk, Path::new(DIR)).unwrap();
        let names = names.into_iter().map(|entry| entry.name);
        names.filter(|name| name.starts_with("segment-")).collect()
    }

    /// Everything durable is sealed into segments, and no log holds anything.
    pub(super) fn seal(&mut self) {
        self.run_jobs();
        self.reopen();
        self.run_jobs();
    }

    fn damage(&self, name: &str, at: usize) {
        let path = Path::new(DIR).join(name);
        let mut bytes = self.disk.content(&path).unwrap();
        bytes[at] ^= 0x55;
        self.disk.put(&path, bytes);
    }

    fn request(&mut self, key: &str, request: &str) -> Result<bool, WriteRefused> {
        let kind = WriteKind::Add {
            text: "value".into(),
            finish: true,
        };
        self.write("u", key, kind, Some(request))
    }
}

#[test]
fn a_segment_that_a_failed_merge_left_behind_brings_nothing_back() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "cleared");
    rig.run_jobs();
    rig.reopen();
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
    let mut rig = Rig::new(small());
    rig.add("u", "k", "v");
    rig.run_jobs();
    rig.reopen();
    // A merge that failed when its file had its name already.
    let left = rig.merge_result().unwrap().number;
    rig.shard.merged(MergeEnd::abandoned(left));
    rig.disk.faults().fail_remove.store(true, Ordering::Relaxed);
    rig.run_jobs();
    assert!(rig.shard.next_cleanup().is_none(), "not in a busy loop");
    assert!(rig.shard.obsolete.contains(&left), "every new segment names it");
    rig.disk.faults().fail_remove.store(false, Ordering::Relaxed);
    rig.idle();
    rig.run_jobs();
    assert!(!rig.shard.obsolete.contains(&left));
    let left = Path::new(DIR).join(crate::store::segment::file_name(left));
    assert!(rig.disk.content(&left).is_none());
}

#[test]
fn a_file_whose_removal_is_not_durable_is_named_as_replaced_until_it_is() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "v");
    rig.run_jobs();
    rig.reopen();
    let left = rig.merge_result().unwrap().number;
    rig.shard.merged(MergeEnd::abandoned(left));
    let unsyncable = |dir: Option<&str>| dir.map(std::path::PathBuf::from);
    *rig.disk.faults().unsyncable_folder.lock().unwrap() = unsyncable(Some(DIR));
    let job = rig.shard.next_cleanup().unwrap();
    rig.shard.cleaned_up(job.run());
    assert!(rig.shard.next_cleanup().is_none() && rig.shard.obsolete.contains(&left));
    *rig.disk.faults().unsyncable_folder.lock().unwrap() = unsyncable(None);
    rig.idle();
    let job = rig.shard.next_cleanup().unwrap();
    rig.shard.cleaned_up(job.run());
    assert!(!rig.shard.obsolete.contains(&left));
}

#[test]
fn damage_that_nobody_has_read_is_found_by_looking_for_it() {
    let mut rig = Rig::new(small());
    for key in 0..200u64 {
        rig.add("u", &format!("key {key}"), &noise(key, 400));
    }
    rig.seal();
    rig.damage(&rig.segment_names()[0].clone(), 600);
    rig.reopen();
    rig.run_jobs();
    assert_eq!(rig.shard.accept_loss().unwrap(), 0);
    rig.shard.verify();
    rig.run_jobs();
    assert!(rig.shard.accept_loss().unwrap() > 0);
    for key in 0..200u64 {
        rig.get("u", &format!("key {key}"));
    }
}

#[test]
fn a_damaged_segment_is_kept_aside_even_if_the_shard_dies_before_it_was() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "v");
    rig.seal();
    let name = rig.segment_names()[0].clone();
    let path = Path::new(DIR).join(&name);
    let mut bytes = rig.disk.content(&path).unwrap();
    bytes.truncate(bytes.len() - 10);
    rig.disk.put(&path, bytes.clone());
    // What was salvaged is durable; then it dies, before it set the file aside.
    rig.reopen();
    rig.reopen();
    rig.run_jobs();
    let kept = crate::store::recover::quarantine_path(Path::new(DIR), &name);
    assert_eq!(rig.disk.content(&kept), Some(bytes));
    assert!(rig.disk.content(&path).is_none());
    assert_eq!(rig.shard.stats().quarantined_files, 1);
    assert_eq!(rig.shard.obsolete, rig.shard.spares.iter().copied().collect());
}

#[test]
fn a_seal_that_fails_is_tried_again_at_the_next_tick_and_not_at_once() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "v");
    rig.run_jobs();
    rig.reopen();
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
fn a_damaged_segment_is_set_aside_even_if_the_process_ends_right_after_its_salvage() {
    let mut rig = Rig::with_damaged_segment();
    let damaged = rig.segment_names()[0].clone();
    let salvaged = rig.merge_result().expect("it is salvaged");
    rig.shard.merged(salvaged);
    rig.reopen();
    rig.run_jobs();
    let path = recover::quarantine_path(&rig.shard.place.dir, &damaged);
    assert!(rig.disk.content(&path).is_some(), "{:?}", rig.segment_names());
}

#[test]
fn a_clear_after_a_salvage_still_clears_what_an_earlier_origin_wrote() {
    let mut rig = Rig::new(small());
    for key in 0..200u64 {
        rig.add("u", &format!("key {key}"), &noise(key, 400));
    }
    rig.seal();
    rig.shard.set_origin(OriginId(0xbeef));
    rig.damage(&rig.segment_names()[0].clone(), 600);
    let number = rig.shard.segments[0].number();
    rig.shard = Shard::open(place(&rig.disk), rig.config.clone(), OriginId(0xbeef))
        .unwrap()
        .0;
    rig.shard.report_damage(number);
    rig.run_jobs();
    assert!(rig.shard.stats().lost_ops > 0, "the block is given up");
    let readable: Vec<String> = (0..200)
        .map(|key| format!("key {key}"))
        .filter(|key| rig.reader("u", key, 0, 1).is_ok())
        .collect();
    assert!(!readable.is_empty());
    for key in &readable {
        rig.clear("u", key);
    }
    rig.run_jobs();
    for key in &readable {
        assert!(rig.get("u", key).is_empty(), "{key} was cleared");
    }
}

#[test]
fn what_was_given_up_stays_given_up_over_a_restart_though_nothing_is_due_to_merge() {
    let mut rig = Rig::with_damaged_segment();
    rig.run_jobs();
    let lost = rig.shard.lost.clone();
    assert!(!lost.is_empty());
    rig.add("u", "k", "in use");
    rig.shard.heal(&lost);
    rig.run_jobs();
    assert!(rig.shard.dropped.is_empty(), "it is said by a footer");
    rig.reopen();
    assert!(rig.shard.lost.is_empty());
    rig.run_jobs();
    assert!(rig.shard.next_merge(rig.now).is_none());
}

#[test]
fn what_is_here_again_counts_once_it_is_durable_though_a_merge_ends_before() {
    let mut rig = Rig::new(small());
    for key in 0..200u64 {
        rig.add("u", &format!("key {key}"), &noise(key, 400));
    }
    rig.seal();
    let reader = rig.shard.reader();
    let (mut scan, _) = reader.scan(reader.durable_clocks(), rig.now);
    let ops = scan.next_batch(usize::MAX).unwrap().unwrap();
    rig.damage(&rig.segment_names()[0].clone(), 600);
    let number = rig.shard.segments[0].number();
    rig.shard.report_damage(number);
    rig.run_jobs();
    let lost = rig.shard.lost.clone();
    let slots: Vec<SlotId> = lost.slots().map(|(slot, _)| slot).collect();
    assert!(!slots.is_empty());
    rig.add("u", "k", "value");
    rig.shard.wanted_takeover = true;
    let merged = loop {
        if let Some(merged) = rig.merge_result() {
            break merged;
        }
        if let Some(job) = rig.shard.next_commit() {
            rig.shard.committed(job.run());
        }
        if let Some(job) = rig.shard.next_space_job() {
            rig.shard.space_made(job.run());
        }
        rig.idle();
    };
    let mut applied = rig.shard.apply(ops, rig.now).unwrap();
    while let Applied::NeedsSpace(left) = applied {
        let job = rig.shard.next_space_job().unwrap();
        rig.shard.space_made(job.run());
        applied = rig.shard.apply(left, rig.now).unwrap();
    }
    rig.shard.merged(merged);
    let is_whole = |rig: &Rig| slots.iter().all(|slot| rig.shard.reader().is_whole(*slot));
    assert!(!slots.iter().any(|slot| rig.shard.reader().is_whole(*slot)));
    rig.run_jobs();
    assert!(is_whole(&rig));
}

#[test]
fn clears_that_cannot_be_collected_do_not_make_a_shard_merge_without_end() {
    let mut rig = Rig::with_damaged_segment();
    rig.run_jobs();
    assert!(rig.shard.stats().lost_ops > 0);
    for key in 0..200 {
        rig.clear("u", &format!("key {key}"));
    }
    rig.run_jobs();
    rig.idle();
    for _ in 0..3 {
        rig.idle();
        for _ in 0..40 {
            if let Some(job) = rig.shard.next_commit() {
                rig.shard.committed(job.run());
            }
            if let Some(job) = rig.shard.next_space_job() {
                rig.shard.space_made(job.run());
            }
            if let Some(result) = rig.merge_result() {
                rig.shard.merged(result);
            }
        }
    }
    rig.idle();
    let merges = rig.shard.stats().merges;
    assert!(rig.shard.next_merge(rig.now).is_none(), "{merges} merges so far");
}

#[test]
fn writes_do_not_wait_for_a_merge_that_takes_long() {
    let mut rig = Rig::new(small());
    for key in 0..600u64 {
        rig.request(&format!("key {key}"), &key.to_string()).unwrap();
        rig.add("u", &format!("key {key}"), &noise(key, 400));
        if key % 150 == 149 {
            rig.shard.wanted_takeover = true;
            rig.shard.tick(rig.now);
            while let Some(job) = rig.shard.next_commit() {
                rig.shard.committed(job.run());
            }
        }
    }
    for key in (0..600).step_by(2) {
        rig.clear("u", &format!("key {key}"));
    }
    rig.idle();
    let mut merge = None;
    for _ in 0..20 {
        match rig.shard.next_merge(rig.now) {
            Some(job) if rig.shard.merge_under_way.is_some() => {
                merge = Some(job);
                break;
            }
            Some(mut job) => loop {
                match job.run() {
                    MergeOutcome::More(next) => job = next,
                    MergeOutcome::Done(end) => break rig.shard.merged(end),
                }
            },
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
    let mut job = merge;
    let end = loop {
        match job.run() {
            MergeOutcome::More(next) => job = next,
            MergeOutcome::Done(end) => break end,
        }
    };
    rig.shard.merged(end);
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
fn a_merge_that_does_not_fit_on_the_disk_gives_way_to_smaller_ones() {
    let mut rig = Rig::new(ShardConfig {
        fan_out: 100,
        ..small()
    });
    for key in 0..1_200u64 {
        rig.add("u", &format!("key {key}"), &noise(key, 400));
    }
    for key in 0..400 {
        rig.clear("u", &format!("key {key}"));
    }
    while let Some(job) = rig.shard.next_commit() {
        rig.shard.committed(job.run());
    }
    while !rig.shard.frozen.is_empty() {
        let sealed = rig.merge_result().unwrap();
        rig.shard.merged(sealed);
    }
    let count = rig.shard.segments.len();
    assert!(count >= 4, "{count} segments");
    let picked = |rig: &Rig| rig.shard.pick(rig.now).map_or(0, |picked| picked.len());
    assert_eq!(picked(&rig), count, "the clears are worth a merge of all");

    rig.disk.faults().free_bytes.store(0, Ordering::Relaxed);
    let failed = rig.merge_result().expect("the same");
    assert!(failed.result.is_err());
    rig.shard.merged(failed);
    assert!((2..=count / 2).contains(&picked(&rig)), "{}", picked(&rig));
    rig.shard.merge_too_large = Some(1);
    assert_eq!(picked(&rig), 0, "nothing fits");

    // With so many clears more it will be much smaller.
    rig.shard.merge_too_large = Some(rig.shard.bytes_needed(&rig.shard.segments));
    rig.shard.clears_since_merge += 300;
    assert_eq!(picked(&rig), count);
    rig.shard.clears_since_merge -= 300;
    assert!(picked(&rig) < count);

    rig.disk.faults().free_bytes.store(1 << 30, Ordering::Relaxed);
    for _ in 0..3 {
        rig.idle();
        rig.run_jobs();
    }
    assert_eq!((rig.shard.merge_too_large, rig.shard.disk_full), (None, false));
    assert!(rig.shard.segments.len() < count, "there is space again");
}

#[test]
fn a_reclaim_that_failed_is_tried_again() {
    let mut rig = Rig::new(small());
    for key in 0..50u64 {
        rig.add("u", &format!("key {key}"), &noise(key, 400));
    }
    rig.seal();
    for key in 0..50 {
        rig.clear("u", &format!("key {key}"));
    }
    while let Some(job) = rig.shard.next_commit() {
        rig.shard.committed(job.run());
    }
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
fn damage_in_a_key_too_long_for_memory_is_salvaged() {
    let mut rig = Rig::new(ShardConfig {
        log_bytes: 4 << 20,
        // Nobody says that the others know the clear: it stays.
        replicated: true,
        ..small()
    });
    rig.add("u", "long", "before the clear");
    rig.clear("u", "long");
    for index in 0..30_000 {
        rig.add("u", "long", &index.to_string());
    }
    rig.add("u", "other", "kept");
    // Sealed, and no merge since: the clear is still there.
    rig.shard.wanted_takeover = true;
    rig.run_jobs();
    rig.shard.tick(rig.now);
    let sealed = rig.merge_result().unwrap();
    rig.shard.merged(sealed);
    assert_eq!(rig.shard.segments[0].stats().clears, 1);
    rig.damage(&rig.segment_names()[0].clone(), 600);
    let number = rig.shard.segments[0].number();
    rig.shard.report_damage(number);
    for _ in 0..5 {
        if let Some(result) = rig.merge_result() {
            rig.shard.merged(result);
        }
    }
    assert!(
        rig.shard.stats().lost_ops > 0,
        "the damaged block is given up, the rest goes on"
    );
    assert!(
        rig.shard.stats().sealed_ops > 16 << 10,
        "what is left is still too long"
    );
    assert!(rig.shard.next_merge(rig.now).is_none());
}

#[test]
fn a_sector_that_cannot_be_read_does_not_stop_the_merges() {
    let mut rig = Rig::new(small());
    for key in 0..200u64 {
        rig.add("u", &format!("key {key}"), &noise(key, 400));
    }
    rig.seal();
    rig.disk.faults().bad_byte.store(600, Ordering::Relaxed);
    let number = rig.shard.segments[0].number();
    rig.shard.report_damage(number);
    let merged = rig.merge_result().expect("it is salvaged");
    // The fault strikes at this place of every file.
    rig.disk.faults().bad_byte.store(0, Ordering::Relaxed);
    assert!(merged.result.is_ok());
    rig.shard.merged(merged);
    let stats = rig.shard.stats();
    assert!(
        stats.lost_ops > 0 && stats.sealed_ops > 100,
        "one block is given up: {stats:?}"
    );
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
fn a_full_disk_refuses_adds_takes_clears_and_recovers_by_itself() {
    let mut rig = Rig::new(small());
    let reserve = Path::new(DIR).join("reserve");
    for key in 0..100u64 {
        rig.add("u", &format!("key {key}"), &noise(key, 400));
    }
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
    for key in 0..100 {
        rig.clear("u", &format!("key {key}"));
    }
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
    rig.shard.reserved = false;
    rig.add("u", "k", "v");
    rig.run_jobs();
    assert_eq!((rig.shard.failure(), rig.shard.reserved), (None, true));
}

#[test]
fn a_full_disk_can_be_emptied_by_clears_after_a_restart_too() {
    let mut rig = Rig::new(small());
    for key in 0..100u64 {
        rig.add("u", &format!("key {key}"), &noise(key, 400));
    }
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
    for key in 0..100 {
        rig.clear("u", &format!("key {key}"));
    }
    rig.run_jobs();
    assert!(rig.get("u", "key 1").is_empty());
}
