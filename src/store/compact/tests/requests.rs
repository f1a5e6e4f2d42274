//! How long the id of a request is remembered whose op was cleared.

use super::*;
use crate::store::recover::UNKNOWN_ORIGIN;

const HOUR_MS: u64 = 60 * 60 * 1000;

/// A copy of a request: what one try left.
fn copy(origin: u64, time: u64) -> KeyedOp {
    let mut copy = value(0, origin, 1, time);
    copy.op.request_id = Some(RequestId([7; 16]));
    copy
}

#[test]
fn a_request_id_is_remembered_for_an_hour_after_its_op_was_cleared() {
    let ops = [copy(1, 10), clear(0, 3, 1, 30, &[(1, 1, 1)])];
    let mut store = Store::of(&ops);
    store.compact_all();
    for (ms, spent) in [(0, 1), (HOUR_MS, 1), (2 * 60 * 1000, 0)] {
        store.wait(ms);
        store.compact_all();
        assert_eq!((store.spent(), store.view(0).len()), (spent, 0), "after {ms} ms more");
    }
}

#[test]
fn a_copy_that_no_clear_saw_never_shows_once_its_request_was_cleared() {
    // Where it lies while the other one is forgotten: beside it, in another segment, in memory.
    for place in ["beside", "segment", "memory"] {
        let other = copy(2, 20);
        let ops = [copy(1, 10), clear(0, 3, 1, 30, &[(1, 1, 1)])];
        let mut store = Store::new(dots(ops.iter().chain([&other])));
        store.add_segment(&ops);
        match place {
            "memory" => store.add_memtable(std::slice::from_ref(&other)),
            _ => store.add_segment(std::slice::from_ref(&other)),
        }
        let all = if place == "segment" { 1 } else { store.segments.len() };
        for _ in 0..3 {
            store.compact(&(0..all).collect());
            store.segments.sort_by_key(|segment| segment.stats().spent == 0);
            assert!(store.view(0).is_empty(), "{place}");
            store.wait(2 * HOUR_MS);
        }
        // It goes with the next clear, and an hour later nothing is left of either.
        let last = clear(0, 3, 2, 40, &[(1, 1, 1), (2, 1, 1), (3, 1, 1)]);
        store.stable = dots(ops.iter().chain([&other, &last]));
        store.add_segment(&[last]);
        while !store.memtables.is_empty() {
            store.seal_oldest();
        }
        for _ in 0..3 {
            store.compact_all();
            assert!(store.view(0).is_empty(), "{place}");
            store.wait(2 * HOUR_MS);
        }
        assert_eq!((store.spent(), store.clears()), (0, 0), "{place}");
    }
}

#[test]
fn a_request_id_stays_while_another_replica_may_bring_a_copy() {
    let ops = [copy(1, 10), clear(0, 3, 1, 30, &[(1, 1, 1)])];
    let mut store = Store::of(&ops);
    store.compact_all();
    let before = store.now;
    store.wait(2 * HOUR_MS);
    for heard in [None, Some(before)] {
        store.heard = heard;
        store.compact_all();
        assert_eq!(store.spent(), 1, "not heard of all others since: {heard:?}");
    }
    // The other one comes with what it had.
    store.add_segment(&[copy(2, 20)]);
    store.wait(0);
    store.compact_all();
    assert_eq!((store.spent(), store.view(0).len()), (1, 0));

    let mut store = Store::new(dots(&ops[1..]));
    store.add_segment(&ops);
    store.compact_all();
    store.wait(2 * HOUR_MS);
    store.compact_all();
    assert_eq!(store.spent(), 1, "another replica has not met the op");
}

#[test]
fn a_request_id_stays_while_damage_may_have_taken_a_copy() {
    let ops = [copy(1, 10), clear(0, 3, 1, 30, &[(1, 1, 1)])];
    for origin in [OriginId(2), UNKNOWN_ORIGIN] {
        let mut store = Store::of(&ops);
        store.compact_all();
        store.wait(2 * HOUR_MS);
        store.lost.insert(SlotId(KEYS[0].0), origin, 1);
        store.compact_all();
        assert_eq!(store.spent(), 1, "what is lost of the slot may come back");
        store.add_segment(&[copy(2, 20)]);
        store.lost = SlotClocks::default();
        store.compact_all();
        assert_eq!((store.spent(), store.view(0).len()), (1, 0));
    }
    let mut store = Store::of(&ops);
    store.compact_all();
    store.wait(2 * HOUR_MS);
    store.lost.insert(SlotId(KEYS[2].0), OriginId(2), 1);
    store.compact_all();
    assert_eq!(store.spent(), 0, "it was of another slot");
}

#[test]
fn a_request_that_was_taken_anew_keeps_nothing() {
    let anew = HybridTime::from_wall(WallMs(2 * HOUR_MS)).0;
    let ops = [copy(1, 10), clear(0, 3, 1, 30, &[(1, 1, 1)]), copy(2, anew)];
    let mut store = Store::of(&ops);
    for spent in [1, 0] {
        store.compact_all();
        assert_eq!((store.spent(), store.view(0)), (spent, vec!["2.1".to_owned()]));
        store.wait(2 * HOUR_MS);
    }
}

#[test]
fn the_copies_of_a_long_key_are_found_too() {
    let mut ops = vec![copy(1, 10), copy(2, 20)];
    ops.extend((2..KEPT_OPS_MAX as u64 + 100).map(|seq| value(0, 2, seq, 20 + seq)));
    ops.push(clear(0, 3, 1, 30, &[(1, 1, 1)]));
    let mut store = Store::of(&ops);
    for _ in 0..3 {
        store.compact_all();
        assert_eq!((store.spent(), store.view(0).len()), (1, KEPT_OPS_MAX + 98));
        store.wait(2 * HOUR_MS);
    }
}
