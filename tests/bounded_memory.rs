//! What merging, sealing and reading hold in memory does not grow with the number of sources, however long the texts are.
#![allow(clippy::disallowed_methods, reason = "a test that runs outside any node")]

#[path = "common/counting.rs"]
mod counting;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use counting::held_bytes;
use kv_storage::core::clock::SlotClocks;
use kv_storage::core::op::{Body, Dot, Op};
use kv_storage::core::slot::SlotId;
use kv_storage::core::stamp::{HybridTime, OriginId};
use kv_storage::os::disk::RealDisk;
use kv_storage::store::cache::BlockCache;
use kv_storage::store::compact::{Merge, MergeContext, Merged, Progress, Source};
use kv_storage::store::disk::Disk;
use kv_storage::store::log::LogKey;
use kv_storage::store::memtable::{MemoryOps, Memtable};
use kv_storage::store::names::NameKey;
use kv_storage::store::reader::KeyReader;
use kv_storage::store::segment::{EntryRef, Segment, SegmentMeta, SegmentWriter};
use kv_storage::store::source::KeySource;
use kv_storage::store::waiting::HELD_BYTES_MAX;
use kv_storage::types::{Key, RequestId, UserId, WallMs};

const MIB: usize = 1 << 20;
const SLOT: SlotId = SlotId(1);
const ORIGIN: OriginId = OriginId(1);
const TEXT_BYTES_MAX: usize = 4 * MIB;
const CACHE_BYTES: u64 = MIB as u64;
const STEP_BYTES: u64 = MIB as u64;

fn name() -> (UserId, Key) {
    (UserId::new("u").unwrap(), Key::new("k").unwrap())
}

/// Another one at each time; it does not compress.
fn text(time: u64, bytes: usize) -> &'static str {
    static LETTERS: LazyLock<String> = LazyLock::new(|| {
        let mut state = 7_u64;
        let letters = (0..2 * TEXT_BYTES_MAX).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b' ' + (state % 90) as u8)
        });
        letters.collect()
    });
    let start = time as usize * 7_919 % TEXT_BYTES_MAX;
    &LETTERS[start..start + bytes]
}

/// A part, or the `end` of a value.
fn op(time: u64, bytes: usize, end: bool) -> Op {
    let text = text(time, bytes).into();
    Op {
        dot: Dot {
            origin: ORIGIN,
            slot: SLOT,
            seq: time,
        },
        time: HybridTime(time),
        request_id: None,
        body: if end { Body::Value(text) } else { Body::Part(text) },
    }
}

struct Store {
    dir: tempfile::TempDir,
    disk: Arc<dyn Disk>,
    cache: Arc<BlockCache>,
    segments: Vec<Arc<Segment>>,
}

