//! Ops in memtables and segments, and what is given of them to peers.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Dot, KeyedOp};
use crate::core::slot::{KeyHash, SlotId};
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::cache::BlockCache;
use crate::store::log::LogKey;
use crate::store::memory_disk::MemoryDisk;
use crate::store::memtable::{MemoryOps, Memtable, SharedMemtable};
use crate::store::names::NameKey;
use crate::store::order::rank_of;
use crate::store::segment::{EntryRef, ReadError, Segment, SegmentMeta, SegmentWriter, file_name};
use crate::store::source::KeySource;
use crate::types::{Key, RequestId, UserId, WallMs};

mod batches;
mod clears;
mod damage;
mod model;

const USERS: [&str; 3] = ["", "u", "v"];

fn keyed(slot: u16, name: usize, origin: u64, seq: u64, body: Body) -> KeyedOp {
    KeyedOp {
        user: UserId::from_stored(USERS[name % 3]),
        // A key lies in one slot.
        key: Key::new(&format!("{}{slot}", ["a", "b"][name / 3 % 2])).unwrap(),
        op: Op {
            dot: Dot {
                origin: OriginId(origin),
                slot: SlotId(slot),
                seq,
            },
            time: HybridTime((seq * 7 % 50) << 16),
            request_id: None,
            body,
        },
    }
}

fn order(op: &KeyedOp) -> impl Ord + use<> {
    (op.op.dot.slot, op.user.clone(), op.key.clone(), rank_of(&op.op))
}

fn segment(disk: &MemoryDisk, number: u64, ops: &[KeyedOp], covered: SlotClocks) -> Arc<Segment> {
    let meta = SegmentMeta {
        shard: 1,
        number,
        replaces: Vec::new(),
    };
    let mut ops = ops.to_vec();
    ops.sort_by_key(order);
    let mut writer = SegmentWriter::with_block_bytes(disk.as_disk(), Path::new("/shard"), meta, 120).unwrap();
    for KeyedOp { user, key, op } in &ops {
        let (slot, user, key) = (op.dot.slot, user.as_str(), key.as_str());
        writer.push(EntryRef { slot, user, key, op }).unwrap();
    }
    let cache = Arc::new(BlockCache::new(0));
    Arc::new(writer.finish(covered, SlotClocks::default(), &cache).unwrap())
}

fn append(memtable: &mut Memtable, KeyedOp { user, key, op }: &KeyedOp) {
    memtable.append(user, key, op);
}

/// All that was appended so far.
fn make_durable(memtable: &mut Memtable) {
    memtable.close_group();
    let closed = memtable.closed_groups();
    memtable.set_durable(closed);
}

fn memtable(ops: &[KeyedOp]) -> SharedMemtable {
    let mut memtable = Memtable::new(LogKey::without_secret(9), NameKey::new([1; 16]));
    ops.iter().for_each(|op| append(&mut memtable, op));
    make_durable(&mut memtable);
    memtable.share()
}

/// The ops in a memtable, and in a segment.
fn in_both(ops: &[KeyedOp]) -> [(Vec<SharedMemtable>, Vec<Arc<Segment>>); 2] {
    let sealed = segment(&MemoryDisk::new(), 1, ops, dots(ops));
    [(vec![memtable(ops)], vec![]), (vec![], vec![sealed])]
}

fn source(
    memtables: &[SharedMemtable],
    segments: &[Arc<Segment>],
    slot: SlotId,
    (user, key): (&UserId, &Key),
) -> KeySource {
    KeySource {
        slot,
        memory: MemoryOps::of(memtables, (user, key), Memtable::durable_groups),
        segments: segments.to_vec(),
        user: user.clone(),
        key: key.clone(),
    }
}

fn dots<'a>(ops: impl IntoIterator<Item = &'a KeyedOp>) -> SlotClocks {
    let mut clocks = SlotClocks::default();
    for KeyedOp { op, .. } in ops {
        clocks.insert(op.dot.slot, op.dot.origin, op.dot.seq);
    }
    clocks
}

/// The first page of what is lacking, and whether there are more.
fn ops_of_key_lacking(
    source: &KeySource,
    known: &Clock,
    budget_bytes: usize,
    now: WallMs,
) -> Result<(Vec<Op>, bool), ReadError> {
    KeyExport::new(source.clone(), known.clone(), now).next_page(budget_bytes)
}

fn drain(scan: &mut OpScan, budget_bytes: usize) -> Result<Vec<KeyedOp>, ReadError> {
    let mut ops = Vec::new();
    while let Some(batch) = scan.next_batch(budget_bytes)? {
        ops.extend(batch);
    }
    Ok(ops)
}

fn break_byte(disk: &MemoryDisk, number: u64, at: usize) {
    let path = Path::new("/shard").join(file_name(number));
    let mut bytes = disk.content(&path).unwrap();
    bytes[at] ^= 1;
    disk.put(&path, bytes);
}
