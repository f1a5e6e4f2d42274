//! Whatever lies where: what is given is what the model holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Dot, KeyedOp};
use crate::core::slot::{KeyHash, SlotId};
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::cache::BlockCache;
use crate::store::log::LogKey;
use crate::store::memory_disk::MemoryDisk;
use crate::store::memtable::{MemoryOps, Memtable, SharedMemtable};
use crate::store::order::rank_of;
use crate::store::segment::{EntryRef, ReadError, Segment, SegmentMeta, SegmentWriter, file_name};
use crate::store::source::KeySource;
use crate::types::{BODY_BYTES_MAX, Key, RequestId, UserId, WallMs};

const SLOTS: [u16; 4] = [0, 3, 4, 1024];
const USERS: [&str; 3] = ["", "u", "v"];

/// Memtables, of which only the first groups are durable; and segments.
struct Snapshot {
    memtables: Vec<SharedMemtable>,
    segments: Vec<Arc<Segment>>,
}

/// An op, and which sources hold it: bits 0 and 1 are memtables, bits 2 and 3 segments.
type Placed = (KeyedOp, u8);

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

/// Each dot is one op of one key, as dots are.
fn placed_ops() -> impl Strategy<Value = Vec<Placed>> {
    let one = (0usize..4, 1u64..4, 1u64..40, 1u8..16, 0u8..8, 0usize..60);
    proptest::collection::vec(one, 0..60).prop_map(|list| {
        let mut ops: BTreeMap<Dot, Placed> = BTreeMap::new();
        for (slot, origin, seq, places, kind, length) in list {
            let text = || "ä".repeat(length).into();
            let body = match kind {
                0 => Body::Part(text()),
                1 => {
                    let mut seen = Clock::default();
                    seen.insert_range(OriginId(origin), 1, seq);
                    Body::Clear(seen)
                }
                2 => Body::Spent {
                    cleared_at: WallMs(seq),
                },
                _ => Body::Value(text()),
            };
            let mut op = keyed(SLOTS[slot], length, origin, seq, body);
            op.op.request_id = (kind % 3 == 2).then_some(RequestId([kind; 16]));
            ops.entry(op.op.dot).or_insert((op, places));
        }
        ops.into_values().collect()
    })
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

fn dots<'a>(ops: impl IntoIterator<Item = &'a KeyedOp>) -> SlotClocks {
    let mut clocks = SlotClocks::default();
    for KeyedOp { op, .. } in ops {
        clocks.insert(op.dot.slot, op.dot.origin, op.dot.seq);
    }
    clocks
}

impl Snapshot {
    /// Of the memtables' ops, the last `undurable` are not durable.
    fn of(placed: &[Placed], undurable: usize) -> (Self, Vec<KeyedOp>) {
        let disk = MemoryDisk::new();
        let mut held = Vec::new();
        let mut memtables = Vec::new();
        for bit in 0..2 {
            let ops: Vec<&KeyedOp> = placed
                .iter()
                .filter(|op| op.1 >> bit & 1 == 1)
                .map(|op| &op.0)
                .collect();
            let durable = ops.len().saturating_sub(undurable);
            let mut memtable = Memtable::new(LogKey::without_secret(bit));
            for (index, KeyedOp { user, key, op }) in ops.iter().enumerate() {
                memtable.append(KeyHash::of(user, key), user, key, op);
                if index + 1 == durable {
                    memtable.close_group();
                    let closed = memtable.closed_groups();
                    memtable.set_durable(closed);
                }
            }
            // Closed, but not durable yet.
            memtable.close_group();
            held.extend(ops[..durable].iter().map(|op| (*op).clone()));
            memtables.push(memtable.share());
        }
        let mut segments = Vec::new();
        for bit in 2..4 {
            let ops: Vec<KeyedOp> = placed
                .iter()
                .filter(|op| op.1 >> bit & 1 == 1)
                .map(|op| op.0.clone())
                .collect();
            segments.push(segment(&disk, bit, &ops, dots(&ops)));
            held.extend(ops);
        }
        held.sort_by_key(order);
        held.dedup();
        let snapshot = Self { memtables, segments };
        (snapshot, held)
    }

