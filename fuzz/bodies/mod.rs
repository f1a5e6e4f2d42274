//! What is done with one input: by the fuzzer, and by the bounded run in the tests.
//!
//! Every function takes any bytes. It must not panic, and must not allocate out of proportion to its input.

#![allow(dead_code, reason = "each fuzz target uses one of these")]

mod one_file;
mod reseal;
mod samples;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kv_storage::api;
use kv_storage::client::ValueDecoder;
use kv_storage::config::{Setting, Settings, Source};
use kv_storage::core::slot::SlotId;
use kv_storage::store::cache::BlockCache;
use kv_storage::store::codec::{Cursor, put_slot_clocks};
use kv_storage::store::disk::Disk;
use kv_storage::store::filter::Filter;
use kv_storage::store::log::{self, LogHeader, LogKey};
use kv_storage::store::segment::{self, Segment};
use one_file::OneFile;

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// What it may hold in memory at once: so many times its input, besides a fixed part.
    pub proportion_max: usize,
    /// Valid inputs, to begin from.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// Ample for decoded forms: a number of one byte becomes one of eight in a struct of several.
const PROPORTION: usize = 64;
/// LZ4 can make 255 bytes of one.
const LZ4_PROPORTION: usize = 320;

pub const TARGETS: [Target; 8] = [
    target("clocks", clocks, PROPORTION, samples::clocks),
    target("log", log, PROPORTION, samples::logs),
    target("segment", segment, LZ4_PROPORTION, samples::segments),
    target("footer", footer, PROPORTION, samples::footers),
    target("filter", filter, PROPORTION, samples::filters),
    target("api_bodies", api_bodies, PROPORTION, samples::api_bodies),
    target("value_stream", value_stream, PROPORTION, samples::value_streams),
    target("config", config, PROPORTION, samples::configs),
];

const fn target(name: &'static str, run: fn(&[u8]), proportion_max: usize, samples: fn() -> Vec<Vec<u8>>) -> Target {
    Target {
        name,
        run,
        proportion_max,
        samples,
    }
}

/// Clocks, as they stand in clears and footers. What decodes must survive being written and read again.
pub fn clocks(input: &[u8]) {
    let mut cursor = Cursor::new(input);
    if let Ok(clocks) = cursor.slot_clocks() {
        let _ = clocks.count();
        let _ = clocks.minus(&clocks).is_empty();
        let mut written = Vec::new();
        put_slot_clocks(&mut written, &clocks);
        assert_eq!(Cursor::new(&written).slot_clocks().ok(), Some(clocks));
    }
    let mut cursor = Cursor::new(input);
    while cursor.bytes().is_ok() && !cursor.is_at_end() {}
}

/// A whole log file.
pub fn log(input: &[u8]) {
    let _ = LogHeader::decode(input);
    for key in samples::log_keys() {
        scan_log(Bytes::copy_from_slice(input), &key);
        scan_log(reseal::log(input, &key).into(), &key);
    }
}

fn scan_log(bytes: Bytes, key: &LogKey) {
    for known_end in [None, Some(bytes.len() as u64 / 2), Some(u64::MAX)] {
        let scan = log::scan(&bytes, key, known_end);
        for found in &scan.records {
            let record = bytes.slice(found.offset as usize..);
            let _ = (found.header.user(&record), found.header.key(&record));
            let _ = found.header.op(&record);
        }
    }
}

/// A whole segment file: opened, and read from end to end.
pub fn segment(input: &[u8]) {
    read_segment(Bytes::copy_from_slice(input));
    read_segment(reseal::segment(input).into());
}

fn read_segment(bytes: Bytes) {
    let disk: Arc<dyn Disk> = Arc::new(OneFile(bytes));
    let _ = segment::dump::describe(&disk, Path::new("/segment"), &mut |line| drop(line));
    let nothing_kept = Arc::new(BlockCache::new(0));
    if let Ok(segment) = Segment::open(&disk, Path::new("/"), 0, samples::SEGMENT_NUMBER, &nothing_kept) {
        let segment = Arc::new(segment);
        let _ = segment.verify();
        let mut ops = segment.ops_of(SlotId(7), "a", "key 1");
        while let Ok(Some(_)) = ops.next() {}
    }
}

/// The inside of a footer, whose checksum has held.
pub fn footer(input: &[u8]) {
    for version in 1..=segment::FORMAT_VERSION {
        for blocks_end in [input.len() as u64, u64::MAX] {
            let _ = segment::decode_footer(&Bytes::copy_from_slice(input), version, blocks_end);
        }
    }
}

pub fn filter(input: &[u8]) {
    if let Ok(filter) = Filter::decode(Bytes::copy_from_slice(input)) {
        let _ = (0..100).filter(|tag| filter.may_hold(tag * 0x9e37_79b9)).count();
    }
}

/// Every JSON body that the node or the client takes.
pub fn api_bodies(input: &[u8]) {
    let _ = serde_json::from_slice::<api::AddValue>(input);
    let _ = serde_json::from_slice::<api::GetValue>(input);
    let _ = serde_json::from_slice::<api::ClearKey>(input);
    let _ = serde_json::from_slice::<api::ListKeys>(input);
    let _ = serde_json::from_slice::<api::Batch>(input);
    let _ = serde_json::from_slice::<api::UserChange>(input);
    let _ = serde_json::from_slice::<api::KeyList>(input);
    let _ = serde_json::from_slice::<api::BatchResults>(input);
    let _ = serde_json::from_slice::<api::Values>(input);
    let _ = serde_json::from_slice::<api::UserEntries>(input);
    let _ = serde_json::from_slice::<api::ErrorBody>(input);
}

/// The client's reader of long answers: however the bytes are cut, it gives the same; and it agrees with a whole parse.
pub fn value_stream(input: &[u8]) {
    let whole = decode(input, input.len().max(1));
    assert_eq!(whole, decode(input, 1), "cut into single bytes");
    assert_eq!(whole, decode(input, 7), "cut into sevens");
    if let (Some(values), Ok(parsed)) = (whole, serde_json::from_slice::<api::Values>(input)) {
        assert_eq!(values, parsed.value);
    }
}

fn decode(input: &[u8], chunk_bytes: usize) -> Option<Vec<String>> {
    let mut decoder = ValueDecoder::new();
    let mut pieces = Vec::new();
    for chunk in input.chunks(chunk_bytes) {
        decoder.feed(chunk, &mut pieces).ok()?;
    }
    decoder.finish().ok()?;
    let mut values = Vec::new();
    let mut open = String::new();
    for piece in pieces {
        open.push_str(&piece.text);
        if piece.ends_value {
            values.push(std::mem::take(&mut open));
        }
    }
    Some(values)
}

/// A node's settings file.
pub fn config(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let mut settings = Settings::default();
    settings.offer(Setting::Data, "/data", Source::Variable);
    if settings.offer_file(Path::new("/etc/kv.toml"), text).is_ok() {
        let _ = settings.into_config();
    }
}
