//! Whatever way a key is read, its view is that of the model (`core::key_ops`).

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::key_ops::KeyOps;
use crate::core::op::Dot;
use crate::core::slot::{KeyHash, SlotId};
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::cache::BlockCache;
use crate::store::log::LogKey;
use crate::store::memory_disk::MemoryDisk;
use crate::store::memtable::{MemoryOps, Memtable};
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::store::segment::{EntryRef, SegmentMeta, SegmentWriter};
use crate::types::{BODY_BYTES_MAX, Key, UserId, WallMs};

const SLOT: SlotId = SlotId(5);
const KEYS: [&str; 3] = ["before", "key", "later"];

/// Which op, and which sources hold it: bit 0 is the memory, the others are segments.
type Placed = (Op, u8);

fn op(origin: u64, seq: u64, time: u64, body: Body) -> Op {
    Op {
        dot: Dot {
            origin: OriginId(origin),
            slot: SLOT,
            seq,
        },
        time: HybridTime(time << 15),
        request_id: None,
        body,
    }
}

/// Whose an op is: some ops of one origin, some of the next, and round again.
#[derive(Debug, Clone, Copy)]
struct Turns {
    origins: u64,
    ops: u64,
}

impl Turns {
    fn origin_of(self, index: usize) -> OriginId {
        OriginId(1 + index as u64 / self.ops % self.origins)
    }
}

fn turns() -> impl Strategy<Value = Turns> {
    let several = (2u64..4, 1u64..20).prop_map(|(origins, ops)| Turns { origins, ops });
    prop_oneof![Just(Turns { origins: 1, ops: 1 }), several]
}

/// As ops come about: ascending times, each op by chance of another kind than a plain value. `requests`: so many request ids there are.
fn placed_ops(odd: u32, requests: u8) -> impl Strategy<Value = Vec<Placed>> {
    turns().prop_flat_map(move |turns| placed_ops_of(turns, odd, requests))
}

fn placed_ops_of(turns: Turns, odd: u32, requests: u8) -> impl Strategy<Value = Vec<Placed>> {
    let kind = prop_oneof![
        20 => Just(0u8),
        5 => Just(1),
        odd => 2u8..5,
    ];
    let one = (
        kind,
        1u8..8,
        any::<bool>(),
        0usize..40,
        proptest::option::of(0..requests),
    );
    proptest::collection::vec(one, 0..24).prop_map(move |list| {
        let mut ops: Vec<Placed> = Vec::new();
        let mut place = 2;
        for (index, (kind, places, moves_on, length, request)) in list.into_iter().enumerate() {
            let seq = index as u64 + 1;
            let text = || "ä".repeat(length).into();
            let mut op = op(1, seq, seq * 3, Body::Value(text()));
            op.dot.origin = turns.origin_of(index);
            op.request_id = request.map(|id| RequestId([id; 16]));
            // Mostly, a source takes over where another ended.
            place = if moves_on && index % 5 == 0 {
                1 << (places % 3)
            } else {
                place
            };
            let mut within = place;
            match kind {
                1 => op.body = Body::Part(text()),
                2 => {
                    let mut seen = Clock::default();
                    seen.insert_range(OriginId(1), 1 + seq / 2, seq.saturating_sub(2));
                    op.body = Body::Clear(seen);
                }
                3 => op.body = Body::Spent { cleared_at: WallMs(9) },
                4 => op.dot.origin = OriginId(9),
                _ => {}
            }
            if kind > 1 {
                within = places;
            }
            ops.push((op, within));
        }
        ops
    })
}

/// How one op of a long list differs from a plain value.
#[derive(Debug, Clone, Copy)]
enum Odd {
    Part,
    Clear,
    Spent,
    OfOtherOrigin,
    /// Its source is, and took again a request id that the first op has.
    SourceOfOtherOrigin,
    InTwoSources,
}