    fn scan(&self, wants: SlotClocks) -> OpScan {
        OpScan::new(self.memtables.clone(), self.segments.clone(), wants, WallMs(0)).with_cleared()
    }
}

fn drain(scan: &mut OpScan, budget_bytes: usize) -> Result<Vec<KeyedOp>, ReadError> {
    let mut ops = Vec::new();
    while let Some(batch) = scan.next_batch(budget_bytes)? {
        ops.extend(batch);
    }
    Ok(ops)
}

fn any_wants() -> impl Strategy<Value = SlotClocks> {
    let range = (0usize..4, 1u64..4, 1u64..40, 0u64..30);
    proptest::collection::vec(range, 0..8).prop_map(|ranges| {
        let mut wants = SlotClocks::default();
        for (slot, origin, first, more) in ranges {
            wants.insert_range(SlotId(SLOTS[slot]), OriginId(origin), first, first + more);
        }
        wants
    })
}

fn any_look() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(1000), Just(scan::LOOK_BYTES_MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_scan_gives_every_wanted_op_once_and_in_order(
        placed in placed_ops(), undurable in 0usize..6, wants in any_wants(), budget in 0usize..2000, look in any_look(),
    ) {
        let (snapshot, held) = Snapshot::of(&placed, undurable);
        let wanted = |op: &&KeyedOp| wants.contains(op.op.dot.slot, op.op.dot.origin, op.op.dot.seq);
        let expected: Vec<KeyedOp> = held.iter().filter(wanted).cloned().collect();
        let mut scan = snapshot.scan(wants.clone()).looking_at(look);
        // What comes after the snapshot is not in it.
        for table in &snapshot.memtables {
            let mut memtable = table.write();
            let KeyedOp { user, key, op } = keyed(3, 1, 1, 1_000, Body::Value("late".into()));
            memtable.append(KeyHash::of(&user, &key), &user, &key, &op);
            memtable.close_group();
            let closed = memtable.closed_groups();
            memtable.set_durable(closed);
        }
        prop_assert_eq!(drain(&mut scan, budget).unwrap(), expected);
    }

    #[test]
    fn every_clear_that_saw_something_wanted_comes_before_all_that_it_removed(
        placed in placed_ops(), undurable in 0usize..6, wants in any_wants(), budget in 0usize..2000, only_wanted in any::<bool>(),
        look in any_look(),
    ) {
        let (snapshot, held) = Snapshot::of(&placed, undurable);
        let is_wanted = |op: &KeyedOp| wants.contains(op.op.dot.slot, op.op.dot.origin, op.op.dot.seq);
        let mut cleared: BTreeMap<_, Clock> = BTreeMap::new();
        let (mut expected, mut others) = (Vec::new(), Vec::new());
        for op in &held {
            match &op.op.body {
                Body::Clear(seen) => {
                    cleared.entry((&op.user, &op.key)).or_default().join(seen);
                    let saw_wanted = wants.get(op.op.dot.slot).is_some_and(|wanted| seen.meets(wanted));
                    if is_wanted(op) || saw_wanted && !only_wanted {
                        expected.push(op.clone());
                    }
                }
                _ if is_wanted(op) => others.push(op),
                _ => {}
            }
        }
        for KeyedOp { user, key, op } in others {
            let nothing = Clock::default();
            let left = left_by(cleared.get(&(user, key)).unwrap_or(&nothing), op.clone(), WallMs(0));
            expected.extend(left.map(|op| KeyedOp { user: user.clone(), key: key.clone(), op }));
        }
        let scan = OpScan::new(snapshot.memtables.clone(), snapshot.segments.clone(), wants.clone(), WallMs(0)).looking_at(look);
        let mut scan = if only_wanted { scan.only_wanted() } else { scan };
        // Clears that come after the snapshot remove nothing of it.
        for (name, user) in USERS.iter().enumerate() {
            let mut all = Clock::default();
            (1..4).for_each(|origin| all.insert_range(OriginId(origin), 1, 50));
            for slot in SLOTS {
                let KeyedOp { key, op, .. } = keyed(slot, name, 9, 1_000 + name as u64, Body::Clear(all.clone()));
                let mut memtable = snapshot.memtables[0].write();
                let user = UserId::from_stored(user);
                memtable.append(KeyHash::of(&user, &key), &user, &key, &op);
                memtable.close_group();
                let closed = memtable.closed_groups();
                memtable.set_durable(closed);
            }
        }
        prop_assert_eq!(drain(&mut scan, budget).unwrap(), expected);
    }

    #[test]
    fn what_a_slot_holds_is_told_by_kind(placed in placed_ops(), undurable in 0usize..6, slot in 0usize..4) {
        let (snapshot, held) = Snapshot::of(&placed, undurable);
        let slot = SlotId(SLOTS[slot]);
        let told = held_dots(&snapshot.memtables, &snapshot.segments, slot).unwrap();
        let of_kind = |is: fn(&Body) -> bool| {
            dots(held.iter().filter(|op| is(&op.op.body))).remove_slot(slot).unwrap_or_default()
        };
        prop_assert_eq!(told.covered, of_kind(|_| true));
        let cleared = |op: &&KeyedOp| {
            held.iter().any(|other| match &other.op.body {
                Body::Clear(seen) => (&other.user, &other.key) == (&op.user, &op.key) && seen.contains(op.op.dot.origin, op.op.dot.seq),
                _ => false,
            })
        };
        let texts = held.iter().filter(|op| matches!(op.op.body, Body::Part(_) | Body::Value(_)));
        let standing = dots(texts.filter(|op| !cleared(op))).remove_slot(slot).unwrap_or_default();
        prop_assert_eq!(told.texts, standing);
        prop_assert_eq!(told.clears, of_kind(|body| matches!(body, Body::Clear(_))));
        prop_assert_eq!(told.spent, of_kind(|body| matches!(body, Body::Spent { .. })));
    }

    #[test]
    fn a_peer_gets_what_it_lacks_of_a_key(placed in placed_ops(), known in any_wants(), budget in 0usize..500) {
        let (snapshot, held) = Snapshot::of(&placed, 0);
        for slot in SLOTS.map(SlotId) {
            for (user, key) in [("", "a"), ("u", "a"), ("v", "b")] {
                let (user, key) = (UserId::from_stored(user), Key::new(&format!("{key}{}", slot.0)).unwrap());
                let name = (KeyHash::of(&user, &key), &user, &key);
                let source = KeySource {
                    slot,
                    memory: MemoryOps::of(&snapshot.memtables, name, Memtable::durable_groups),
                    segments: snapshot.segments.clone(),
                    user: user.clone(),
                    key: key.clone(),
                };
                let mut known = known.get(slot).cloned().unwrap_or_default();
                let of_key = held.iter().filter(|op| (&op.user, &op.key) == (&user, &key));
                let mut cleared = Clock::default();
                for op in of_key.clone() {
                    if let Body::Clear(seen) = &op.op.body {
                        cleared.join(seen);
                    }
                }
                let lacking = of_key.filter(|op| !known.contains(op.op.dot.origin, op.op.dot.seq));
                let (clears, others): (Vec<&KeyedOp>, Vec<&KeyedOp>) =
                    lacking.partition(|op| matches!(op.op.body, Body::Clear(_)));
                let expected: Vec<Op> = clears
                    .into_iter()
                    .chain(others)
                    .filter_map(|op| left_by(&cleared, op.op.clone(), WallMs(0)))
                    .collect();
                let mut given = Vec::new();
                loop {
                    let (ops, more) = ops_of_key_lacking(&source, &known, budget, WallMs(0)).unwrap();
                    prop_assert!(!more || !ops.is_empty());
                    for op in ops {
                        known.insert(op.dot.origin, op.dot.seq);
                        given.push(op);
                    }
                    if !more {
                        break;
                    }
                }
                prop_assert_eq!(given, expected);
            }
        }
    }
}

