//! Keys in memory and in segments, and how they are read.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::key_ops::KeyOps;
use crate::core::op::Dot;
use crate::core::slot::SlotId;
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::cache::BlockCache;
use crate::store::log::LogKey;
use crate::store::memory_disk::MemoryDisk;
use crate::store::memtable::{MemoryOps, Memtable};
use crate::store::names::NameKey;
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::store::segment::{EntryRef, SegmentMeta, SegmentWriter};
use crate::store::standing::{Look, has_values, holds_text};
use crate::types::{BODY_BYTES_MAX, Key, UserId, WallMs};

mod model;

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
    let mut memtable = Memtable::new(LogKey::without_secret(9), NameKey::new([1; 16]));
    for (op, _) in of(0) {
        memtable.append(&user, &key, op);
    }
    memtable.close_group();
    let name = (&user, &key);
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

#[test]
fn a_copy_of_a_request_that_was_cleared_shows_nothing_wherever_it_lies() {
    let with_id = |mut op: Op| {
        op.request_id = Some(RequestId([7; 16]));
        op
    };
    let spent = with_id(op(1, 1, 1, Body::Spent { cleared_at: WallMs(9) }));
    let copy = with_id(op(2, 1, 2, Body::Value("again".into())));
    for (places, block_bytes) in [(1, 100), (2, 100), (2, 16 * 1024), (4, 100), (7, 100)] {
        let ops = [(spent.clone(), places), (copy.clone(), 2)];
        let source = source(&ops, block_bytes);
        let shown = {
            let look = &mut Look::while_wanted(&|| true);
            (has_values(&source, look).unwrap(), holds_text(&source, look).unwrap())
        };
        assert_eq!(shown, (false, false), "{places}");
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

#[test]
fn a_key_with_many_ops_in_memory_is_not_read_where_others_wait_for_the_thread() {
    for (count, is_warm) in [(1_000, true), (1_100, false)] {
        let mut ops: Vec<Placed> = (1..=count)
            .map(|seq| (op(1, seq, seq, Body::Value("v".into())), 1))
            .collect();
        for has_clear in [false, true] {
            if has_clear {
                ops[500].0.body = Body::Clear(Clock::default());
            }
            let mut reader = KeyReader::new(source(&ops, 1_000), 0, u64::MAX);
            // The segments have other keys only, which are not in the cache.
            reader.source.segments.clear();
            assert_eq!(reader.is_warm(), is_warm, "{count} {has_clear}");
            assert_eq!(values(reader, 1 << 20).len() as u64, count - u64::from(has_clear));
        }
    }
}
