//! Segments without their end: what is salvaged of them, and what must not come back with it.

use super::*;
use crate::core::clock::MOVED;

#[test]
fn a_segment_without_its_end_is_salvaged_and_set_aside() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2], vec![1]);
    cut_end(&disk, &segment_path(2));
    for _ in 0..2 {
        let found = recovered(&disk);
        assert!(found.covered.contains(SlotId(1), ORIGIN, 2));
        assert!(
            !found.lost.is_empty(),
            "nobody knows what else it held, at no later start either"
        );
        // Salvaged once; after a crash before it was set aside, that is still to be done.
        assert_eq!((segment_numbers(&found), found.set_aside.clone()), (vec![3], vec![2]));
        assert!(found.obsolete.is_empty() && disk.content(&segment_path(2)).is_some());
    }
}

#[test]
fn a_log_that_a_damaged_footer_may_have_replaced_does_not_come_back_unnoticed() {
    let disk = MemoryDisk::new();
    // All that it held was cleared, and the clear is collected.
    put_log(&disk, 1, &[1, 2], Previous::default());
    put_segment(&disk, 5, &[], vec![1, 2, 3, 4]);
    let end = disk.content(&segment_path(5)).unwrap().len() as u64;
    for at in [end - 60, end - 40, end - 1] {
        let damaged = disk.crash();
        flip(&damaged, &segment_path(5), at);
        let found = recovered(&damaged);
        assert!(!found.damage.is_empty());
        assert!(!found.lost.is_empty(), "the cleared values would be read again");
    }
}

#[test]
fn what_a_damaged_footer_said_was_lost_stays_lost() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2], vec![1]);
    let end = disk.content(&segment_path(2)).unwrap().len() as u64;
    // Its footer: the trailer, 28 bytes, comes behind it.
    flip(&disk, &segment_path(2), end - 40);
    assert!(recovered(&disk.crash()).lost.is_empty(), "its blocks are all there");
    // Salvaged before, out of one that had lost its last op.
    disk.put(&quarantine_path(Path::new(DIR), "segment-0000000000000001"), Vec::new());
    let found = recovered(&disk);
    assert!(!found.lost.is_empty() && found.covered.contains(SlotId(1), ORIGIN, 2));
}

#[test]
fn a_salvage_that_fails_late_does_not_leave_its_number_to_another_file() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2], vec![1]);
    cut_end(&disk, &segment_path(2));
    fail_folder_sync(&disk, true);
    let found = recovered_of_replica(&disk);
    assert!(
        disk.content(&segment_path(3)).is_some(),
        "it got its name, but not durably"
    );
    assert_eq!((found.next_number, found.obsolete.clone()), (4, vec![3]));
    assert!(!found.lost.is_empty());
    fail_folder_sync(&disk, false);
    let found = recovered_of_replica(&disk);
    assert_eq!((segment_numbers(&found), found.set_aside.clone()), (vec![3], vec![2]));
    assert!(found.covered.contains(SlotId(1), ORIGIN, 2));
}

#[test]
fn a_salvage_that_failed_late_and_was_replaced_is_done_again() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2], vec![1]);
    cut_end(&disk, &segment_path(2));
    fail_folder_sync(&disk, true);
    recovered_of_replica(&disk);
    fail_folder_sync(&disk, false);
    // It goes on without what the salvage wrote.
    put_segment(&disk, 4, &[3], vec![3]);
    let found = recovered_of_replica(&disk);
    assert_eq!(
        (segment_numbers(&found), found.set_aside.clone()),
        (vec![4, 5], vec![2])
    );
    assert!(found.covered.contains(SlotId(1), ORIGIN, 2));
}

#[test]
fn what_was_dropped_while_a_damaged_segment_waited_does_not_come_back() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2, 3], vec![1]);
    cut_end(&disk, &segment_path(2));
    fail_folder_sync(&disk, true);
    recovered_of_replica(&disk);
    fail_folder_sync(&disk, false);
    // Peers gave back 1 and 2, and 2 was cleared since.
    put_segment_without(&disk, 4, &[1], &[2], vec![3]);
    let found = recovered_of_replica(&disk);
    let ops: Vec<_> = found.segments.iter().map(|segment| segment.stats().ops).collect();
    assert_eq!((segment_numbers(&found), ops), (vec![4, 5], vec![1, 1]));
    for seq in 1..=3 {
        assert!(found.segments[1].covered().contains(SlotId(1), ORIGIN, seq));
    }
}

#[test]
fn what_was_dropped_does_not_come_back_from_a_log_that_a_damaged_segment_may_have_replaced() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2, 3], Previous::default());
    put_segment(&disk, 2, &[], vec![1]);
    cut_end(&disk, &segment_path(2));
    put_segment_without(&disk, 3, &[1], &[2], vec![]);
    put_log(&disk, 4, &[4], Previous::default());
    let found = recovered_of_replica(&disk);
    let ops: Vec<_> = found.logs.iter().map(|log| log.memtable.read().op_count()).collect();
    assert_eq!((log_numbers(&found), ops), (vec![1, 4], vec![1, 1]));
    assert!(found.covered.contains(SlotId(1), ORIGIN, 3) && !found.lost.is_empty());
}

#[test]
fn without_other_replicas_nothing_is_taken_before_a_damaged_segment_is_salvaged() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2], vec![1]);
    cut_end(&disk, &segment_path(2));
    let fails = |what: &str| {
        // A clear that is taken now would not name what the segment holds.
        assert!(matches!(recover(&place(&disk)), Err(RecoverError::Io { .. })), "{what}");
    };
    disk.faults().free_bytes.store(10, Ordering::Relaxed);
    fails("no space");
    disk.faults().free_bytes.store(u64::MAX, Ordering::Relaxed);
    fail_folder_sync(&disk, true);
    fails("a sync that fails late");
    fail_folder_sync(&disk, false);
    let found = recovered(&disk);
    assert!(found.covered.contains(SlotId(1), ORIGIN, 2));
    assert_eq!(found.set_aside, [2]);
}

#[test]
fn salvage_does_not_take_longer_for_each_op_the_more_of_a_slot_there_are() {
    const OPS: u64 = 20_000;
    let disk = MemoryDisk::new();
    let meta = SegmentMeta {
        shard: 0,
        number: 2,
        replaces: vec![1],
    };
    let mut writer = SegmentWriter::create(disk.as_disk(), Path::new(DIR), meta).unwrap();
    let mut covered = SlotClocks::default();
    covered.insert_range(SlotId(1), ORIGIN, 1, OPS);
    for index in 0..OPS {
        // By their keys, the sequences are in no order.
        let op = op(1 + index * 7_919 % OPS);
        let key = format!("{index:08}");
        let entry = EntryRef {
            slot: SlotId(1),
            user: "u",
            key: &key,
            op: &op,
        };
        writer.push(entry).unwrap();
    }
    let cache = Arc::new(BlockCache::new(1 << 20));
    drop(writer.finish(covered.clone(), SlotClocks::default(), &cache).unwrap());
    cut_end(&disk, &segment_path(2));
    let before = MOVED.get();
    let found = recovered_of_replica(&disk);
    assert!(MOVED.get() - before < OPS, "{} ranges were moved", MOVED.get() - before);
    assert!(found.covered.covers(&covered));
    assert_eq!(found.segments[0].stats().ops, OPS);
}