fn values(slot: u16, origin: u64) -> Vec<KeyedOp> {
    let value = |seq| {
        keyed(
            slot,
            1,
            origin,
            seq,
            Body::Value(format!("value {seq} {}", "x".repeat(30)).into()),
        )
    };
    (1..40).map(value).collect()
}

fn break_byte(disk: &MemoryDisk, number: u64, at: usize) {
    let path = Path::new("/shard").join(file_name(number));
    let mut bytes = disk.content(&path).unwrap();
    bytes[at] ^= 1;
    disk.put(&path, bytes);
}

#[test]
fn behind_damage_the_scan_goes_on_when_told_and_says_what_may_be_missing() {
    let ops: Vec<KeyedOp> = [values(3, 1), values(4, 1), values(1024, 1)].concat();
    let disk = MemoryDisk::new();
    let held = [
        segment(&disk, 1, &ops[..60], dots(&ops[..60])),
        segment(&disk, 2, &ops[60..], dots(&ops[60..])),
    ];
    // In the first block, which is of slot 3; and in the last one, of the last slot.
    break_byte(&disk, 1, 50);
    let scan_of = |slots: &[u16]| {
        let mut wants = dots(&ops);
        wants.retain_slots(|slot| slots.contains(&slot.0));
        OpScan::new(Vec::new(), held.to_vec(), wants, WallMs(0)).with_cleared()
    };
    let mut scan = scan_of(&[3, 4, 1024]);
    for _ in 0..2 {
        assert!(matches!(scan.next_batch(100), Err(ReadError::Damaged(block)) if block.segment == 1));
    }
    let skipped = scan.skip_damaged().unwrap();
    assert_eq!((skipped.slots, scan.skip_damaged()), ((SlotId(3), SlotId(3)), None));
    let rest = drain(&mut scan, 1_000).unwrap();
    assert_eq!(rest.len() as u64, ops.len() as u64 - skipped.ops);
    // Who wants nothing of that slot never meets it.
    let mut scan = scan_of(&[4, 1024]);
    assert_eq!(drain(&mut scan, 1_000).unwrap().len(), 78);
}

