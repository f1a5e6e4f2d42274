//! How much is in one batch.

use super::*;
use crate::types::BODY_BYTES_MAX;

/// Who waits for a batch gives up at some time, and asks for the same again.
#[test]
fn a_scan_that_finds_nothing_says_so_now_and_then() {
    const SEGMENTS: u64 = 3;
    let disk = MemoryDisk::new();
    let text = |seq: u64| (0..400).map(|at| mixed(seq, at)).collect::<String>();
    let filled = |origin: u64| {
        let mut ops: Vec<KeyedOp> = (1..=6_000)
            .map(|seq| keyed(3, 1, origin, seq, Body::Value(text(origin << 32 | seq).into())))
            .collect();
        for op in &mut ops {
            op.op.time = HybridTime(op.op.dot.seq << 16);
        }
        // Of another key, it saw nothing.
        ops.push(keyed(3, 4, origin, 7_000, Body::Clear(Clock::default())));
        segment(&disk, origin, &ops, dots(&ops))
    };
    let segments: Vec<Arc<Segment>> = (1..=SEGMENTS).map(filled).collect();
    let mut wants = SlotClocks::default();
    wants.insert(SlotId(3), OriginId(1), 5_999);
    let before = disk.read_bytes();
    let mut scan = OpScan::new(Vec::new(), segments, wants, WallMs(0));
    let (mut given, mut calls, mut read) = (Vec::new(), 0, before);
    while let Some(batch) = scan.next_batch(256 << 10).unwrap() {
        let of_call = disk.read_bytes() - std::mem::replace(&mut read, disk.read_bytes());
        assert!(of_call <= scan::LOOK_BYTES_MAX + (256 << 10), "{of_call} in one call");
        given.extend(batch);
        calls += 1;
    }
    assert_eq!(given.iter().map(|op| op.op.dot.seq).collect::<Vec<_>>(), [5_999]);
    assert!(read - before > 16 << 20, "all of it was looked at: {}", read - before);
    assert!((8..40).contains(&calls), "{calls}");
}

/// A letter that no compression foresees.
fn mixed(seq: u64, at: u64) -> char {
    let hash = KeyHash::of_bytes(&seq.to_le_bytes(), &at.to_le_bytes()).0;
    char::from_u32(0x4e00 + (hash % 20_000) as u32).unwrap()
}

/// As many small ops as a batch has room for, and then one with the largest text there can be.
fn small_ops_and_a_huge_one(budget: usize) -> Vec<KeyedOp> {
    let op = |seq: u64, text: String| {
        let mut op = keyed(3, 1, 1, seq, Body::Value(text.into()));
        op.op.time = HybridTime(seq << 16);
        op
    };
    let count = budget as u64 / 2_000;
    let mut ops: Vec<KeyedOp> = (1..=count).map(|seq| op(seq, "x".repeat(1_000))).collect();
    ops.push(op(count + 1, "x".repeat(BODY_BYTES_MAX)));
    ops.push(op(count + 2, "behind it".to_owned()));
    ops
}

#[test]
fn what_does_not_fit_into_a_batch_comes_in_the_next_one_and_a_huge_text_alone() {
    let budget = 64 << 10;
    let ops = small_ops_and_a_huge_one(budget);
    let lens = [ops.len() - 2, 1, 1];
    for (memtables, segments) in in_both(&ops) {
        let mut scan = OpScan::new(memtables.clone(), segments.clone(), dots(&ops), WallMs(0));
        let mut batches = Vec::new();
        while let Some(batch) = scan.next_batch(budget).unwrap() {
            batches.push(batch);
        }
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), lens);
        assert_eq!(batches.concat(), ops);

        let source = source(&memtables, &segments, SlotId(3), (&ops[0].user, &ops[0].key));
        let mut known = Clock::default();
        for (number, len) in lens.into_iter().enumerate() {
            let (given, more) = ops_of_key_lacking(&source, &known, budget, WallMs(0)).unwrap();
            assert_eq!((given.len(), more), (len, number < 2));
            given.iter().for_each(|op| known.insert(op.dot.origin, op.dot.seq));
        }
    }
}

/// A list of more than two hundred blocks, page after page to who knows nothing of it.
fn long_list() -> (MemoryDisk, KeySource) {
    let disk = MemoryDisk::new();
    let text = |seq: u64| (0..10).map(|at| mixed(seq, at)).collect::<String>();
    let mut ops: Vec<KeyedOp> = (1..=1_000)
        .map(|seq| keyed(3, 1, 1, seq, Body::Value(text(seq).into())))
        .collect();
    for op in &mut ops {
        op.op.time = HybridTime(op.op.dot.seq << 16);
    }
    let held = dots(&ops);
    let (user, key) = (ops[0].user.clone(), ops[0].key.clone());
    // A clear of another key has every key of the segment looked through for clears.
    ops.push(keyed(3, 4, 2, 1, Body::Clear(Clock::default())));
    let segment = segment(&disk, 1, &ops, held);
    let source = source(&[], &[segment], SlotId(3), (&user, &key));
    (disk, source)
}

#[test]
fn a_list_is_read_about_once_however_many_pages_are_given_of_it() {
    let (disk, source) = long_list();
    let mut export = KeyExport::new(source.clone(), Clock::default(), WallMs(0));
    let (mut given, mut pages, before) = (Vec::new(), 0, disk.read_bytes());
    loop {
        let (ops, more) = export.next_page(2_000).unwrap();
        given.extend(ops.iter().map(|op| op.dot.seq));
        pages += 1;
        if !more {
            break;
        }
    }
    assert!(given.into_iter().eq(1..=1_000) && pages > 30, "{pages} pages");
    let (read, bytes) = (disk.read_bytes() - before, source.segments[0].file_bytes());
    assert!(read < 3 * bytes, "{read} for a list of {bytes}");
}

#[test]
fn who_asks_page_after_page_for_what_it_lacks_of_a_list_has_it_read_about_once() {
    let (disk, source) = long_list();
    let (mut known, mut pages, before) = (Clock::default(), 0, disk.read_bytes());
    loop {
        let (ops, more) = ops_of_key_lacking(&source, &known, 2_000, WallMs(0)).unwrap();
        ops.iter().for_each(|op| known.insert(op.dot.origin, op.dot.seq));
        pages += 1;
        if !more {
            break;
        }
    }
    assert_eq!((known.count(), pages > 30), (1_000, true), "{pages} pages");
    let (read, bytes) = (disk.read_bytes() - before, source.segments[0].file_bytes());
    assert!(read < 3 * bytes, "{read} for a list of {bytes}");
}
