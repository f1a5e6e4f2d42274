//! What a list holds in memory, on a disk that counts what is read.

use std::path::Path;

use super::*;
use crate::core::clock::SlotClocks;
use crate::core::op::{Body, Dot, Op};
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::cache::{BlockCache, CACHED_BLOCK_BYTES_MAX};
use crate::store::memory_disk::MemoryDisk;
use crate::store::segment::{EntryRef, SegmentMeta, SegmentWriter};
use crate::types::{RequestId, WallMs};

const SLOTS: u16 = 16;
const KEYS_OF_SLOT: u16 = 3;
/// In order of slots they are not in order of keys.
const STEP: u16 = 7;

fn name(slot: u16, at: u16) -> String {
    format!("key {at} {:02}", slot * STEP % SLOTS)
}

/// Every slot has a few keys, with one value of so many bytes that no compression makes shorter.
fn segment_of(disk: &MemoryDisk, value_bytes: usize) -> Arc<Segment> {
    let meta = SegmentMeta {
        shard: 0,
        number: 1,
        replaces: Vec::new(),
    };
    let dir = Path::new("/d");
    let mut writer = SegmentWriter::create(disk.as_disk(), dir, meta).unwrap();
    let (mut covered, mut state) = (SlotClocks::default(), 1u64);
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + (state >> 58) as u8)
    };
    for slot in 0..SLOTS {
        for at in 0..KEYS_OF_SLOT {
            let dot = Dot {
                origin: OriginId(1),
                slot: SlotId(slot),
                seq: u64::from(at) + 1,
            };
            covered.insert(dot.slot, dot.origin, dot.seq);
            let text: String = (0..value_bytes).map(|_| noise()).collect();
            let op = Op {
                dot,
                time: HybridTime(dot.seq),
                request_id: None,
                body: Body::Value(text.as_str().into()),
            };
            let (slot, key) = (dot.slot, name(slot, at));
            let (user, key, op) = ("u", key.as_str(), &op);
            writer.push(EntryRef { slot, user, key, op }).unwrap();
        }
    }
    let cache = Arc::new(BlockCache::new(1 << 20));
    Arc::new(writer.finish(covered, SlotClocks::default(), &cache).unwrap())
}

fn lister(segment: Arc<Segment>, limit: usize) -> KeyLister {
    KeyLister {
        query: KeyQuery {
            user: UserId::new("u").unwrap(),
            prefix: "key".to_owned(),
            after: None,
            limit,
            all: false,
        },
        slots: 0..SLOTS,
        segments: vec![segment],
        memory: BTreeMap::new(),
        memory_cut: None,
    }
}

fn all_names() -> Vec<String> {
    let mut names: Vec<String> = (0..SLOTS)
        .flat_map(|slot| (0..KEYS_OF_SLOT).map(move |at| name(slot, at)))
        .collect();
    names.sort();
    names
}

/// Page after page, and how many these were.
fn listed(lister: &mut KeyLister) -> (Vec<String>, usize) {
    let (mut keys, mut pages) = (Vec::new(), 0);
    loop {
        let page = lister.list().unwrap();
        keys.extend(page.keys.iter().map(|key| key.as_str().to_owned()));
        pages += 1;
        let Some(last) = page.next_after else {
            return (keys, pages);
        };
        lister.query.after = Some(last.as_str().to_owned());
    }
}

#[test]
fn no_walk_keeps_a_large_block_while_it_waits() {
    for value_bytes in [100 << 10, CACHED_BLOCK_BYTES_MAX + 1] {
        let disk = MemoryDisk::new();
        let lister = lister(segment_of(&disk, value_bytes), usize::MAX);
        let mut walks = lister.walks(|| true).unwrap();
        assert_eq!(walks.by_key.len(), usize::from(SLOTS));
        while let Some(key) = walks.next_key().cloned() {
            assert_eq!(held_bytes(&walks), 0, "values of {value_bytes} bytes");
            assert!(lister.pass(&mut walks, &key, &mut 0).unwrap().is_some());
        }
        let page = lister.list().unwrap();
        let keys: Vec<_> = page.keys.iter().map(|key| key.as_str().to_owned()).collect();
        assert_eq!(keys, all_names());
    }
}

fn held_bytes(walks: &Walks) -> usize {
    walks.by_key.values().map(|walk| walk.scan.held_bytes()).sum()
}