#[test]
fn damage_met_in_the_middle_of_a_batch_loses_nothing() {
    let (first, second) = (values(3, 1), values(4, 1));
    let disk = MemoryDisk::new();
    let held = vec![
        segment(&disk, 1, &first, dots(&first)),
        segment(&disk, 2, &second, dots(&second)),
    ];
    break_byte(&disk, 2, 50);
    let mut memtable = Memtable::new(LogKey::without_secret(9));
    let KeyedOp { user, key, op } = keyed(3, 1, 2, 1, Body::Value("in memory".into()));
    memtable.append(KeyHash::of(&user, &key), &user, &key, &op);
    memtable.close_group();
    memtable.set_durable(1);
    let mut wants = dots(first.iter().chain(&second));
    wants.insert(SlotId(3), OriginId(2), 1);
    let mut scan = OpScan::new(vec![memtable.share()], held, wants, WallMs(0)).with_cleared();
    let mut given = Vec::new();
    let mut errors = 0;
    loop {
        match scan.next_batch(1 << 20) {
            Ok(None) => break,
            Ok(Some(batch)) => given.extend(batch),
            Err(_) => {
                errors += 1;
                scan.skip_damaged().unwrap();
            }
        }
    }
    assert_eq!(errors, 1);
    assert_eq!(given.iter().filter(|op| op.op.dot.slot == SlotId(3)).count(), 40);
    assert!(given.is_sorted_by_key(order));
}