impl Store {
    /// Each segment holds parts of the one value at these times.
    fn of(segments: Vec<Vec<u64>>, text_bytes: usize) -> Self {
        let last = segments.iter().flatten().max().copied();
        let mut store = Self {
            dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            disk: Arc::new(RealDisk::default()),
            cache: Arc::new(BlockCache::new(CACHE_BYTES)),
            segments: Vec::new(),
        };
        let (user, key) = name();
        for times in segments {
            let meta = SegmentMeta {
                shard: 0,
                number: store.segments.len() as u64 + 1,
                replaces: Vec::new(),
            };
            let mut covered = SlotClocks::default();
            let mut writer = SegmentWriter::create(store.disk.clone(), store.path(), meta).unwrap();
            for time in times {
                let op = op(time, text_bytes, Some(time) == last);
                covered.insert(SLOT, ORIGIN, time);
                let (slot, user, key) = (SLOT, user.as_str(), key.as_str());
                writer
                    .push(EntryRef {
                        slot,
                        user,
                        key,
                        op: &op,
                    })
                    .unwrap();
            }
            let segment = writer.finish(covered, SlotClocks::default(), &store.cache).unwrap();
            store.segments.push(Arc::new(segment));
        }
        store
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn merge(&self, sources: Vec<Source>) -> Merged {
        let context = MergeContext {
            disk: self.disk.clone(),
            dir: self.path().to_owned(),
            cache: self.cache.clone(),
            shard: 0,
            number: 1000,
            obsolete: Vec::new(),
            outside: Vec::new(),
            in_memory: Vec::new(),
            memtables: Vec::new(),
            stable: SlotClocks::default(),
            covered_extra: SlotClocks::default(),
            lost: SlotClocks::default(),
            time: HybridTime::default(),
            now: WallMs(1_000),
            heard: None,
            salvage: false,
        };
        let mut merge = Box::new(Merge::start(sources, context).unwrap());
        loop {
            match merge.step(STEP_BYTES).unwrap() {
                Progress::More(more) => merge = more,
                Progress::Done(merged) => return *merged,
            }
        }
    }

    fn merge_all(&self) -> Merged {
        self.merge(self.segments.iter().cloned().map(Source::Segment).collect())
    }

    fn reader(segments: Vec<Arc<Segment>>) -> KeyReader {
        let (user, key) = name();
        let source = KeySource {
            slot: SLOT,
            user,
            key,
            memory: MemoryOps::default(),
            segments,
        };
        KeyReader::new(source, 0, u64::MAX)
    }
}

/// Sees that the texts are all there, in their order.
fn read(mut reader: KeyReader, ops: u64, text_bytes: usize) {
    let mut time = 0;
    loop {
        let batch = reader.next_batch(MIB).unwrap();
        if batch.is_empty() {
            break;
        }
        for fragment in batch {
            time += 1;
            assert!(fragment.text.as_ref() == text(time, text_bytes), "op {time} is another");
        }
    }
    assert_eq!(time, ops);
}

/// Times of `sources` of so many ops each: one behind the other, or each with one in turn.
fn times(sources: u64, each: u64, in_turn: bool) -> Vec<Vec<u64>> {
    let time = move |source, op| {
        if in_turn {
            op * sources + source
        } else {
            source * each + op
        }
    };
    (0..sources)
        .map(|source| (0..each).map(|op| time(source, op) + 1).collect())
        .collect()
}

#[test]
fn a_merge_or_a_read_holds_few_of_the_long_texts_of_its_sources() {
    for (sources, each, text_bytes, in_turn) in
        [(24, 2, MIB, false), (24, 2, MIB, true), (12, 1, TEXT_BYTES_MAX, false)]
    {
        let store = Store::of(times(sources, each, in_turn), text_bytes);
        let case = format!("{sources} sources of texts of {text_bytes} bytes, in turn: {in_turn}");

        // One that is taken, one that comes after it, and one that is checked.
        let reading_max = HELD_BYTES_MAX + 3 * text_bytes;
        let ((), held) = held_bytes(|| read(Store::reader(store.segments.clone()), sources * each, text_bytes));
        println!("{case}: a read holds {held}");
        assert!(
            held < reading_max,
            "{case}: a read holds {held} bytes, more than {reading_max}"
        );

        // Twice as many wait: at the heads, and of the key before it is known to be a long one; and the writer's buffers.
        let merging_max = 2 * HELD_BYTES_MAX + 2 * MIB + 7 * text_bytes;
        let (merged, held) = held_bytes(|| store.merge_all());
        println!("{case}: a merge holds {held}");
        assert!(
            held < merging_max,
            "{case}: a merge holds {held} bytes, more than {merging_max}"
        );

        read(
            Store::reader(vec![Arc::new(merged.segment)]),
            sources * each,
            text_bytes,
        );
    }
}

/// Op `number` of many keys, some hundred of each slot; every other one is of another origin.
fn keyed_op(number: u64) -> (String, Op) {
    let (each, origins) = (500, 2);
    let op = Op {
        dot: Dot {
            origin: OriginId(number % origins),
            slot: SlotId((number / each) as u16),
            seq: number / origins + 1,
        },
        time: HybridTime(number),
        request_id: Some(RequestId(
            u128::from(number)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c)
                .to_le_bytes(),
        )),
        body: Body::Value("value".into()),
    };
    (format!("{number:08}"), op)
}