#[test]
fn many_walks_do_not_keep_much_together_while_they_wait() {
    let disk = MemoryDisk::new();
    let mut lister = lister(segment_of(&disk, 40 << 10), usize::MAX);
    // Whose walks stand at the same keys, as if each had a copy.
    let copies = HELD_BYTES_MAX / (40 << 10) / usize::from(SLOTS) * 2;
    lister.segments = vec![lister.segments[0].clone(); copies];
    let mut walks = lister.walks(|| true).unwrap();
    let mut most = 0;
    while let Some(key) = walks.next_key().cloned() {
        let held = held_bytes(&walks);
        assert!(held <= HELD_BYTES_MAX && held == walks.held_bytes, "{held} are kept");
        most = most.max(held);
        assert!(lister.pass(&mut walks, &key, &mut 0).unwrap().is_some());
    }
    assert!(most > HELD_BYTES_MAX * 9 / 10 && walks.held_bytes == 0);
    assert_eq!(listed(&mut lister).0, all_names());
}

#[test]
fn what_was_let_go_is_not_read_again_for_nothing() {
    let disk = MemoryDisk::new();
    let segment = segment_of(&disk, CACHED_BLOCK_BYTES_MAX + 1);
    let before = disk.read_bytes();
    lister(segment.clone(), usize::MAX).list().unwrap();
    // Once by the walk, once to see whether the key has values, and once by the walk of the slot before, which ends there.
    assert!(disk.read_bytes() - before < segment.file_bytes() * 5 / 2);
}

#[test]
fn small_blocks_stay_where_they_are() {
    let disk = MemoryDisk::new();
    let lister = lister(segment_of(&disk, 100), usize::MAX);
    let page = lister.list().unwrap();
    assert_eq!(page.keys.len(), all_names().len());
    let reads = disk.reads();
    lister.list().unwrap();
    assert_eq!(disk.reads(), reads, "all of it is in the cache");
}

/// One key whose ops, of two origins and with request ids, are given by their number.
fn long_key(disk: &MemoryDisk, ops: impl Iterator<Item = (u64, Body)>) -> Arc<Segment> {
    let meta = SegmentMeta {
        shard: 0,
        number: 1,
        replaces: Vec::new(),
    };
    let mut writer = SegmentWriter::create(disk.as_disk(), Path::new("/d"), meta).unwrap();
    let mut covered = SlotClocks::default();
    for (number, body) in ops {
        let dot = Dot {
            origin: OriginId(1 + number % 2),
            slot: SlotId(0),
            seq: number + 1,
        };
        covered.insert(dot.slot, dot.origin, dot.seq);
        let op = Op {
            dot,
            time: HybridTime(number + 1),
            request_id: Some(RequestId(u128::from(number).to_le_bytes())),
            body,
        };
        let (slot, user, key, op) = (dot.slot, "u", "key", &op);
        writer.push(EntryRef { slot, user, key, op }).unwrap();
    }
    let cache = Arc::new(BlockCache::new(0));
    Arc::new(writer.finish(covered, SlotClocks::default(), &cache).unwrap())
}

fn noise(number: u64) -> Body {
    let mut state = number + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + (state >> 58) as u8)
    };
    Body::Value((0..1000).map(|_| next()).collect::<String>().as_str().into())
}

fn key_is_listed_by_a_few_blocks(ops: impl Iterator<Item = (u64, Body)>) {
    let disk = MemoryDisk::new();
    let segment = long_key(&disk, ops);
    for all in [false, true] {
        let before = disk.read_bytes();
        let mut lister = lister(segment.clone(), 1);
        lister.query.all = all;
        assert_eq!(lister.list().unwrap().keys.len(), 1);
        let read = disk.read_bytes() - before;
        assert!(read * 10 < segment.file_bytes(), "{read} of {}", segment.file_bytes());
    }
}

#[test]
fn of_a_long_list_a_few_blocks_are_read_to_list_its_key() {
    key_is_listed_by_a_few_blocks((0..1000).map(|number| (number, noise(number))));
}

#[test]
fn also_where_something_of_it_was_cleared() {
    let cleared_at = WallMs(1);
    let spent = (0..3).map(|number| (number, Body::Spent { cleared_at }));
    key_is_listed_by_a_few_blocks(spent.chain((3..1000).map(|number| (number, noise(number)))));
}