#[test]
fn what_holds_nothing_wanted_is_not_read() {
    let disk = MemoryDisk::new();
    let many: Vec<KeyedOp> = (0..200).flat_map(|slot| values(slot, 1)).collect();
    let segments = vec![
        segment(&disk, 1, &many, dots(&many)),
        segment(&disk, 2, &values(150, 2), dots(&values(150, 2))),
    ];
    let before = (disk.reads(), disk.read_bytes());
    let mut wants = SlotClocks::default();
    wants.insert_range(SlotId(150), OriginId(2), 3, 5);
    wants.insert(SlotId(7), OriginId(1), 100);
    assert_eq!(
        drain(
            &mut OpScan::new(Vec::new(), segments.clone(), wants, WallMs(0)).with_cleared(),
            1 << 20
        )
        .unwrap()
        .len(),
        3
    );
    // Only the second segment, which is one read long.
    assert_eq!(disk.reads() - before.0, 1);
    let mut wants = SlotClocks::default();
    wants.insert(SlotId(0), OriginId(1), 7);
    wants.insert(SlotId(199), OriginId(1), 7);
    assert_eq!(
        drain(
            &mut OpScan::new(Vec::new(), segments, wants, WallMs(0)).with_cleared(),
            1 << 20
        )
        .unwrap()
        .len(),
        2
    );
    assert_eq!(disk.reads() - before.0, 3, "the two ends of the first segment");
}

#[test]
fn a_failing_disk_is_told_and_tried_again() {
    let ops = values(3, 1);
    let disk = MemoryDisk::new();
    let held = segment(&disk, 1, &ops, dots(&ops));
    let mut scan = OpScan::new(Vec::new(), vec![held], dots(&ops), WallMs(0)).with_cleared();
    disk.faults()
        .fail_read
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(scan.next_batch(100), Err(ReadError::Io { .. })));
    disk.faults()
        .fail_read
        .store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(drain(&mut scan, 100).unwrap().len(), ops.len());
}

/// A clear of the first two of the others, the second of which has a request id.
fn cleared_ops() -> [KeyedOp; 4] {
    let mut seen = Clock::default();
    seen.insert_range(OriginId(1), 1, 2);
    let mut with_id = keyed(3, 1, 1, 2, Body::Value("with an id".into()));
    with_id.op.request_id = Some(RequestId([7; 16]));
    let mut clear = keyed(3, 1, 2, 1, Body::Clear(seen));
    clear.op.time = HybridTime(100 << 16);
    [
        keyed(3, 1, 1, 1, Body::Value("without".into())),
        with_id,
        keyed(3, 1, 1, 3, Body::Value("later".into())),
        clear,
    ]
}

/// The ops in a memtable, and in a segment.
fn in_both(ops: &[KeyedOp]) -> [(Vec<SharedMemtable>, Vec<Arc<Segment>>); 2] {
    let mut memtable = Memtable::new(LogKey::without_secret(9));
    for KeyedOp { user, key, op } in ops {
        memtable.append(KeyHash::of(user, key), user, key, op);
    }
    memtable.close_group();
    memtable.set_durable(1);
    let sealed = segment(&MemoryDisk::new(), 1, ops, dots(ops));
    [(vec![memtable.share()], vec![]), (vec![], vec![sealed])]
}

fn spent_of(op: &KeyedOp) -> KeyedOp {
    let mut op = op.clone();
    op.op.body = Body::Spent { cleared_at: WallMs(5) };
    op
}