/// Nothing but values, source after source; by chance one op is odd.
fn long_list(odd: impl Strategy<Value = Option<(usize, Odd)>>) -> impl Strategy<Value = Vec<Placed>> {
    let values = proptest::collection::vec((0usize..40, proptest::option::of(any::<[u8; 16]>())), 1..150);
    let places = Just([1u8, 2, 4]).prop_shuffle();
    let cuts = (1usize..150, 1usize..150);
    (values, places, cuts, turns(), odd).prop_map(|(values, places, (one, other), turns, odd)| {
        let turn = |index: usize| places[usize::from(index >= one) + usize::from(index >= other)];
        let value = |(index, (length, id)): (usize, (usize, Option<[u8; 16]>))| {
            let seq = index as u64 + 1;
            let mut value = op(
                1,
                seq,
                seq * 3,
                Body::Value(format!("{seq}{}", "ä".repeat(length)).into()),
            );
            value.request_id = id.map(RequestId);
            value.dot.origin = turns.origin_of(index);
            (value, turn(index))
        };
        let mut ops: Vec<Placed> = values.into_iter().enumerate().map(value).collect();
        if let Some((at, odd)) = odd {
            let at = at % ops.len();
            let (first, place) = (RequestId([7; 16]), ops[at].1);
            ops[0].0.request_id = Some(first);
            if matches!(odd, Odd::SourceOfOtherOrigin) {
                for (op, _) in ops.iter_mut().filter(|(_, places)| *places == place) {
                    op.dot.origin = OriginId(9);
                }
            }
            let (op, places) = &mut ops[at];
            match odd {
                Odd::Part => op.body = Body::Part("part".into()),
                Odd::Clear => {
                    let mut seen = Clock::default();
                    seen.insert_range(OriginId(1), 1, at as u64 / 2 + 1);
                    op.body = Body::Clear(seen);
                }
                Odd::Spent => op.body = Body::Spent { cleared_at: WallMs(9) },
                Odd::OfOtherOrigin => op.dot.origin = OriginId(9),
                Odd::SourceOfOtherOrigin => op.request_id = Some(first),
                Odd::InTwoSources => *places = 7,
            }
        }
        ops
    })
}

fn source(ops: &[Placed], block_bytes: usize) -> KeySource {
    source_on(&MemoryDisk::new(), ops, block_bytes)
}

fn source_on(disk: &MemoryDisk, ops: &[Placed], block_bytes: usize) -> KeySource {
    let cache = Arc::new(BlockCache::new(1 << 20));
    let of = |bit: u8| ops.iter().filter(move |placed| placed.1 >> bit & 1 == 1);
    let segments = [1, 2].map(|bit| {
        let meta = SegmentMeta {
            shard: 1,
            number: u64::from(bit),
            replaces: Vec::new(),
        };
        let mut writer =
            SegmentWriter::with_block_bytes(disk.as_disk(), Path::new("/shard"), meta, block_bytes).unwrap();
        for key in KEYS {
            let other = [op(7, 1, 1, Body::Value("not of this key".into()))];
            let ops: Vec<&Op> = match key {
                "key" => of(bit).map(|(op, _)| op).collect(),
                _ => other.iter().collect(),
            };
            for op in ops {
                let (slot, user) = (SLOT, "user");
                writer.push(EntryRef { slot, user, key, op }).unwrap();
            }
        }
        let mut covered = SlotClocks::default();
        of(bit).for_each(|(op, _)| covered.insert(SLOT, op.dot.origin, op.dot.seq));
        let finished = writer.finish(covered, SlotClocks::default(), &cache);
        Arc::new(finished.unwrap())
    });
    let (user, key) = (UserId::new("user").unwrap(), Key::new("key").unwrap());
    let mut memtable = Memtable::new(LogKey::without_secret(9));
    for (op, _) in of(0) {
        memtable.append(KeyHash::of(&user, &key), &user, &key, op);
    }
    memtable.close_group();
    let name = (KeyHash::of(&user, &key), &user, &key);
    KeySource {
        slot: SLOT,
        memory: MemoryOps::of([&memtable.share()], name, Memtable::closed_groups),
        user,
        key,
        // A merge puts the older ops behind the newer ones.
        segments: segments.into_iter().rev().collect(),
    }
}

fn values(mut reader: KeyReader, budget_bytes: usize) -> Vec<String> {
    let (mut values, mut open) = (Vec::new(), String::new());
    loop {
        let batch = reader.next_batch(budget_bytes).unwrap();
        if batch.is_empty() {
            assert_eq!(open, "", "a value without an end");
            return values;
        }
        for fragment in batch {
            open.push_str(fragment.text.as_ref());
            if fragment.ends_value {
                values.push(std::mem::take(&mut open));
            }
        }
    }
}

fn folding(source: &KeySource) -> KeyReader {
    KeyReader {
        state: State::NotPlain,
        ..KeyReader::new(source.clone(), 0, u64::MAX)
    }
}

