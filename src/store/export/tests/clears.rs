//! Clears, and what is left of the ops that they removed.

use super::*;

/// A clear of the first two of the others, the second of which has a request id.
fn cleared_ops() -> [KeyedOp; 4] {
    let mut seen = Clock::default();
    seen.insert_range(OriginId(1), 1, 2);
    let mut with_id = keyed(3, 1, 1, 2, Body::Value("with an id".into()));
    with_id.op.request_id = Some(RequestId([7; 16]));
    let mut clear = keyed(3, 1, 2, 1, Body::Clear(seen));
    clear.op.time = HybridTime(100 << 16);
    [
        keyed(3, 1, 1, 1, Body::Value("without".into())),
        with_id,
        keyed(3, 1, 1, 3, Body::Value("later".into())),
        clear,
    ]
}

fn spent_of(op: &KeyedOp) -> KeyedOp {
    let mut op = op.clone();
    op.op.body = Body::Spent { cleared_at: WallMs(5) };
    op
}

#[test]
fn of_a_cleared_op_only_the_request_id_is_sent_also_to_who_knows_the_clear() {
    let ops = cleared_ops();
    let [_, with_id, later, clear] = &ops;
    // All but the clear, which comes all the same, for it may not be known there; and before the rest, of which each page is durable alone.
    let wants = dots(&ops[..3]);
    for (memtables, segments) in in_both(&ops) {
        for budget in [1, 1 << 20] {
            let mut scan = OpScan::new(memtables.clone(), segments.clone(), wants.clone(), WallMs(5));
            let expected = [clear.clone(), spent_of(with_id), later.clone()];
            assert_eq!(drain(&mut scan, budget).unwrap(), expected);
        }
        let mut scan = OpScan::new(memtables, segments, wants.clone(), WallMs(5)).only_wanted();
        assert_eq!(drain(&mut scan, 1 << 20).unwrap(), [spent_of(with_id), later.clone()]);
    }
}

#[test]
fn a_peer_that_lacks_a_clear_of_a_key_gets_it_before_what_is_left_of_its_ops() {
    let ops = cleared_ops();
    let [_, with_id, later, clear] = &ops;
    for (memtables, segments) in in_both(&ops) {
        let source = source(&memtables, &segments, SlotId(3), (&later.user, &later.key));
        let mut known = Clock::default();
        let mut given = Vec::new();
        for _ in 0..3 {
            let (ops, _) = ops_of_key_lacking(&source, &known, 1, WallMs(5)).unwrap();
            ops.iter().for_each(|op| known.insert(op.dot.origin, op.dot.seq));
            given.extend(ops);
        }
        assert_eq!(given, [clear, &spent_of(with_id), later].map(|op| op.op.clone()));
    }
}

/// It may have been dropped by a merge: then nothing tells of which key it was.
#[test]
fn a_clear_comes_also_when_what_it_removed_is_not_there_any_more() {
    let [first, _, _, clear] = cleared_ops();
    let disk = MemoryDisk::new();
    let merged = segment(&disk, 1, std::slice::from_ref(&clear), dots([&first, &clear]));
    let mut scan = OpScan::new(vec![], vec![merged], dots([&first]), WallMs(5));
    assert_eq!(drain(&mut scan, 1 << 20).unwrap(), std::slice::from_ref(&clear));
    // In a segment of its own, in which nothing wanted was.
    let dropped = segment(&disk, 2, &[], dots([&first]));
    let alone = segment(&disk, 3, std::slice::from_ref(&clear), dots([&clear]));
    let mut scan = OpScan::new(vec![], vec![dropped.clone(), alone.clone()], dots([&first]), WallMs(5));
    assert_eq!(drain(&mut scan, 1 << 20).unwrap(), std::slice::from_ref(&clear));
    // And where it cannot be read, that is said.
    break_byte(&disk, 3, 50);
    let mut scan = OpScan::new(vec![], vec![dropped, alone], dots([&first]), WallMs(5));
    assert!(matches!(scan.next_batch(100), Err(ReadError::Damaged(block)) if block.segment == 3));
    assert_eq!(scan.skip_damaged().unwrap().slots, (SlotId(3), SlotId(3)));
    assert!(drain(&mut scan, 100).unwrap().is_empty());
}
