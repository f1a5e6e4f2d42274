//! What merges of memtables and segments keep, and what they drop.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::core::clock::MOVED;
use crate::core::op::{Body, KeyedOp};
use crate::core::stamp::{HybridTime, OriginId};
use crate::types::RequestId;

mod model;
mod requests;
mod store;

use store::Store;

const NOW: WallMs = WallMs(1_000);
const KEYS: [(u16, &str); 3] = [(1, "a"), (1, "b"), (2, "c")];

fn user() -> UserId {
    UserId::new("u").unwrap()
}

fn keyed(key: usize, origin: u64, seq: u64, time: u64, body: Body) -> KeyedOp {
    let (slot, key) = KEYS[key];
    KeyedOp {
        user: user(),
        key: Key::new(key).unwrap(),
        op: Op {
            dot: Dot {
                origin: OriginId(origin),
                slot: SlotId(slot),
                seq,
            },
            time: HybridTime(time),
            request_id: None,
            body,
        },
    }
}

fn value(key: usize, origin: u64, seq: u64, time: u64) -> KeyedOp {
    keyed(key, origin, seq, time, Body::Value(format!("{origin}.{seq}").into()))
}

fn clear(key: usize, origin: u64, seq: u64, time: u64, seen: &[(u64, u64, u64)]) -> KeyedOp {
    let mut clock = Clock::default();
    for &(origin, first, last) in seen {
        clock.insert_range(OriginId(origin), first, last);
    }
    keyed(key, origin, seq, time, Body::Clear(clock))
}

fn dots<'a>(ops: impl IntoIterator<Item = &'a KeyedOp>) -> SlotClocks {
    let mut clocks = SlotClocks::default();
    for KeyedOp { op, .. } in ops {
        clocks.insert(op.dot.slot, op.dot.origin, op.dot.seq);
    }
    clocks
}

#[test]
fn a_collected_clear_leaves_its_dot_and_what_it_saw_and_merges_pass_it_on() {
    let ops = [value(0, 1, 1, 10), value(1, 1, 2, 20), clear(0, 2, 1, 30, &[(1, 1, 2)])];
    let mut store = Store::new(SlotClocks::default());
    store.add_segment(&ops);
    store.compact_all();
    assert_eq!(
        (store.clears(), store.collected().is_empty()),
        (1, true),
        "not every replica knows it"
    );
    // It is known, but not all that it saw.
    store.stable = dots([&ops[0], &ops[2]]);
    store.compact_all();
    assert_eq!((store.clears(), store.collected().is_empty()), (1, true));
    store.stable = dots(&ops);
    store.compact_all();
    assert_eq!((store.clears(), store.collected()), (0, dots(&ops)));
    assert_eq!((store.view(0), store.view(1)), (vec![], vec!["1.2".to_owned()]));
    store.add_segment(&[value(2, 1, 1, 40)]);
    store.compact_all();
    assert_eq!(store.collected(), dots(&ops), "passed on");
    let segment = &store.segments[0];
    let again = Segment::open(
        &store.disk.as_disk(),
        Path::new("/shard"),
        0,
        segment.number(),
        &store.cache,
    )
    .unwrap();
    assert_eq!(*again.collected(), dots(&ops), "it stands in the file");
}

#[test]
fn a_clear_stays_while_a_memtable_holds_what_it_covers() {
    // The clear came first, and was sealed; the value that it saw elsewhere came behind it.
    let (late, clear) = (value(0, 1, 1, 10), clear(0, 2, 1, 30, &[(1, 1, 1)]));
    let newer = value(0, 3, 1, 40);
    let mut store = Store::new(dots([&late, &clear, &newer]));
    store.add_segment(std::slice::from_ref(&clear));
    store.add_memtable(&[newer.clone(), late.clone()]);
    store.compact_all();
    assert_eq!(store.clears(), 1);
    assert_eq!(store.view(0), ["3.1"]);
    store.seal_oldest();
    assert_eq!(store.view(0), ["3.1"]);
    store.compact_all();
    assert_eq!((store.clears(), store.view(0)), (0, vec!["3.1".to_owned()]));

    // What it did not see does not keep it.
    let mut store = Store::new(dots([&late, &clear, &newer]));
    store.add_segment(&[late, clear]);
    store.add_memtable(&[newer]);
    store.compact_all();
    assert_eq!((store.clears(), store.view(0)), (0, vec!["3.1".to_owned()]));
}