/// The filter of what comes out holds two tags of each op, and building one takes some 25 bytes a tag.
#[test]
fn a_merge_does_not_hold_more_the_more_keys_and_request_ids_there_are() {
    const OPS: u64 = 500_000;
    let mut store = Store::of(Vec::new(), 0);
    for origin in 0..2 {
        let meta = SegmentMeta {
            shard: 0,
            number: origin + 1,
            replaces: Vec::new(),
        };
        let mut covered = SlotClocks::default();
        let mut writer = SegmentWriter::create(store.disk.clone(), store.path(), meta).unwrap();
        for (key, op) in (0..OPS).map(keyed_op).filter(|(_, op)| op.dot.origin.0 == origin) {
            let Dot { origin, slot, seq } = op.dot;
            covered.insert(slot, origin, seq);
            let (key, op) = (key.as_str(), &op);
            writer
                .push(EntryRef {
                    slot,
                    user: "u",
                    key,
                    op,
                })
                .unwrap();
        }
        let segment = writer.finish(covered, SlotClocks::default(), &store.cache).unwrap();
        store.segments.push(Arc::new(segment));
    }
    let (merged, held) = held_bytes(|| store.merge_all());
    let result = merged.segment.memory_bytes();
    println!("a merge holds {held}, of which {result} stay");
    assert_eq!(merged.segment.stats().ops, OPS);
    assert!(
        held - result < 24 * MIB,
        "a merge holds {held} bytes, of which {result} stay"
    );
}

#[test]
fn a_list_that_fills_a_log_is_sealed_without_all_its_ops_in_memory() {
    const OPS: u64 = 60_000;
    const TEXT_BYTES: usize = 100;
    let store = Store::of(Vec::new(), 0);
    let (user, key) = name();
    let mut memtable = Memtable::new(LogKey::without_secret(1), NameKey::new([1; 16]));
    for time in 1..=OPS {
        memtable.append(&user, &key, &op(time, TEXT_BYTES, true));
    }
    memtable.close_group();
    memtable.set_durable(memtable.closed_groups());
    let source = Source::Memtable(memtable.share());
    let (merged, held) = held_bytes(|| store.merge(vec![source]));
    println!("sealing holds {held}");
    assert!(held < 6 * MIB, "sealing holds {held} bytes");
    read(Store::reader(vec![Arc::new(merged.segment)]), OPS, TEXT_BYTES);
}

/// Two filters of many keys are done before the end; only then is it counted. What stays is read back in one piece.
#[test]
fn the_end_of_a_segment_and_its_opening_hold_index_and_filters_once() {
    const KEYS: u64 = 270_000;
    let store = Store::of(Vec::new(), 0);
    let meta = SegmentMeta {
        shard: 0,
        number: 1,
        replaces: Vec::new(),
    };
    let mut writer = SegmentWriter::create(store.disk.clone(), store.path(), meta).unwrap();
    let mut covered = SlotClocks::default();
    for (slot, keys) in [(1, KEYS), (2, KEYS), (3, 1)] {
        let slot = SlotId(slot);
        covered.insert_range(slot, ORIGIN, 1, keys);
        for seq in 1..=keys {
            let mut op = op(seq, 1, true);
            op.dot = Dot {
                origin: ORIGIN,
                slot,
                seq,
            };
            let key = format!("{seq:08}");
            let (user, key, op) = ("u", key.as_str(), &op);
            writer.push(EntryRef { slot, user, key, op }).unwrap();
        }
    }
    let (segment, finishing) = held_bytes(|| writer.finish(covered, SlotClocks::default(), &store.cache).unwrap());
    let result = segment.memory_bytes();
    drop(segment);
    let open = || Segment::open(&store.disk, store.path(), 0, 1, &store.cache).unwrap();
    let (segment, opening) = held_bytes(open);
    println!("the end holds {finishing}, opening {opening}, of which {result} stay");
    assert!(result > 500_000 && segment.memory_bytes() == result);
    // What was built is there before, and gone when it is read back.
    assert!(
        finishing < result / 2,
        "the end holds {finishing} bytes beside {result}"
    );
    assert!(
        opening < result + result / 2,
        "opening holds {opening} bytes, of which {result} stay"
    );
}
