//! Valid inputs for each target: what a fuzzer begins from.

use std::sync::Arc;

use kv_storage::core::clock::{Clock, SlotClocks};
use kv_storage::core::op::{Body, Dot, Op};
use kv_storage::core::slot::{KeyHash, SlotId, slot_of};
use kv_storage::core::stamp::{HybridTime, OriginId};
use kv_storage::os::RealDisk;
use kv_storage::store::cache::BlockCache;
use kv_storage::store::codec::put_slot_clocks;
use kv_storage::store::disk::Disk;
use kv_storage::store::filter::Filter;
use kv_storage::store::log::{self, LogHeader, LogKey, LogSecret, Previous, Record};
use kv_storage::store::segment::{self, EntryRef, SegmentMeta, SegmentWriter};
use kv_storage::types::{Key, RequestId, UserId, WallMs};

use super::reseal;

const LOG_NUMBER: u64 = 3;
const LOG_SECRET: LogSecret = LogSecret::new(*b"secret of a fuzz");
pub const SEGMENT_NUMBER: u64 = 5;
/// Small, so that a small segment has several blocks.
const BLOCK_BYTES: usize = 512;

fn clock(ranges: &[(u64, u64, u64)]) -> Clock {
    let mut clock = Clock::default();
    for &(origin, first, last) in ranges {
        clock.insert_range(OriginId(origin), first, last);
    }
    clock
}

fn slot_clocks() -> SlotClocks {
    let mut clocks = SlotClocks::default();
    clocks.join_slot(SlotId(0), &clock(&[(1, 1, 5), (1, 9, 9), (2, 3, 700)]));
    clocks.join_slot(SlotId(513), &clock(&[(u64::MAX, 1, u64::MAX - 1)]));
    clocks
}

pub fn clocks() -> Vec<Vec<u8>> {
    let encode = |clocks: &SlotClocks| {
        let mut bytes = Vec::new();
        put_slot_clocks(&mut bytes, clocks);
        bytes
    };
    vec![encode(&SlotClocks::default()), encode(&slot_clocks())]
}

/// Ops of several kinds and keys, in the order of a segment.
fn ops(users: &[&str]) -> Vec<(UserId, Key, Op)> {
    let mut all = Vec::new();
    for user in users {
        for index in 0..12u64 {
            let (user, key) = (
                UserId::new(user).expect("short"),
                Key::new(&format!("key {}", index / 3)).expect("short"),
            );
            let slot = slot_of(&user, KeyHash::of(&user, &key));
            let body = match index % 6 {
                0 => Body::Part("part ".repeat(index as usize).into()),
                1 => Body::Clear(clock(&[(1, 1, index + 1), (9, 2, 2)])),
                2 => Body::Spent {
                    cleared_at: WallMs(1_000),
                },
                _ => Body::Value(format!("значение {index} {}", "x".repeat(40 * index as usize)).into()),
            };
            let op = Op {
                dot: Dot {
                    origin: OriginId(1 + index % 2),
                    slot,
                    seq: index + 1,
                },
                time: HybridTime(1_700_000_000_000 << 16 | index),
                request_id: (index % 2 == 0).then_some(RequestId([index as u8; 16])),
                body,
            };
            all.push((user, key, op));
        }
    }
    all.sort_by_key(|(user, key, op)| (op.dot.slot, user.clone(), key.clone(), op.stamp()));
    all
}

/// Of the versions with and without a secret.
pub fn log_keys() -> [LogKey; 2] {
    [LogKey::new(LOG_NUMBER, LOG_SECRET), LogKey::without_secret(LOG_NUMBER)]
}

pub fn logs() -> Vec<Vec<u8>> {
    [Some(LOG_SECRET), None].into_iter().flat_map(logs_with).collect()
}