#[test]
fn a_salvage_collects_nothing() {
    let ops = [value(0, 1, 1, 10), clear(0, 2, 1, 30, &[(1, 1, 1)])];
    let mut store = Store::of(&ops);
    let source = Source::Segment(store.segments[0].clone());
    let context = MergeContext {
        salvage: true,
        ..store.context(Vec::new())
    };
    let Progress::Done(merged) = Box::new(Merge::start(vec![source], context).unwrap())
        .step(1 << 20)
        .unwrap()
    else {
        panic!("so little in one step");
    };
    let segment = merged.segment;
    assert_eq!((segment.stats().clears, segment.collected().is_empty()), (1, true));
}

#[test]
fn what_is_known_to_be_dropped_elsewhere_is_covered_and_not_lost() {
    let mut store = Store::new(SlotClocks::default());
    store.add_segment(&[value(0, 1, 1, 10)]);
    store.covered_extra.insert_range(SlotId(1), OriginId(2), 1, 5);
    store.lost.insert_range(SlotId(1), OriginId(2), 4, 7);
    store.compact_all();
    let mut covered = store.covered_extra.clone();
    covered.insert(SlotId(1), OriginId(1), 1);
    assert_eq!(store.covered(), covered);
    let mut lost = SlotClocks::default();
    lost.insert_range(SlotId(1), OriginId(2), 6, 7);
    assert_eq!(*store.segments[0].lost(), lost);
}

#[test]
fn a_long_key_is_merged_in_as_many_steps_as_many_short_ones() {
    let count = 3 * KEPT_OPS_MAX as u64;
    let ops: Vec<_> = (1..=count).map(|seq| value(0, 1, seq, seq)).collect();
    let mut store = Store::of(&ops);
    let sources = store.segments.iter().cloned().map(Source::Segment).collect();
    let mut merge = Box::new(Merge::start(sources, store.context(Vec::new())).unwrap());
    let (budget, mut steps, mut longest) = (64 * 1024, 0, 0);
    loop {
        let before = merge.read_ops();
        match merge.step(budget).unwrap() {
            Progress::More(more) => {
                merge = more;
                steps += 1;
                longest = longest.max(merge.read_ops() - before);
            }
            Progress::Done(merged) => break assert_eq!(merged.segment.stats().ops, count),
        }
    }
    // What is held of a key before it is known to be long is one step.
    assert!(steps > 15 && longest <= KEPT_OPS_MAX as u64 + 1, "{steps}, {longest}");
}

#[test]
fn to_step_over_damage_does_not_take_longer_for_each_op_the_more_of_a_slot_there_are() {
    const OPS: u64 = 20_000;
    let mut store = Store::new(SlotClocks::default());
    let shuffled = (0..OPS).map(|index| {
        let mut op = value(0, 1, 1 + index * 7_919 % OPS, 10 + index);
        op.key = Key::new(&format!("{index:08}")).unwrap();
        op
    });
    store.add_segment(&shuffled.collect::<Vec<_>>());
    let source = Source::Segment(store.segments[0].clone());
    let mut context = store.context(Vec::new());
    context.salvage = true;
    let before = MOVED.get();
    let mut merge = Box::new(Merge::start(vec![source], context).unwrap());
    let merged = loop {
        match merge.step(1 << 20).unwrap() {
            Progress::More(more) => merge = more,
            Progress::Done(merged) => break merged,
        }
    };
    assert!(MOVED.get() - before < OPS, "{} ranges were moved", MOVED.get() - before);
    assert_eq!((merged.segment.stats().ops, merged.segment.lost().count()), (OPS, 0));
}

#[test]
fn a_key_of_clears_that_saw_much_is_long_too() {
    let (clears, origins) = (50, 1_000);
    let ops: Vec<_> = (1..=clears)
        .map(|seq| {
            let seen: Vec<_> = (1..=origins).map(|origin| (1 + origin, 1, seq)).collect();
            clear(0, 1, seq, seq, &[&seen[..], &[(1, 1, seq - 1)]].concat())
        })
        .collect();
    let mut store = Store::new(SlotClocks::default());
    store.add_memtable(&ops);
    let sources = vec![Source::Memtable(store.memtables[0].clone())];
    let mut merge = Box::new(Merge::start(sources, store.context(Vec::new())).unwrap());
    let Progress::More(more) = merge.step(1).unwrap() else {
        panic!("all of them were held at once");
    };
    merge = more;
    assert!(merge.read_ops() < clears, "{} were held at once", merge.read_ops());
    let merged = loop {
        match merge.step(1 << 20).unwrap() {
            Progress::More(more) => merge = more,
            Progress::Done(merged) => break merged,
        }
    };
    assert_eq!((merged.segment.stats().clears, merged.segment.stats().ops), (1, 1));
}
