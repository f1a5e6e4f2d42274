//! How much is in one batch.

use super::*;
use crate::types::BODY_BYTES_MAX;

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
        let batches: Vec<Vec<KeyedOp>> = (0..4).map(|_| scan.next_batch(budget).unwrap()).collect();
        assert_eq!(
            batches.iter().map(Vec::len).collect::<Vec<_>>(),
            [lens[0], lens[1], lens[2], 0]
        );
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
