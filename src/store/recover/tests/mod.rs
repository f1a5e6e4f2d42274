//! Each rule of recovery, on folders made by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::core::op::{Body, Dot, Op};
use crate::core::slot::SlotId;
use crate::store::log::{LogHeader, Place as RecordPlace, Previous, Record, put_record};
use crate::store::memory_disk::MemoryDisk;
use crate::store::segment::{EntryRef, SegmentMeta, SegmentWriter};

mod damaged_logs;
mod files;
mod salvage;

pub(super) const DIR: &str = "/data/shard";
pub(super) const ORIGIN: OriginId = OriginId(7);
pub(super) const SECRET: LogSecret = LogSecret::new(*b"sixteen random b");
pub(super) const NEW_SECRET: LogSecret = LogSecret::new(*b"not used so far.");

pub(super) fn place(disk: &MemoryDisk) -> Place {
    Place {
        disk: disk.as_disk(),
        dir: PathBuf::from(DIR),
        shard: 0,
        slots: 0..4,
        cache: Arc::new(BlockCache::new(1 << 20)),
        new_secret: NEW_SECRET,
        own_origins: None,
    }
}

pub(super) fn recovered(disk: &MemoryDisk) -> Recovered {
    recover(&place(disk)).unwrap()
}

/// The same, where there are other replicas.
fn recovered_of_replica(disk: &MemoryDisk) -> Recovered {
    let place = Place {
        own_origins: Some(Arc::default()),
        ..place(disk)
    };
    recover(&place).unwrap()
}

pub(super) fn op(seq: u64) -> Op {
    Op {
        dot: Dot {
            origin: ORIGIN,
            slot: SlotId(1),
            seq,
        },
        time: HybridTime(seq),
        request_id: None,
        body: Body::Value(format!("value {seq}").into()),
    }
}

/// A log of one group per sequence; gives where each record begins, and the end.
pub(super) fn put_log(disk: &MemoryDisk, number: u64, seqs: &[u64], previous: Previous) -> Vec<u64> {
    log::store_secret(&*disk.as_disk(), Path::new(DIR), SECRET).unwrap();
    put_log_with(disk, number, seqs, previous, Some(SECRET))
}

pub(super) fn put_log_with(
    disk: &MemoryDisk,
    number: u64,
    seqs: &[u64],
    previous: Previous,
    secret: Option<LogSecret>,
) -> Vec<u64> {
    let header = LogHeader {
        shard: 0,
        number,
        previous,
        secret,
    };
    let mut file = header.encode().to_vec();
    let mut offsets = Vec::new();
    for (ordinal, &seq) in seqs.iter().enumerate() {
        let offset = file.len() as u64;
        offsets.push(offset);
        let place = RecordPlace {
            key: header.key(),
            offset,
            group_back: 0,
            ordinal: ordinal as u32,
        };
        let op = op(seq);
        put_record(
            &mut file,
            place,
            Record {
                user: "u",
                key: "k",
                op: &op,
            },
        );
    }
    offsets.push(file.len() as u64);
    file.resize(file.len() + 1024, 0);
    disk.put(&log_path(number), file);
    offsets
}

fn put_segment(disk: &MemoryDisk, number: u64, seqs: &[u64], replaces: Vec<u64>) {
    put_segment_without(disk, number, seqs, &[], replaces);
}

/// `dropped`: sequences that it covers and does not hold.
fn put_segment_without(disk: &MemoryDisk, number: u64, seqs: &[u64], dropped: &[u64], replaces: Vec<u64>) {
    let meta = SegmentMeta {
        shard: 0,
        number,
        replaces,
    };
    let mut writer = SegmentWriter::create(disk.as_disk(), Path::new(DIR), meta).unwrap();
    let mut covered = SlotClocks::default();
    for &seq in dropped {
        covered.insert(SlotId(1), ORIGIN, seq);
    }
    for &seq in seqs {
        covered.insert(SlotId(1), ORIGIN, seq);
        let op = op(seq);
        writer
            .push(EntryRef {
                slot: SlotId(1),
                user: "u",
                key: "k",
                op: &op,
            })
            .unwrap();
    }
    let cache = Arc::new(BlockCache::new(1 << 20));
    drop(writer.finish(covered, SlotClocks::default(), &cache).unwrap());
}

pub(super) fn log_path(number: u64) -> PathBuf {
    Path::new(DIR).join(log::file_name(number))
}

fn segment_path(number: u64) -> PathBuf {
    Path::new(DIR).join(segment::file_name(number))
}

pub(super) fn flip(disk: &MemoryDisk, path: &Path, at: u64) {
    let mut bytes = disk.content(path).unwrap();
    bytes[at as usize] ^= 1;
    disk.put(path, bytes);
}

/// The trailer is gone.
fn cut_end(disk: &MemoryDisk, path: &Path) {
    let mut bytes = disk.content(path).unwrap();
    bytes.truncate(bytes.len() - 10);
    disk.put(path, bytes);
}

fn fail_folder_sync(disk: &MemoryDisk, fails: bool) {
    *disk.faults().unsyncable_folder.lock() = fails.then(|| DIR.into());
}

pub(super) fn log_numbers(found: &Recovered) -> Vec<u64> {
    found.logs.iter().map(|log| log.memtable.read().number()).collect()
}

fn segment_numbers(found: &Recovered) -> Vec<u64> {
    found.segments.iter().map(|segment| segment.number()).collect()
}

pub(super) fn is_clean(found: &Recovered) -> bool {
    found.damage.is_empty() && found.lost.is_empty()
}
