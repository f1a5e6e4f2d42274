//! Whole segments: written, read back, damaged.

mod costs;
mod damage;
mod files;
mod reading;
mod rules;
mod size;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Body, Dot, KeyedOp, Op};
use crate::core::slot::KeyHash;
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::filter::request_tag;
use crate::store::memory_disk::MemoryDisk;
use crate::types::{Key, RequestId, UserId, WallMs};

const DIR: &str = "/shard";
const SHARD: u16 = 3;
const NUMBER: u64 = 0x2a;
const NOW_MS: u64 = 1_790_000_000_000;

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn path() -> std::path::PathBuf {
    dir().join(file_name(NUMBER))
}

fn meta() -> SegmentMeta {
    SegmentMeta {
        shard: SHARD,
        number: NUMBER,
        replaces: vec![7, 8],
    }
}

fn cache() -> Arc<BlockCache> {
    Arc::new(BlockCache::new(1 << 20))
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap_or_else(|_| UserId::system())
}

fn keyed(slot: u16, name: &str, key: &str, op: Op) -> KeyedOp {
    let mut op = op;
    op.dot.slot = SlotId(slot);
    KeyedOp {
        user: user(name),
        key: Key::new(key).unwrap(),
        op,
    }
}

fn op(origin: u64, seq: u64, time: u64, body: Body) -> Op {
    Op {
        dot: Dot {
            origin: OriginId(origin),
            slot: SlotId(0),
            seq,
        },
        time: HybridTime(time),
        request_id: None,
        body,
    }
}

fn value(seq: u64, text: &str) -> Op {
    op(1, seq, (NOW_MS + seq) << 16, Body::Value(text.into()))
}

/// Sorted, without two ops of one key and stamp.
fn sorted(entries: Vec<KeyedOp>) -> Vec<KeyedOp> {
    let place = |entry: &KeyedOp| {
        let names = (entry.user.as_str().to_owned(), entry.key.as_str().to_owned());
        (entry.op.dot.slot, names, entry.op.stamp())
    };
    let map: BTreeMap<_, _> = entries.into_iter().map(|entry| (place(&entry), entry)).collect();
    map.into_values().collect()
}

fn write(disk: &MemoryDisk, entries: &[KeyedOp], block_bytes: usize, cache: &Arc<BlockCache>) -> Arc<Segment> {
    let mut writer = SegmentWriter::with_block_bytes(disk.as_disk(), dir(), meta(), block_bytes).unwrap();
    push_all(&mut writer, entries);
    Arc::new(writer.finish(covered(entries), lost(), cache).unwrap())
}

fn push_all(writer: &mut SegmentWriter, entries: &[KeyedOp]) {
    for entry in entries {
        let pushed = writer.push(EntryRef {
            slot: entry.op.dot.slot,
            user: entry.user.as_str(),
            key: entry.key.as_str(),
            op: &entry.op,
        });
        pushed.unwrap();
    }
}

fn covered(entries: &[KeyedOp]) -> SlotClocks {
    let mut covered = SlotClocks::default();
    for entry in entries {
        let dot = entry.op.dot;
        covered.insert(dot.slot, dot.origin, dot.seq);
    }
    covered
}

fn lost() -> SlotClocks {
    let mut lost = SlotClocks::default();
    lost.insert_range(SlotId(1), OriginId(9), 100, 120);
    lost
}

fn scan_all(mut scan: Scan) -> Vec<KeyedOp> {
    let mut found = Vec::new();
    while let Some(entry) = scan.next().unwrap() {
        found.push(entry);
    }
    found
}

fn ops_of(segment: &Arc<Segment>, entry: &KeyedOp) -> Result<Vec<Op>, ReadError> {
    let mut cursor = segment.ops_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str());
    let mut ops = Vec::new();
    while let Some(op) = cursor.next()? {
        ops.push(op);
    }
    Ok(ops)
}

fn same_key<'a>(entries: &'a [KeyedOp], key: &'a KeyedOp) -> impl Iterator<Item = &'a KeyedOp> {
    let id = |entry: &'a KeyedOp| (entry.op.dot.slot, &entry.user, &entry.key);
    entries.iter().filter(move |entry| id(entry) == id(key))
}

/// A key each, with one value.
fn numbered_keys(count: u64) -> Vec<KeyedOp> {
    let entry = |seq| keyed(5, "u", &format!("k{seq:03}"), value(seq, "value"));
    (1..=count).map(entry).collect()
}

fn hash_of(entry: &KeyedOp) -> KeyHash {
    KeyHash::of(&entry.user, &entry.key)
}

fn request(number: u64) -> RequestId {
    RequestId((u128::from(number) << 40 | 1).to_le_bytes())
}

/// As a retried add asks.
fn holds(segment: &Arc<Segment>, entry: &KeyedOp, id: RequestId) -> bool {
    let tag = request_tag(hash_of(entry), id);
    let mut ops = segment.ops_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str());
    segment.may_hold(entry.op.dot.slot, tag) && ops.next_of_request(tag, id).unwrap().is_some()
}

fn body() -> impl Strategy<Value = Body> {
    let text = prop_oneof![
        4 => "[a-zä]{0,40}",
        1 => "[a-z0-9]{200,900}",
        1 => (0usize..3000).prop_map(|length| "x".repeat(length)),
    ];
    prop_oneof![
        1 => text.clone().prop_map(|text| Body::Part(text.into())),
        6 => text.prop_map(|text| Body::Value(text.into())),
        1 => proptest::collection::vec((0u64..4, 1u64..500, 0u64..9), 0..5).prop_map(|ranges| {
            let mut clock = Clock::default();
            ranges.iter().for_each(|&(origin, first, more)| clock.insert_range(OriginId(origin), first, first + more));
            Body::Clear(clock)
        }),
        1 => (0u64..u64::MAX).prop_map(|time| Body::Spent { cleared_at: WallMs(time) }),
    ]
}

fn any_entry() -> impl Strategy<Value = KeyedOp> {
    let name = prop_oneof![4 => "[ab]{0,2}", 1 => "[\u{0}\u{1}a]{1,3}", 1 => Just("u".repeat(256))];
    let key = prop_oneof![8 => "[kl]{1,3}", 1 => "[k\u{0}]{1,3}", 1 => "[k]{1000,1024}"];
    let slot = prop_oneof![0u16..3, Just(1024u16)];
    let time = prop_oneof![8 => 0u64..5000, 1 => any::<u64>()];
    let rest = (0u64..3, 1u64..100_000, time, proptest::option::of(any::<[u8; 16]>()));
    (slot, name, key, body(), rest).prop_map(|(slot, name, key, body, (origin, seq, time, request))| {
        let time = if time < 5000 {
            (NOW_MS << 16) + (time << 12)
        } else {
            time
        };
        let op = Op {
            request_id: request.map(RequestId),
            ..op(origin << 60, seq, time, body)
        };
        keyed(slot, &name, &key, op)
    })
}

fn any_entries() -> impl Strategy<Value = Vec<KeyedOp>> {
    proptest::collection::vec(any_entry(), 0..120).prop_map(sorted)
}
