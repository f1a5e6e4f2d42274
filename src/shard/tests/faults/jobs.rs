//! Jobs that fail or take long.

use super::*;

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
    let mut rig = Rig::with_unsealed_value();
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
            rig.shard.wanted_takeover = true;
            rig.shard.tick(rig.now);
            rig.commit();
        }
    }
    rig.clear_keys((0..600).step_by(2));
    rig.idle();
    let mut merge = None;
    for _ in 0..20 {
        match rig.shard.next_merge(rig.now) {
            Some(job) if rig.shard.merge_under_way.is_some() => {
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
