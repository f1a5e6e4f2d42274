//! What a scan does not read, and what it cannot read.

use std::sync::atomic::Ordering;

use super::*;

fn values(slot: u16, origin: u64) -> Vec<KeyedOp> {
    let value = |seq| {
        keyed(
            slot,
            1,
            origin,
            seq,
            Body::Value(format!("value {seq} {}", "x".repeat(30)).into()),
        )
    };
    (1..40).map(value).collect()
}

#[test]
fn behind_damage_the_scan_goes_on_when_told_and_says_what_may_be_missing() {
    let ops: Vec<KeyedOp> = [values(3, 1), values(4, 1), values(1024, 1)].concat();
    let disk = MemoryDisk::new();
    let held = [
        segment(&disk, 1, &ops[..60], dots(&ops[..60])),
        segment(&disk, 2, &ops[60..], dots(&ops[60..])),
    ];
    // In the first block, which is of slot 3; and in the last one, of the last slot.
    break_byte(&disk, 1, 50);
    let scan_of = |slots: &[u16]| {
        let mut wants = dots(&ops);
        wants.retain_slots(|slot| slots.contains(&slot.0));
        OpScan::new(Vec::new(), held.to_vec(), wants, WallMs(0)).with_cleared()
    };
    let mut scan = scan_of(&[3, 4, 1024]);
    for _ in 0..2 {
        assert!(matches!(scan.next_batch(100), Err(ReadError::Damaged(block)) if block.segment == 1));
    }
    let skipped = scan.skip_damaged().unwrap();
    assert_eq!((skipped.slots, scan.skip_damaged()), ((SlotId(3), SlotId(3)), None));
    let rest = drain(&mut scan, 1_000).unwrap();
    assert_eq!(rest.len() as u64, ops.len() as u64 - skipped.ops);
    // Who wants nothing of that slot never meets it.
    let mut scan = scan_of(&[4, 1024]);
    assert_eq!(drain(&mut scan, 1_000).unwrap().len(), 78);
}

#[test]
fn damage_met_in_the_middle_of_a_batch_loses_nothing() {
    let (first, second) = (values(3, 1), values(4, 1));
    let disk = MemoryDisk::new();
    let held = vec![
        segment(&disk, 1, &first, dots(&first)),
        segment(&disk, 2, &second, dots(&second)),
    ];
    break_byte(&disk, 2, 50);
    let in_memory = memtable(&[keyed(3, 1, 2, 1, Body::Value("in memory".into()))]);
    let mut wants = dots(first.iter().chain(&second));
    wants.insert(SlotId(3), OriginId(2), 1);
    let mut scan = OpScan::new(vec![in_memory], held, wants, WallMs(0)).with_cleared();
    let mut given = Vec::new();
    let mut errors = 0;
    loop {
        match scan.next_batch(1 << 20) {
            Ok(None) => break,
            Ok(Some(batch)) => given.extend(batch),
            Err(_) => {
                errors += 1;
                scan.skip_damaged().unwrap();
            }
        }
    }
    assert_eq!(errors, 1);
    assert_eq!(given.iter().filter(|op| op.op.dot.slot == SlotId(3)).count(), 40);
    assert!(given.is_sorted_by_key(order));
}

#[test]
fn what_holds_nothing_wanted_is_not_read() {
    let disk = MemoryDisk::new();
    let many: Vec<KeyedOp> = (0..200).flat_map(|slot| values(slot, 1)).collect();
    let segments = vec![
        segment(&disk, 1, &many, dots(&many)),
        segment(&disk, 2, &values(150, 2), dots(&values(150, 2))),
    ];
    let count = |wants| {
        let mut scan = OpScan::new(Vec::new(), segments.clone(), wants, WallMs(0)).with_cleared();
        drain(&mut scan, 1 << 20).unwrap().len()
    };
    let before = disk.reads();
    let mut wants = SlotClocks::default();
    wants.insert_range(SlotId(150), OriginId(2), 3, 5);
    wants.insert(SlotId(7), OriginId(1), 100);
    assert_eq!(count(wants), 3);
    // Only the second segment, which is one read long.
    assert_eq!(disk.reads() - before, 1);
    let mut wants = SlotClocks::default();
    wants.insert(SlotId(0), OriginId(1), 7);
    wants.insert(SlotId(199), OriginId(1), 7);
    assert_eq!(count(wants), 2);
    assert_eq!(disk.reads() - before, 3, "the two ends of the first segment");
}

#[test]
fn a_failing_disk_is_told_and_tried_again() {
    let ops = values(3, 1);
    let disk = MemoryDisk::new();
    let held = segment(&disk, 1, &ops, dots(&ops));
    let mut scan = OpScan::new(Vec::new(), vec![held], dots(&ops), WallMs(0)).with_cleared();
    disk.faults().fail_read.store(true, Ordering::Relaxed);
    assert!(matches!(scan.next_batch(100), Err(ReadError::Io { .. })));
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    assert_eq!(drain(&mut scan, 100).unwrap().len(), ops.len());
}