#[test]
fn of_a_cleared_op_only_the_request_id_is_sent_also_to_who_knows_the_clear() {
    let ops = cleared_ops();
    let [_, with_id, later, clear] = &ops;
    // All but the clear, which comes all the same, for it may not be known there; and before the rest, of which each page is durable alone.
    let wants = dots(&ops[..3]);
    for (memtables, segments) in in_both(&ops) {
        for budget in [1, 1 << 20] {
            let mut scan = OpScan::new(memtables.clone(), segments.clone(), wants.clone(), WallMs(5));
            let expected = [clear.clone(), spent_of(with_id), later.clone()];
            assert_eq!(drain(&mut scan, budget).unwrap(), expected);
        }
        let mut scan = OpScan::new(memtables, segments, wants.clone(), WallMs(5)).only_wanted();
        assert_eq!(drain(&mut scan, 1 << 20).unwrap(), [spent_of(with_id), later.clone()]);
    }
}

#[test]
fn a_peer_that_lacks_a_clear_of_a_key_gets_it_before_what_is_left_of_its_ops() {
    let ops = cleared_ops();
    let [_, with_id, later, clear] = &ops;
    for (memtables, segments) in in_both(&ops) {
        let (user, key) = (later.user.clone(), later.key.clone());
        let name = (KeyHash::of(&user, &key), &user, &key);
        let source = KeySource {
            slot: SlotId(3),
            memory: MemoryOps::of(&memtables, name, Memtable::durable_groups),
            segments,
            user: user.clone(),
            key: key.clone(),
        };
        let mut known = Clock::default();
        let mut given = Vec::new();
        for _ in 0..3 {
            let (ops, _) = ops_of_key_lacking(&source, &known, 1, WallMs(5)).unwrap();
            ops.iter().for_each(|op| known.insert(op.dot.origin, op.dot.seq));
            given.extend(ops);
        }
        assert_eq!(given, [clear, &spent_of(with_id), later].map(|op| op.op.clone()));
    }
}

/// It may have been dropped by a merge: then nothing tells of which key it was.
#[test]
fn a_clear_comes_also_when_what_it_removed_is_not_there_any_more() {
    let [first, _, _, clear] = cleared_ops();
    let disk = MemoryDisk::new();
    let merged = segment(&disk, 1, std::slice::from_ref(&clear), dots([&first, &clear]));
    let mut scan = OpScan::new(vec![], vec![merged], dots([&first]), WallMs(5));
    assert_eq!(drain(&mut scan, 1 << 20).unwrap(), std::slice::from_ref(&clear));
    // In a segment of its own, in which nothing wanted was.
    let dropped = segment(&disk, 2, &[], dots([&first]));
    let alone = segment(&disk, 3, std::slice::from_ref(&clear), dots([&clear]));
    let mut scan = OpScan::new(vec![], vec![dropped.clone(), alone.clone()], dots([&first]), WallMs(5));
    assert_eq!(drain(&mut scan, 1 << 20).unwrap(), std::slice::from_ref(&clear));
    // And where it cannot be read, that is said.
    break_byte(&disk, 3, 50);
    let mut scan = OpScan::new(vec![], vec![dropped, alone], dots([&first]), WallMs(5));
    assert!(matches!(scan.next_batch(100), Err(ReadError::Damaged(block)) if block.segment == 3));
    assert_eq!(scan.skip_damaged().unwrap().slots, (SlotId(3), SlotId(3)));
    assert!(drain(&mut scan, 100).unwrap().is_empty());
}