fn logs_with(secret: Option<LogSecret>) -> Vec<Vec<u8>> {
    let header = LogHeader {
        shard: 0,
        number: LOG_NUMBER,
        previous: Previous { number: 2, end: 4096 },
        secret,
    };
    let mut bytes = header.encode().to_vec();
    let mut group_start = 0;
    for (ordinal, (user, key, op)) in (0..).zip(&ops(&["a", "ab"])) {
        let offset = bytes.len() as u64;
        if ordinal % 2 == 0 {
            group_start = offset;
        }
        let place = log::Place {
            key: header.key(),
            offset,
            group_back: (offset - group_start) as u32,
            ordinal,
        };
        let record = Record {
            user: user.as_str(),
            key: key.as_str(),
            op,
        };
        log::put_record(&mut bytes, place, record);
    }
    let mut filled = bytes.clone();
    filled.resize(bytes.len() + 1024, 0);
    vec![header.encode().to_vec(), bytes, filled]
}

/// A segment of these users' ops, in blocks of several kinds.
fn segment_of(users: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::default());
    let meta = SegmentMeta {
        shard: 0,
        number: SEGMENT_NUMBER,
        replaces: vec![LOG_NUMBER, 4],
    };
    let writer = SegmentWriter::with_block_bytes(disk, dir.path(), meta, BLOCK_BYTES);
    let mut writer = writer.expect("a segment can be begun");
    for (user, key, op) in &ops(users) {
        let entry = EntryRef {
            slot: op.dot.slot,
            user: user.as_str(),
            key: key.as_str(),
            op,
        };
        writer.push(entry).expect("the ops are in order");
    }
    let nothing_kept = Arc::new(BlockCache::new(0));
    let finished = writer.finish(slot_clocks(), SlotClocks::default(), &nothing_kept);
    finished.expect("a segment can be finished");
    std::fs::read(dir.path().join(segment::file_name(SEGMENT_NUMBER))).expect("it can be read")
}

pub fn segments() -> Vec<Vec<u8>> {
    vec![
        segment_of(&[]),
        segment_of(&["a"]),
        segment_of(&["a", "ab", "пользователь"]),
    ]
}

pub fn footers() -> Vec<Vec<u8>> {
    let footer = |file: &Vec<u8>| file[reseal::footer_range(file).expect("a whole segment")].to_vec();
    segments().iter().map(footer).collect()
}

pub fn filters() -> Vec<Vec<u8>> {
    let encode = |count: u64| {
        let filter = Filter::build((0..count).map(|tag| tag * 0x9e37_79b9).collect());
        let (head, fingerprints) = filter.encoded();
        [&head, fingerprints].concat()
    };
    [0, 1, 2, 300].map(encode).to_vec()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub fn api_bodies() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"key":"example","value":"some data","finish_value":true,"user":{"user_id":"123","password_hash":"abc123"}}"#,
        r#"{"key":"k\u00e9\ud83d\ude00\n","offset":5,"limit":18446744073709551615,"count_only":true,"request_id":"r"}"#,
        r#"{"operations":[{"op":"add_value","key":"k","value":"v"},{"op":"get_value","key":"k"},{"op":"clear_key","key":"k"}]}"#,
        r#"{"prefix":"p","limit":10,"after":"a","name":"n","admin":true,"password_hash":"x"}"#,
        r#"{"keys":["a","b"],"after":"b","users":[{"user_id":"a","admin":false}],"results":[{"status_code":200}]}"#,
        r#"{"detail":[{"loc":["body","operations",3,"key"],"msg":"m","type":"t"}],"key":"k","value":["a","b"]}"#,
    ])
}

pub fn value_streams() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"key":"example","value":["some data"]}"#,
        r#"{"key":"k","value":[]}"#,
        r#" { "value" : [ "\u0000\"\\\/\b\f\n\r\t" , "\ud83d\ude00 данные" , "" ] , "more" : {"a":[1,-2.5e3,null,true]} , "key" : "k" } "#,
    ])
}

pub fn configs() -> Vec<Vec<u8>> {
    texts(&[
        "",
        "data = \"/srv/kv\"\nlisten = \"127.0.0.1:8000\"\nshards = 8\nblock_cache_bytes = \"256MiB\"\n",
        "user = \"admin\"\npassword_file = \"secret\"\nlog_format = \"json\"\nlog_filter = \"info\"\nactive_segment_bytes = 67108864\n",
    ])
}
