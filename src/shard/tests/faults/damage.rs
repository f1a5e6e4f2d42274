//! Damaged segments: what can still be read is salvaged, and what cannot is known to be lost.

use super::*;
use crate::core::clock::SlotClocks;
use crate::core::op::KeyedOp;
use crate::core::slot::SlotId;
use crate::store::segment::ReadError;

#[test]
fn damage_that_nobody_has_read_is_found_by_looking_for_it() {
    let mut rig = Rig::with_segment();
    rig.damage();
    rig.reopen();
    rig.run_jobs();
    assert_eq!(rig.shard.accept_loss().unwrap(), 0);
    rig.shard.verify();
    rig.run_jobs();
    assert!(rig.shard.accept_loss().unwrap() > 0);
    for key in 0..KEYS {
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
    let obsolete: Vec<u64> = rig.shard.files.obsolete().collect();
    assert_eq!(obsolete, rig.shard.files.spares());
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
    let mut rig = Rig::with_segment();
    rig.shard.set_origin(OriginId(0xbeef));
    rig.damage();
    let number = rig.shard.segments.all()[0].number();
    rig.shard = Shard::open(place(&rig.disk), rig.config.clone(), OriginId(0xbeef))
        .unwrap()
        .0;
    rig.shard.report_damage(number);
    rig.run_jobs();
    assert!(rig.shard.stats().lost_ops > 0, "the block is given up");
    let readable: Vec<String> = (0..KEYS)
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
    let lost = rig.shard.dots.lost().clone();
    assert!(!lost.is_empty());
    rig.add("u", "k", "in use");
    rig.shard.heal(&lost);
    rig.run_jobs();
    assert!(rig.shard.dots.dropped().is_empty(), "it is said by a footer");
    rig.reopen();
    assert!(rig.shard.dots.lost().is_empty());
    rig.run_jobs();
    assert!(rig.shard.next_merge(rig.now).is_none());
}

#[test]
fn what_is_here_again_counts_once_it_is_durable_though_a_merge_ends_before() {
    let mut rig = Rig::with_segment();
    let reader = rig.shard.reader();
    let (mut scan, _) = reader.scan(reader.durable_clocks(), rig.now);
    let ops = scan.next_batch(usize::MAX).unwrap().unwrap();
    rig.damage();
    rig.report_damage();
    rig.run_jobs();
    let lost = rig.shard.dots.lost().clone();
    let slots: Vec<SlotId> = lost.slots().map(|(slot, _)| slot).collect();
    assert!(!slots.is_empty());
    rig.add("u", "k", "value");
    rig.shard.space.want_takeover();
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
    rig.clear_keys(0..KEYS);
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
    rig.shard.space.want_takeover();
    rig.run_jobs();
    rig.shard.tick(rig.now);
    let sealed = rig.merge_result().unwrap();
    rig.shard.merged(sealed);
    assert_eq!(rig.shard.segments.all()[0].stats().clears, 1);
    rig.damage();
    rig.report_damage();
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
    let mut rig = Rig::with_segment();
    rig.disk.faults().bad_byte.store(DAMAGED_BYTE as u64, Ordering::Relaxed);
    rig.report_damage();
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

/// The first commits bring back some of what is lost, and others what never was.
#[test]
fn what_commits_bring_back_is_all_that_leaves_what_is_lost() {
    let mut rig = Rig::with_segment();
    let reader = rig.shard.reader();
    let (mut scan, _) = reader.scan(reader.durable_clocks(), rig.now);
    let ops = scan.next_batch(usize::MAX).unwrap().unwrap();
    rig.damage();
    rig.report_damage();
    rig.run_jobs();
    let lost = rig.shard.dots.lost().clone();
    assert!(lost.count() > 10);
    for (round, ops) in ops.chunks(7).enumerate() {
        rig.add("u", &format!("new {round}"), "value");
        let mut applied = rig.shard.apply(ops.to_vec(), rig.now).unwrap();
        while let Applied::NeedsSpace(left) = applied {
            rig.run_jobs();
            applied = rig.shard.apply(left, rig.now).unwrap();
        }
        rig.commit();
        let expected = lost.minus(&rig.shard.reader().durable_clocks());
        assert_eq!(
            (rig.shard.dots.lost(), rig.shard.reader().lost()),
            (&expected, expected.clone())
        );
    }
    assert!(rig.shard.dots.lost().is_empty());
}

#[test]
fn damage_at_the_end_of_the_last_log_of_before_a_restart_is_no_torn_write() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "one");
    rig.commit();
    let first = rig.shard.logs.active().unwrap().file().number;
    rig.reopen();
    while let Some(job) = rig.shard.next_space_job() {
        rig.shard.space_made(job.run());
    }
    rig.add("u", "other", "two");
    rig.commit();
    assert_eq!(rig.shard.stats().frozen_memtables, 1, "it is not sealed yet");
    let path = Path::new(DIR).join(crate::store::log::file_name(first));
    let mut bytes = rig.disk.content(&path).unwrap();
    bytes[crate::store::log::HEADER_BYTES + 60] ^= 0x55;
    rig.disk.put(&path, bytes);
    let report = rig.reopen();
    assert_eq!((report.damage.len(), report.torn_logs), (1, 0), "{report:?}");
    assert!(
        rig.reader("u", "k", 0, 1).is_err(),
        "of a lost op it is not said that it was none"
    );
    assert!(rig.reader("u", "other", 0, 1).is_ok());
}