/// A slot of so many keys, of which nothing is left but that their request ids were taken, so many in each; and one that shows, behind them.
fn cleared_keys(disk: &MemoryDisk, keys: usize, ops_of_key: usize) -> Arc<Segment> {
    let cleared = keys * ops_of_key;
    let meta = SegmentMeta {
        shard: 0,
        number: 1,
        replaces: Vec::new(),
    };
    let mut writer = SegmentWriter::create(disk.as_disk(), Path::new("/d"), meta).unwrap();
    let mut covered = SlotClocks::default();
    for number in 0..=cleared {
        let dot = Dot {
            origin: OriginId(1),
            slot: SlotId(0),
            seq: number as u64 + 1,
        };
        covered.insert(dot.slot, dot.origin, dot.seq);
        let op = Op {
            dot,
            time: HybridTime(dot.seq),
            request_id: Some(RequestId((number as u128).to_le_bytes())),
            body: match number == cleared {
                true => Body::Value("v".into()),
                false => Body::Spent { cleared_at: WallMs(1) },
            },
        };
        let (slot, key, op) = (dot.slot, format!("key {:08}", number / ops_of_key), &op);
        let (user, key) = ("u", key.as_str());
        writer.push(EntryRef { slot, user, key, op }).unwrap();
    }
    let cache = Arc::new(BlockCache::new(64 << 20));
    Arc::new(writer.finish(covered, SlotClocks::default(), &cache).unwrap())
}

#[test]
fn a_page_is_bounded_by_the_keys_that_it_passes_and_says_where_to_go_on() {
    const CLEARED: usize = 3 * PASSED_MAX;
    let disk = MemoryDisk::new();
    let mut lister = lister(cleared_keys(&disk, CLEARED, 1), 1);
    let last_passed = |page: &KeyPage| page.next_after.as_ref().map(|key| key.as_str().to_owned());
    let mut pages = 0;
    loop {
        let page = lister.list().unwrap();
        if !page.keys.is_empty() {
            assert_eq!(page.keys[0].as_str(), format!("key {CLEARED:08}"));
            break;
        }
        pages += 1;
        let last = Some(format!("key {:08}", pages * PASSED_MAX - 1));
        assert_eq!(last_passed(&page), last);
        lister.query.after = last;
    }
    assert_eq!(pages, CLEARED / PASSED_MAX);
}

#[test]
fn a_page_is_bounded_by_the_blocks_that_it_goes_through() {
    let disk = MemoryDisk::new();
    let value_bytes = (LOOKED_AT_BYTES_MAX / u64::from(SLOTS)) as usize;
    let mut lister = lister(segment_of(&disk, value_bytes), usize::MAX);
    let (keys, pages) = listed(&mut lister);
    assert!(keys == all_names() && pages > 1);
}

#[test]
fn a_page_that_nobody_waits_for_any_more_is_given_up() {
    let disk = MemoryDisk::new();
    let lister = lister(cleared_keys(&disk, 1000, 1), 1);
    let asked = std::cell::Cell::new(0);
    let is_wanted = || asked.replace(asked.get() + 1) < 100;
    lister.list_while(is_wanted).unwrap();
    assert_eq!(asked.get(), 101);
}

/// As many cleared ops in each key as one page looks at.
const OPS_OF_PAGE: usize = (LOOKED_AT_BYTES_MAX / OP_BYTES) as usize;

#[test]
fn a_page_is_bounded_by_the_cleared_ops_within_its_keys() {
    let disk = MemoryDisk::new();
    for all in [false, true] {
        let mut lister = lister(cleared_keys(&disk, 2, OPS_OF_PAGE), 1);
        lister.query.all = all;
        for passed in ["key 00000000", "key 00000001"] {
            let page = lister.list().unwrap();
            assert!(page.keys.is_empty());
            assert_eq!(page.next_after.as_ref().map(Key::as_str), Some(passed));
            lister.query.after = Some(passed.to_owned());
        }
        assert_eq!(lister.list().unwrap().keys[0].as_str(), "key 00000002");
    }
}

#[test]
fn a_page_that_nobody_waits_for_any_more_is_given_up_within_a_key() {
    let disk = MemoryDisk::new();
    let lister = lister(cleared_keys(&disk, 1, OPS_OF_PAGE), 1);
    let asked = std::cell::Cell::new(0);
    // More often than for its walks and its keys: within the key.
    let until = usize::from(SLOTS) + 10;
    lister.list_while(|| asked.replace(asked.get() + 1) < until).unwrap();
    assert!((until + 1..until + 3).contains(&asked.get()), "{}", asked.get());
}