/// Who waits for a batch gives up at some time, and asks for the same again.
#[test]
fn a_scan_that_finds_nothing_says_so_now_and_then() {
    const SEGMENTS: u64 = 3;
    let disk = MemoryDisk::new();
    let text = |seq: u64| (0..400).map(|at| mixed(seq, at)).collect::<String>();
    let filled = |origin: u64| {
        let mut ops: Vec<KeyedOp> = (1..=6_000)
            .map(|seq| keyed(3, 1, origin, seq, Body::Value(text(origin << 32 | seq).into())))
            .collect();
        for op in &mut ops {
            op.op.time = HybridTime(op.op.dot.seq << 16);
        }
        // Of another key, it saw nothing.
        ops.push(keyed(3, 4, origin, 7_000, Body::Clear(Clock::default())));
        segment(&disk, origin, &ops, dots(&ops))
    };
    let segments: Vec<Arc<Segment>> = (1..=SEGMENTS).map(filled).collect();
    let mut wants = SlotClocks::default();
    wants.insert(SlotId(3), OriginId(1), 5_999);
    let before = disk.read_bytes();
    let mut scan = OpScan::new(Vec::new(), segments, wants, WallMs(0));
    let (mut given, mut calls, mut read) = (Vec::new(), 0, before);
    while let Some(batch) = scan.next_batch(256 << 10).unwrap() {
        let of_call = disk.read_bytes() - std::mem::replace(&mut read, disk.read_bytes());
        assert!(of_call <= scan::LOOK_BYTES_MAX + (256 << 10), "{of_call} in one call");
        given.extend(batch);
        calls += 1;
    }
    assert_eq!(given.iter().map(|op| op.op.dot.seq).collect::<Vec<_>>(), [5_999]);
    assert!(read - before > 16 << 20, "all of it was looked at: {}", read - before);
    assert!((8..40).contains(&calls), "{calls}");
}

/// A letter that no compression foresees.
fn mixed(seq: u64, at: u64) -> char {
    let hash = KeyHash::of_bytes(&seq.to_le_bytes(), &at.to_le_bytes()).0;
    char::from_u32(0x4e00 + (hash % 20_000) as u32).unwrap()
}

/// As many small ops as a batch has room for, and then one with the largest text there can be.
fn small_ops_and_a_huge_one(budget: usize) -> Vec<KeyedOp> {
    let op = |seq: u64, text: String| {
        let mut op = keyed(3, 1, 1, seq, Body::Value(text.into()));
        op.op.time = HybridTime(seq << 16);
        op
    };
    let count = budget as u64 / 2_000;
    let mut ops: Vec<KeyedOp> = (1..=count).map(|seq| op(seq, "x".repeat(1_000))).collect();
    ops.push(op(count + 1, "x".repeat(BODY_BYTES_MAX)));
    ops.push(op(count + 2, "behind it".to_owned()));
    ops
}

#[test]
fn what_does_not_fit_into_a_batch_comes_in_the_next_one_and_a_huge_text_alone() {
    let budget = 64 << 10;
    let ops = small_ops_and_a_huge_one(budget);
    let lens = [ops.len() - 2, 1, 1];
    let sealed = segment(&MemoryDisk::new(), 1, &ops, dots(&ops));
    let mut memtable = Memtable::new(LogKey::without_secret(9));
    for KeyedOp { user, key, op } in &ops {
        memtable.append(KeyHash::of(user, key), user, key, op);
    }
    memtable.close_group();
    memtable.set_durable(1);
    for (memtables, segments) in [(vec![memtable.share()], vec![]), (vec![], vec![sealed])] {
        let mut scan = OpScan::new(memtables.clone(), segments.clone(), dots(&ops), WallMs(0));
        let mut batches = Vec::new();
        while let Some(batch) = scan.next_batch(budget).unwrap() {
            batches.push(batch);
        }
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), lens);
        assert_eq!(batches.concat(), ops);

        let (user, key) = (ops[0].user.clone(), ops[0].key.clone());
        let name = (KeyHash::of(&user, &key), &user, &key);
        let source = KeySource {
            slot: SlotId(3),
            memory: MemoryOps::of(&memtables, name, Memtable::durable_groups),
            segments,
            user: user.clone(),
            key: key.clone(),
        };
        let mut known = Clock::default();
        for (number, len) in lens.into_iter().enumerate() {
            let (given, more) = ops_of_key_lacking(&source, &known, budget, WallMs(0)).unwrap();
            assert_eq!((given.len(), more), (len, number < 2));
            given.iter().for_each(|op| known.insert(op.dot.origin, op.dot.seq));
        }
    }
}