/// The dots of all that comes.
fn given(mut scan: crate::store::export::OpScan) -> Result<SlotClocks, ReadError> {
    let mut given = SlotClocks::default();
    while let Some(ops) = scan.next_batch(usize::MAX)? {
        for KeyedOp { op, .. } in ops {
            given.insert(op.dot.slot, op.dot.origin, op.dot.seq);
        }
    }
    Ok(given)
}

#[test]
fn what_is_lost_while_a_peer_asks_for_it_does_not_look_cleared() {
    let mut rig = Rig::with_damaged_segment();
    let salvaged = rig.merge_result().unwrap();
    let (reader, now) = (rig.shard.reader(), rig.now);
    let all = reader.durable_clocks();
    let (scan, covered) = reader.scan_with(all.clone(), now, || rig.shard.merged(salvaged));
    let lost = rig.shard.dots.lost().clone();
    assert!(!lost.is_empty());
    let given = given(scan).unwrap();
    assert_eq!((&given, &covered), (&all.minus(&lost), &given), "nothing was cleared");
    let slot = lost.slots().next().unwrap().0;

    // The same with the dots of one slot.
    let mut rig = Rig::with_damaged_segment();
    let salvaged = rig.merge_result().unwrap();
    let reader = rig.shard.reader();
    let held = reader.held_dots_with(slot, || rig.shard.merged(salvaged)).unwrap();
    assert!(rig.shard.dots.lost().get(slot).is_some());
    assert_eq!(held.covered, held.texts, "nothing was cleared");
}

/// A list of so many values with request ids lost some of them to damage; one that was lost is sent again, and then all come back.
fn a_lost_request_sent_again(values: u64) {
    let mut rig = Rig::new(ShardConfig {
        log_bytes: 1 << 20,
        replicated: true,
        ..small()
    });
    let add = |rig: &mut Rig, number: u64| {
        let kind = WriteKind::Add {
            text: noise(number, 400).as_str().into(),
            finish: true,
        };
        rig.write("u", "k", kind, Some(&number.to_string())).unwrap()
    };
    for number in 0..values {
        assert!(add(&mut rig, number));
    }
    rig.seal();
    // Not read: what is in the cache is not lost.
    let before: Vec<String> = (0..values).map(|number| noise(number, 400)).collect();
    let reader = rig.shard.reader();
    let (mut scan, _) = reader.scan(reader.durable_clocks(), rig.now);
    let mut ops = Vec::new();
    while let Some(more) = scan.next_batch(usize::MAX).unwrap() {
        ops.extend(more);
    }
    rig.damage();
    rig.report_damage();
    rig.run_jobs();
    if rig.shard.failure().is_some() {
        // As the node does.
        rig.reopen();
        rig.shard.set_origin(OriginId(0xbeef));
        rig.run_jobs();
    }
    let lost = rig.shard.dots.lost().clone();
    let is_lost = |op: &KeyedOp| lost.contains(op.op.dot.slot, op.op.dot.origin, op.op.dot.seq);
    let at = ops.iter().position(is_lost).expect("something is lost");
    assert!(add(&mut rig, at as u64), "nothing is known of it here");
    rig.run_jobs();
    ops.retain(is_lost);
    let mut applied = rig.shard.apply(ops, rig.now).unwrap();
    while let Applied::NeedsSpace(left) = applied {
        rig.run_jobs();
        applied = rig.shard.apply(left, rig.now).unwrap();
    }
    rig.run_jobs();
    assert!(rig.get("u", "k") == before, "{} values", rig.get("u", "k").len());
    let count = rig.reader("u", "k", 0, u64::MAX).unwrap().count();
    assert_eq!(count.unwrap(), values);
}

#[test]
fn a_request_whose_op_was_lost_and_comes_back_counts_once() {
    // In one block, and in many.
    a_lost_request_sent_again(3);
    a_lost_request_sent_again(200);
}

#[test]
fn what_could_not_be_read_of_a_log_does_not_come_back_after_a_clear() {
    let mut rig = Rig::new(small());
    for index in 0..200 {
        rig.add("u", "k", &noise(index, 100));
    }
    rig.commit();
    let bad = |rig: &Rig, byte| rig.disk.faults().bad_byte.store(byte, Ordering::Relaxed);
    bad(&rig, 6000);
    assert!(!rig.reopen().damage.is_empty());
    rig.shard.set_origin(OriginId(2));
    bad(&rig, 0);
    while let Some(job) = rig.shard.next_space_job() {
        rig.shard.space_made(job.run());
    }
    // That a part is lost is not durable yet. An add has nothing to do with it.
    let refused = rig.write("u", "k", WriteKind::Clear, None);
    assert_eq!(refused, Err(WriteRefused::Unsealed));
    rig.add("u", "k", "new");
    rig.run_jobs();
    rig.clear("u", "k");
    rig.commit();
    // The disk can be read again.
    rig.disk = std::sync::Arc::new(rig.disk.crash());
    rig.reopen();
    let refused = rig.reader("u", "k", 0, u64::MAX).is_err();
    assert!(refused, "that something is lost is known still");
    rig.run_jobs();
    assert!(rig.shard.accept_loss().unwrap() > 0);
    assert_eq!(rig.get("u", "k"), Vec::<String>::new());
}
