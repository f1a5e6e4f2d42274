//! Whatever is merged with whatever, in any order: every key's view stays what the model says, and nothing that was told is forgotten.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::core::key_ops::KeyOps;
use crate::core::op::KeyedOp;
use crate::core::slot::KeyHash;
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::log::LogKey;
use crate::store::memory_disk::MemoryDisk;
use crate::store::memtable::{MemoryOps, Memtable};
use crate::store::order::rank_of;
use crate::store::reader::{KeyReader, holds_request};
use crate::store::source::KeySource;
use crate::types::RequestId;

const NOW: WallMs = WallMs(1_000);
const KEYS: [(u16, &str); 3] = [(1, "a"), (1, "b"), (2, "c")];
const ORIGINS: u64 = 3;

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

/// A replica's files, without its shard.
struct Store {
    disk: MemoryDisk,
    cache: Arc<BlockCache>,
    memtables: Vec<SharedMemtable>,
    segments: Vec<Arc<Segment>>,
    next_number: u64,
    stable: SlotClocks,
    covered_extra: SlotClocks,
    lost: SlotClocks,
    now: WallMs,
    heard: Option<WallMs>,
}

impl Store {
    fn new(stable: SlotClocks) -> Self {
        Self {
            disk: MemoryDisk::new(),
            cache: Arc::new(BlockCache::new(1 << 20)),
            memtables: Vec::new(),
            segments: Vec::new(),
            next_number: 1,
            stable,
            covered_extra: SlotClocks::default(),
            lost: SlotClocks::default(),
            now: NOW,
            heard: Some(NOW),
        }
    }

    /// Nothing new came from elsewhere meanwhile.
    fn wait(&mut self, ms: u64) {
        self.now.0 += ms;
        self.heard = Some(self.now);
    }