fn view_of(ops: &[Placed]) -> Vec<String> {
    let mut model = KeyOps::default();
    ops.iter().for_each(|(op, _)| model.insert(op.clone()));
    model.view()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_short_way_and_the_fold_give_the_view(
        ops in prop_oneof![3 => placed_ops(1, 3), 1 => placed_ops(12, 3), 2 => placed_ops(1, 200)],
        block_bytes in prop_oneof![Just(100usize), Just(16 * 1024)],
        (offset, limit, budget) in (0u64..6, prop_oneof![Just(u64::MAX), 0u64..9], 0usize..4000),
        warmed in any::<bool>(),
    ) {
        let source = source(&ops, block_bytes);
        let view = view_of(&ops);
        prop_assert_eq!(values(folding(&source), budget), view.clone());
        let mut reader = KeyReader::new(source.clone(), offset, limit);
        prop_assert_eq!(KeyReader::new(source.clone(), 0, 1).is_warm(), source.is_warm());
        if warmed {
            KeyReader::new(source.clone(), 0, 1).next().unwrap();
            reader.is_warm();
        }
        let page: Vec<String> = view.iter().skip(offset as usize).take(limit.min(99) as usize).cloned().collect();
        prop_assert_eq!(values(reader, budget), page);
        prop_assert_eq!(KeyReader::new(source.clone(), offset, limit).count().unwrap(), view.len() as u64);
        prop_assert_eq!(folding(&source).count().unwrap(), view.len() as u64);
    }

    #[test]
    fn a_page_of_a_long_list_is_that_of_the_view(
        ops in long_list(proptest::option::of((0usize..150, prop_oneof![
            Just(Odd::Part), Just(Odd::Clear), Just(Odd::Spent), Just(Odd::OfOtherOrigin),
            Just(Odd::SourceOfOtherOrigin), Just(Odd::InTwoSources),
        ]))),
        block_bytes in 60usize..1000,
        (offset, limit, budget) in (0u64..160, prop_oneof![Just(u64::MAX), 0u64..30], 0usize..4000),
        warmed in any::<bool>(),
    ) {
        let source = source(&ops, block_bytes);
        let view = view_of(&ops);
        let mut reader = KeyReader::new(source.clone(), offset, limit);
        if warmed {
            reader.is_warm();
        }
        let page: Vec<String> = view.iter().skip(offset as usize).take(limit.min(999) as usize).cloned().collect();
        prop_assert_eq!(values(reader, budget), page);
        prop_assert_eq!(KeyReader::new(source.clone(), offset, limit).count().unwrap(), view.len() as u64);
        prop_assert_eq!(values(folding(&source), budget), view);
    }

    #[test]
    fn a_list_of_nothing_but_values_is_not_folded(ops in long_list(Just(None)), block_bytes in 60usize..1000) {
        let mut reader = KeyReader::new(source(&ops, block_bytes), 0, u64::MAX);
        reader.start().unwrap();
        prop_assert!(matches!(reader.state, State::Plain(_) | State::Spread(_)));
    }

    #[test]
    fn a_key_of_nothing_but_text_goes_the_short_way(ops in placed_ops(0, 3), turns in (0usize..25, 0usize..25)) {
        let mut ops = ops;
        // Whoever took them, no request id came twice.
        for (index, (op, _)) in ops.iter_mut().enumerate() {
            op.request_id = op.request_id.map(|_| RequestId([index as u8; 16]));
        }
        for (index, (_, places)) in ops.iter_mut().enumerate() {
            *places = match index {
                index if index < turns.0.min(turns.1) => 2,
                index if index < turns.0.max(turns.1) => 4,
                _ => 1,
            };
        }
        let source = source(&ops, 16 * 1024);
        let Plain::View(fragments) = plain::view(&source, Reach::Disk).unwrap() else {
            panic!("it was folded");
        };
        prop_assert_eq!(fragments.iter().filter(|fragment| fragment.ends_value).count(), view_of(&ops).len());
        // What was read is in reach now.
        prop_assert!(KeyReader::new(source, 0, 1).is_warm());
    }
}

#[test]
fn a_page_of_a_huge_list_reads_its_own_blocks_and_the_edges() {
    let count = 50_000;
    let value = |seq: u64| op(1, seq, seq, Body::Value(format!("value {seq}").into()));
    // The first half is in one segment, the second in the other.
    let ops: Vec<Placed> = (1..=count)
        .map(|seq| (value(seq), if seq * 2 <= count { 2 } else { 4 }))
        .collect();
    for percent in [0, 50, 99] {
        let disk = MemoryDisk::new();
        let source = source_on(&disk, &ops, 1024);
        let blocks: u32 = source.segments.iter().map(|segment| segment.block_count()).sum();
        assert!(blocks > 500);
        let before = disk.reads();
        let offset = count * percent / 100;
        let page = values(KeyReader::new(source.clone(), offset, 20), 1 << 16);
        let expected: Vec<String> = (1..=20).map(|more| format!("value {}", offset + more)).collect();
        assert_eq!(page, expected);
        assert!(
            disk.reads() - before <= 8,
            "{} reads at {percent}%",
            disk.reads() - before
        );
        assert_eq!(KeyReader::new(source, 0, u64::MAX).count().unwrap(), count);
        assert!(disk.reads() - before <= 8, "{} reads to count", disk.reads() - before);
    }
}