    fn spent(&self) -> u64 {
        self.segments.iter().map(|segment| segment.stats().spent).sum()
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// As they come, not in order.
    fn add_memtable(&mut self, ops: &[KeyedOp]) {
        let mut memtable = Memtable::new(LogKey::without_secret(self.number()));
        for KeyedOp { user, key, op } in ops {
            memtable.append(KeyHash::of(user, key), user, key, op);
        }
        memtable.close_group();
        let closed = memtable.closed_groups();
        memtable.set_durable(closed);
        self.memtables.push(memtable.share());
    }

    fn add_segment(&mut self, ops: &[KeyedOp]) {
        let number = self.number();
        let meta = SegmentMeta {
            shard: 0,
            number,
            replaces: Vec::new(),
        };
        let mut ops = ops.to_vec();
        ops.sort_by_key(|op| (op.op.dot.slot, op.key.clone(), rank_of(&op.op)));
        let mut writer = SegmentWriter::create(self.disk.as_disk(), Path::new("/shard"), meta).unwrap();
        for KeyedOp { user, key, op } in &ops {
            let (slot, user, key) = (op.dot.slot, user.as_str(), key.as_str());
            writer.push(EntryRef { slot, user, key, op }).unwrap();
        }
        let segment = writer.finish(dots(&ops), SlotClocks::default(), &self.cache).unwrap();
        self.segments.push(Arc::new(segment));
    }

    fn context(&mut self, outside: Vec<Arc<Segment>>) -> MergeContext {
        let mut cleared_in_memory: BTreeMap<KeyName, Clock> = BTreeMap::new();
        for memtable in &self.memtables {
            let memtable = memtable.read();
            for (name, seen) in memtable.cleared_keys(memtable.durable_groups()) {
                cleared_in_memory.entry(name).or_default().join(&seen);
            }
        }
        MergeContext {
            disk: self.disk.as_disk(),
            dir: "/shard".into(),
            cache: self.cache.clone(),
            shard: 0,
            number: self.number(),
            obsolete: Vec::new(),
            outside,
            cleared_in_memory,
            memtables: self.memtables.clone(),
            stable: self.stable.clone(),
            covered_extra: self.covered_extra.clone(),
            lost: self.lost.clone(),
            now: self.now,
            heard: self.heard,
            salvage: false,
        }
    }

    fn merge(&mut self, sources: Vec<Source>, outside: Vec<Arc<Segment>>) -> Arc<Segment> {
        let context = self.context(outside);
        let mut merge = Box::new(Merge::start(sources, context).unwrap());
        loop {
            match merge.step(64).unwrap() {
                Progress::More(more) => merge = more,
                Progress::Done(merged) => return Arc::new(merged.segment),
            }
        }
    }

    fn seal_oldest(&mut self) {
        let memtable = self.memtables[0].clone();
        let segment = self.merge(vec![Source::Memtable(memtable)], self.segments.clone());
        self.memtables.remove(0);
        self.segments.push(segment);
    }

    /// Merges the segments at these places.
    fn compact(&mut self, places: &BTreeSet<usize>) {
        let at = |place: &usize, segment: &Arc<Segment>| (places.contains(place), segment.clone());
        let chosen = self
            .segments
            .iter()
            .enumerate()
            .map(|(place, segment)| at(&place, segment));
        let (inputs, outside): (Vec<_>, Vec<_>) = chosen.partition(|(is_input, _)| *is_input);
        let outside: Vec<_> = outside.into_iter().map(|(_, segment)| segment).collect();
        let sources = inputs
            .into_iter()
            .map(|(_, segment)| Source::Segment(segment))
            .collect();
        let merged = self.merge(sources, outside.clone());
        self.segments = outside;
        self.segments.push(merged);
    }

    fn compact_all(&mut self) {
        self.compact(&(0..self.segments.len()).collect());
    }

    fn source(&self, key: usize) -> KeySource {
        let (slot, key) = KEYS[key];
        let (user, key) = (user(), Key::new(key).unwrap());
        let name = (KeyHash::of(&user, &key), &user, &key);
        KeySource {
            slot: SlotId(slot),
            memory: MemoryOps::of(&self.memtables, name, Memtable::durable_groups),
            segments: self.segments.clone(),
            user,
            key,
        }
    }

    fn view(&self, key: usize) -> Vec<String> {
        let mut reader = KeyReader::new(self.source(key), 0, u64::MAX);
        let (mut values, mut open) = (Vec::new(), String::new());
        while let Some(fragment) = reader.next().unwrap() {
            open.push_str(fragment.text.as_ref());
            if fragment.ends_value {
                values.push(std::mem::take(&mut open));
            }
        }
        values
    }

    fn covered(&self) -> SlotClocks {
        let mut covered = SlotClocks::default();
        self.segments.iter().for_each(|segment| covered.join(segment.covered()));
        self.memtables
            .iter()
            .for_each(|memtable| covered.join(&memtable.read().covered()));
        covered
    }

    fn collected(&self) -> SlotClocks {
        let mut collected = SlotClocks::default();
        self.segments
            .iter()
            .for_each(|segment| collected.join(segment.collected()));
        collected
    }

    fn clears(&self) -> u64 {
        self.segments.iter().map(|segment| segment.stats().clears).sum()
    }
}

/// An op; which of five sources hold it; and which of these hold what is left of it instead, as a peer may have sent it.
type Placed = (KeyedOp, u8, u8);

/// In the order of cause and effect: a clear has seen nothing that comes after it. Stamps and places follow no order.
fn placed_ops() -> impl Strategy<Value = Vec<Placed>> {
    let one = (
        (0usize..3, 1..=ORIGINS, 0u8..10),
        (1u8..32, any::<u8>(), 0u64..1_000),
        (proptest::option::of(0u8..4), any::<u64>()),
    );
    proptest::collection::vec(one, 0..30).prop_map(|list| {
        let mut placed: Vec<Placed> = Vec::new();
        for (index, ((key, origin, kind), (places, left, time), (request, chance))) in list.into_iter().enumerate() {
            let seq = index as u64 + 1;
            let mut made = value(key, origin, seq, time * 100 + seq);
            // A clear is no retry of a value, and an origin takes no id twice.
            let id = request.map(|id| RequestId([if (2..5).contains(&kind) { id + 100 } else { id }; 16]));
            let is_taken = |(op, ..): &Placed| op.op.request_id == id && op.op.dot.origin == made.op.dot.origin;
            made.op.request_id = id.filter(|_| !placed.iter().any(is_taken));
            let request = made.op.request_id;
            let mut left = if request.is_some() && left < 8 {
                places & left
            } else {
                0
            };
            match kind {
                0..2 => made.op.body = Body::Part(format!("part {seq} ").into()),
                2..5 => {
                    let mut seen = Clock::default();
                    for (at, (op, ..)) in placed.iter().enumerate() {
                        if op.op.dot.slot == made.op.dot.slot && chance >> (at % 64) & 1 == 1 {
                            seen.insert(op.op.dot.origin, op.op.dot.seq);
                        }
                    }
                    (made.op.body, left) = (Body::Clear(seen), 0);
                }
                _ => {}
            }
            placed.push((made, places, left));
        }
        placed
    })
}

fn left_of(op: &KeyedOp) -> KeyedOp {
    let body = Body::Spent { cleared_at: NOW };
    let op = op.clone();
    KeyedOp {
        op: Op { body, ..op.op },
        ..op
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn merges_change_no_view_and_forget_nothing(
        placed in placed_ops(),
        known_to_all in prop_oneof![3 => Just(u64::MAX), 1 => any::<u64>()],
        turns in proptest::collection::vec((any::<bool>(), 1u8..64), 0..8),
    ) {
        let known = placed.iter().enumerate().filter(|(at, _)| known_to_all >> at & 1 == 1);
        let mut store = Store::new(dots(known.map(|(_, (op, ..))| op)));
        let mut models = [const { None::<KeyOps> }; 3].map(Option::unwrap_or_default);
        for source in 0..5 {
            let mut here = Vec::new();
            for (op, places, left) in placed.iter().filter(|(_, places, _)| places >> source & 1 == 1) {
                let _ = places;
                let op = if left >> source & 1 == 1 { left_of(op) } else { op.clone() };
                let key = KEYS.iter().position(|(_, key)| *key == op.key.as_str()).unwrap();
                models[key].insert(op.op.clone());
                here.push(op);
            }
            match source {
                0..2 => store.add_memtable(&here),
                _ => store.add_segment(&here),
            }
        }
        let covered = store.covered();
        let check = |store: &Store| -> Result<(), TestCaseError> {
            for (key, model) in models.iter().enumerate() {
                prop_assert_eq!(store.view(key), model.view(), "key {}", key);
                for op in model.ops() {
                    if let Some(id) = op.request_id {
                        let in_memory = store.source(key).memory.iter().any(|op| op.request_id == Some(id));
                        prop_assert!(in_memory || holds_request(&store.source(key), id).unwrap());
                    }
                }
            }
            prop_assert!(store.covered() == covered);
            prop_assert!(store.stable.covers(&store.collected()));
            Ok(())
        };
        check(&store)?;
        for (seals, choice) in turns {
            if seals && !store.memtables.is_empty() {
                store.seal_oldest();
            } else {
                let count = store.segments.len();
                let places: BTreeSet<usize> = (0..count).filter(|place| choice >> place & 1 == 1).collect();
                if !places.is_empty() {
                    store.compact(&places);
                }
            }
            check(&store)?;
        }
        while !store.memtables.is_empty() {
            store.seal_oldest();
        }
        store.compact_all();
        check(&store)?;
        if known_to_all == u64::MAX {
            prop_assert_eq!(store.clears(), 0, "nothing is left for them to do");
        }
    }
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
    let mut store = Store::new(dots(&ops));
    store.add_segment(&ops);
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

const HOUR_MS: u64 = 60 * 60 * 1000;

/// A copy of a request: what one try left.
fn copy(origin: u64, time: u64) -> KeyedOp {
    let mut copy = value(0, origin, 1, time);
    copy.op.request_id = Some(RequestId([7; 16]));
    copy
}

#[test]
fn a_request_id_is_remembered_for_an_hour_after_its_op_was_cleared() {
    let ops = [copy(1, 10), clear(0, 3, 1, 30, &[(1, 1, 1)])];
    let mut store = Store::new(dots(&ops));
    store.add_segment(&ops);
    store.compact_all();
    for (ms, spent) in [(0, 1), (HOUR_MS, 1), (2 * 60 * 1000, 0)] {
        store.wait(ms);
        store.compact_all();
        assert_eq!((store.spent(), store.view(0).len()), (spent, 0), "after {ms} ms more");
    }
}

#[test]
fn a_copy_that_no_clear_saw_never_shows_once_its_request_was_cleared() {
    // Where it lies while the other one is forgotten: beside it, in another segment, in memory.
    for place in ["beside", "segment", "memory"] {
        let other = copy(2, 20);
        let ops = [copy(1, 10), clear(0, 3, 1, 30, &[(1, 1, 1)])];
        let mut store = Store::new(dots(ops.iter().chain([&other])));
        store.add_segment(&ops);
        match place {
            "memory" => store.add_memtable(std::slice::from_ref(&other)),
            _ => store.add_segment(std::slice::from_ref(&other)),
        }
        let all = if place == "segment" { 1 } else { store.segments.len() };
        for _ in 0..3 {
            store.compact(&(0..all).collect());
            store.segments.sort_by_key(|segment| segment.stats().spent == 0);
            assert!(store.view(0).is_empty(), "{place}");
            store.wait(2 * HOUR_MS);
        }
        // It goes with the next clear, and an hour later nothing is left of either.
        let last = clear(0, 3, 2, 40, &[(1, 1, 1), (2, 1, 1), (3, 1, 1)]);
        store.stable = dots(ops.iter().chain([&other, &last]));
        store.add_segment(&[last]);
        while !store.memtables.is_empty() {
            store.seal_oldest();
        }
        for _ in 0..3 {
            store.compact_all();
            assert!(store.view(0).is_empty(), "{place}");
            store.wait(2 * HOUR_MS);
        }
        assert_eq!((store.spent(), store.clears()), (0, 0), "{place}");
    }
}

#[test]
fn a_request_id_stays_while_another_replica_may_bring_a_copy() {
    let ops = [copy(1, 10), clear(0, 3, 1, 30, &[(1, 1, 1)])];
    let mut store = Store::new(dots(&ops));
    store.add_segment(&ops);
    store.compact_all();
    let before = store.now;
    store.wait(2 * HOUR_MS);
    for heard in [None, Some(before)] {
        store.heard = heard;
        store.compact_all();
        assert_eq!(store.spent(), 1, "not heard of all others since: {heard:?}");
    }
    // The other one comes with what it had.
    store.add_segment(&[copy(2, 20)]);
    store.wait(0);
    store.compact_all();
    assert_eq!((store.spent(), store.view(0).len()), (1, 0));

    let mut store = Store::new(dots(&ops[1..]));
    store.add_segment(&ops);
    store.compact_all();
    store.wait(2 * HOUR_MS);
    store.compact_all();
    assert_eq!(store.spent(), 1, "another replica has not met the op");
}

#[test]
fn a_request_that_was_taken_anew_keeps_nothing() {
    let anew = HybridTime::from_wall(WallMs(2 * HOUR_MS)).0;
    let ops = [copy(1, 10), clear(0, 3, 1, 30, &[(1, 1, 1)]), copy(2, anew)];
    let mut store = Store::new(dots(&ops));
    store.add_segment(&ops);
    for spent in [1, 0] {
        store.compact_all();
        assert_eq!((store.spent(), store.view(0)), (spent, vec!["2.1".to_owned()]));
        store.wait(2 * HOUR_MS);
    }
}

#[test]
fn the_copies_of_a_long_key_are_found_too() {
    let mut ops = vec![copy(1, 10), copy(2, 20)];
    ops.extend((2..KEPT_OPS_MAX as u64 + 100).map(|seq| value(0, 2, seq, 20 + seq)));
    ops.push(clear(0, 3, 1, 30, &[(1, 1, 1)]));
    let mut store = Store::new(dots(&ops));
    store.add_segment(&ops);
    for _ in 0..3 {
        store.compact_all();
        assert_eq!((store.spent(), store.view(0).len()), (1, KEPT_OPS_MAX + 98));
        store.wait(2 * HOUR_MS);
    }
}