#[test]
fn a_request_id_from_two_origins_counts_once_however_far_apart_they_lie() {
    let with_id = |origin, time, text: &str| Op {
        request_id: Some(RequestId([7; 16])),
        ..op(origin, 1, time, Body::Value(text.into()))
    };
    // Each in a source of its own: one in a segment, the other in another one, or in memory.
    for later in [0b001, 0b100] {
        let ops = [(with_id(1, 10, "first"), 0b010), (with_id(2, 1_000, "again"), later)];
        let reader = KeyReader::new(source(&ops, 16 * 1024), 0, u64::MAX);
        assert_eq!(values(reader, 1 << 16), ["first"], "later in {later:b}");
    }
}

#[test]
fn what_came_later_is_left_out_of_what_is_in_memory_and_cannot_be_out_of_a_segment() {
    let value = |seq: u64| op(1, seq, seq, Body::Value(format!("v{seq}").into()));
    let lost = op(UNKNOWN_ORIGIN.0, 1, 2, Body::Spent { cleared_at: WallMs(1) });
    let mut cleared = Clock::default();
    cleared.insert(OriginId(1), 2);
    let clear = op(2, 1, 9, Body::Clear(cleared));
    let in_segment = [(value(1), 0b010), (lost, 0b010)];
    let in_memory = [value(2), value(3), value(4), clear].map(|op| (op, 0b001));
    let source = source(&[&in_segment[..], &in_memory].concat(), 16 * 1024);
    assert_eq!(
        source.last_stamp().unwrap(),
        Some(op(2, 1, 9, Body::Part("".into())).stamp())
    );

    let mut clock = Clock::default();
    assert!(source.within(&clock, Some(value(3).stamp())).is_none());
    clock.insert_range(OriginId(1), 1, 2);
    let list = |until: Option<Op>| {
        let within = source.within(&clock, until.map(|op| op.stamp())).unwrap();
        values(KeyReader::new(within, 0, u64::MAX), 1 << 16)
    };
    assert_eq!(list(None), ["v1"]);
    assert_eq!(list(Some(value(3))), ["v1", "v3"]);
    assert_eq!(list(Some(value(4))), ["v1", "v3", "v4"]);
}

#[test]
fn keys_and_lists_of_several_origins_need_no_fold() {
    for has_ids in [false, true] {
        for count in [3u64, 2_000] {
            let value = |seq: u64| {
                let mut value = op(seq % 3, seq, seq, Body::Value(format!("value {seq}").into()));
                let id = if has_ids {
                    seq.to_le_bytes().repeat(2)
                } else {
                    Vec::new()
                };
                value.request_id = id.try_into().ok().map(RequestId);
                let place = if seq * 2 <= count { 2 } else { 1 };
                (value, place)
            };
            let mut ops: Vec<Placed> = (1..=count).map(value).collect();
            let mut reader = KeyReader::new(source(&ops, 1024), 0, u64::MAX);
            reader.start().unwrap();
            assert!(
                matches!(reader.state, State::Plain(_) | State::Spread(_)),
                "{has_ids}, {count}"
            );
            assert_eq!(values(reader, 1 << 20), view_of(&ops));
            // A request id that came twice is for the fold, and for it alone.
            let twice = Some(RequestId([9; 16]));
            (ops[0].0.request_id, ops[count as usize - 1].0.request_id) = (twice, twice);
            let mut reader = KeyReader::new(source(&ops, 1024), 0, u64::MAX);
            reader.start().unwrap();
            assert!(matches!(reader.state, State::Folded(..)), "{has_ids}, {count}");
            assert_eq!(values(reader, 1 << 20), view_of(&ops));
        }
    }
}

#[test]
fn what_does_not_fit_into_a_batch_comes_in_the_next_one_and_a_huge_text_alone() {
    let budget = 64 << 10;
    let mut texts = vec!["x".repeat(1_000); 40];
    texts.extend(["x".repeat(BODY_BYTES_MAX), "behind it".to_owned(), "never".to_owned()]);
    let ops: Vec<Placed> = (1..)
        .zip(&texts)
        .map(|(seq, text)| (op(1, seq, seq, Body::Value(text.as_str().into())), 2))
        .collect();
    let source = source(&ops, 16 * 1024);
    let readers = || {
        [
            KeyReader::new(source.clone(), 0, 42),
            KeyReader {
                left: 42,
                ..folding(&source)
            },
        ]
    };
    for mut reader in readers() {
        let lens: Vec<usize> = (0..4).map(|_| reader.next_batch(budget).unwrap().len()).collect();
        assert_eq!(lens, [40, 1, 1, 0]);
    }
    for reader in readers() {
        assert_eq!(values(reader, budget), texts[..42]);
    }
    // The last one that was asked for is the one that did not fit.
    let mut reader = KeyReader::new(source.clone(), 0, 41);
    let lens: Vec<usize> = (0..3).map(|_| reader.next_batch(budget).unwrap().len()).collect();
    assert_eq!(lens, [40, 1, 0]);
}
