//! The rules of block, index and footer, one by one, behind checksums that are right.

use super::*;
use crate::store::codec::put_varint;
use crate::store::filter::Filter;
use crate::store::segment::index::{Index, IndexBuilder};
use crate::store::segment::slot_filters::SlotFilters;

const ORIGINS: [(u32, u64); 1] = [(0, 77)];

/// A plain value of one byte, 1 ms after the base.
const OP: &[u8] = &[1 | 1 << 4 | 1 << 6, 2, 1, b'x'];

struct Group<'a> {
    shared: u64,
    rest: &'a [u8],
    ops: u64,
    run: &'a [u8],
}

fn group<'a>(shared: u64, rest: &'a [u8]) -> Group<'a> {
    Group {
        shared,
        rest,
        ops: 1,
        run: OP,
    }
}

fn block_with(groups: &[Group<'_>], restarts: impl FnOnce(&[u32]) -> (Vec<u32>, u32)) -> Bytes {
    let mut raw = 5u64.to_le_bytes().to_vec();
    raw.extend_from_slice(&(ORIGINS.len() as u16).to_le_bytes());
    for (number, origin) in ORIGINS {
        raw.extend_from_slice(&number.to_le_bytes());
        raw.extend_from_slice(&origin.to_le_bytes());
    }
    let mut starts = Vec::new();
    for group in groups {
        starts.push(raw.len() as u32);
        put_varint(&mut raw, group.shared);
        put_varint(&mut raw, group.rest.len() as u64);
        raw.extend_from_slice(group.rest);
        put_varint(&mut raw, group.ops);
        put_varint(&mut raw, group.run.len() as u64);
        raw.extend_from_slice(group.run);
    }
    let (table, count) = restarts(&starts);
    table.iter().for_each(|at| raw.extend_from_slice(&at.to_le_bytes()));
    raw.extend_from_slice(&count.to_le_bytes());
    raw.into()
}

fn block(groups: &[Group<'_>]) -> Bytes {
    block_with(groups, |starts| (starts[..1].to_vec(), 1))
}

fn what(raw: Bytes) -> Result<usize, &'static str> {
    decode_raw_block(raw).map(|ops| ops.len()).map_err(|error| error.what)
}

#[test]
fn each_rule_of_a_block_is_kept() {
    let (a, b): (&[u8], &[u8]) = (b"\0\x01u\0a", b"b");
    assert_eq!(what(block(&[group(0, a), group(4, b)])), Ok(2));
    let restarts = "restarts of a block";
    assert_eq!(what(block_with(&[group(0, a)], |_| (vec![], 0))), Err(restarts));
    assert_eq!(
        what(block_with(&[group(0, a)], |starts| (starts.to_vec(), 9999))),
        Err(restarts)
    );
    assert_eq!(what(block_with(&[group(0, a)], |_| (vec![3], 1))), Err(restarts));
    let place = "place of a group";
    assert_eq!(what(block(&[group(0, a), group(4, b"a")])), Err(place));
    assert_eq!(what(block(&[group(0, b"\0\x01u\0b"), group(4, b"a")])), Err(place));
    assert_eq!(what(block(&[group(0, a), group(6, b)])), Err(place));
    assert_eq!(what(block(&[group(0, a), group(u64::MAX, b)])), Err(place));
    assert_eq!(
        what(block(&[group(0, &[b"\0\x01u\0".as_slice(), &[b'k'; 1600]].concat())])),
        Err(place)
    );
    assert_eq!(what(block(&[group(0, b"\0\x01u\0")])), Err("place"));
    assert_eq!(what(block(&[group(0, b"\xff\x01u\0a")])), Err("slot of a place"));
    let with = |ops, run| {
        what(block(&[Group {
            shared: 0,
            rest: a,
            ops,
            run,
        }]))
    };
    assert_eq!(with(0, OP), Err("run of ops"));
    assert_eq!(with(1, b""), Err("run of ops"));
    assert_eq!(with(2, OP), Err("length"));
    let two = [OP, OP].concat();
    assert_eq!(with(1, &two), Err("run of ops"));
    assert_eq!(with(1, &OP[..3]), Err("count"));
    assert_eq!(with(1, &[1 | 1 << 6, 2, 9, 1, b'x']), Err("origin of an op"));
    // A look-up meets a restart that shares bytes, or lies outside.
    let wanted = b"\0\x01u\0b";
    let look_up = |raw: Bytes| Block::parse(raw).unwrap().find(wanted).map_err(|error| error.what);
    assert!(look_up(block(&[group(0, a), group(4, b)])).unwrap().is_some());
    let sharing = block_with(&[group(0, a), group(4, b)], |starts| (starts.to_vec(), 2));
    assert_eq!(look_up(sharing), Err(restarts));
    let outside = block_with(&[group(0, a), group(4, b)], |starts| (vec![starts[0], 5000], 2));
    assert_eq!(look_up(outside), Err(restarts));
}

fn index_of(places: &[&[u8]]) -> (u32, Vec<u8>) {
    let mut builder = IndexBuilder::default();
    let mut before: &[u8] = b"";
    for place in places {
        builder.add(before, place, 100, 1, None);
        before = place;
    }
    builder.finish()
}

fn entry(shared: u64, rest: &[u8], stored: u64, ops: u64, flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, shared);
    put_varint(&mut bytes, rest.len() as u64);
    bytes.extend_from_slice(rest);
    put_varint(&mut bytes, stored);
    put_varint(&mut bytes, ops);
    bytes.push(flags);
    bytes
}

#[test]
fn each_rule_of_the_index_is_kept() {
    let (count, bytes) = index_of(&[b"\0\x01u\0a", b"\0\x01u\0b", b"\0\x01u\0b"]);
    assert!(Index::decode(bytes.into(), count, 24 + 300).is_ok());
    let first = entry(0, b"\0\x01", 100, 1, 0);
    let is_right = |entries: &[&[u8]], end| Index::decode(entries.concat().into(), entries.len() as u32, end).is_ok();
    assert!(is_right(&[&first], 124) && is_right(&[&first, &entry(2, b"u", 100, 1, 0)], 224));
    for end in [123, 125, 0, u64::MAX] {
        assert!(!is_right(&[&first], end));
    }
    for bad in [
        entry(1, b"\x01", 100, 1, 0),
        entry(0, b"\0", 100, 1, 0),
        entry(0, &[0; 1600], 100, 1, 0),
        entry(0, b"\0\x01", 13, 1, 0),
        entry(0, b"\0\x01", u64::MAX, 1, 0),
        entry(0, b"\0\x01", 100, 0, 0),
        entry(0, b"\0\x01", 100, 1, 8),
        entry(0, b"\0\x01", 100, 1, 1),
    ] {
        assert!(!is_right(&[&bad], 124) && !is_right(&[&bad], 37));
    }
    for bad in [
        entry(3, b"u", 100, 1, 0),
        entry(0, b"\0\x01", 100, 1, 0),
        entry(0, b"\0\0", 100, 1, 0),
        entry(2, b"u", 100, 1, 2),
        entry(2, b"u", 100, 1, 3),
    ] {
        assert!(!is_right(&[&first, &bad], 224));
    }
    // Fewer or more entries than said.
    for (count, end) in [(2, 124), (0, 24), (u32::MAX, 124)] {
        assert!(Index::decode(first.clone().into(), count, end).is_err());
    }
}

#[test]
fn the_index_finds_the_first_block_of_a_key_among_many() {
    let places: Vec<Vec<u8>> = (0..300u32)
        .map(|i| format!("\0\x01u\0key-{:05}", if (100..150).contains(&i) { 100 } else { i }).into_bytes())
        .collect();
    let (count, bytes) = index_of(&places.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let index = Index::decode(bytes.into(), count, 24 + 30_000).unwrap();
    for (at, place) in places.iter().enumerate() {
        // Block 99 may end with key 100 as far as separators tell; block 100 begins with it.
        let expected = if (100..150).contains(&at) { 100 } else { at };
        assert_eq!(index.find(place).map(|block| block.ordinal as usize), Some(expected));
        let behind = [place.as_slice(), b"!"].concat();
        let expected = if (100..150).contains(&at) { 149 } else { at };
        assert_eq!(index.find(&behind).map(|block| block.ordinal as usize), Some(expected));
    }
    assert_eq!(index.find(b"\0\0z"), None);
}

#[test]
fn a_footer_that_promises_too_large_blocks_is_refused() {
    let stats = SegmentStats::default();
    let (covered, filters) = (SlotClocks::default(), SlotFilters::of_all_slots(Filter::everything()));
    let footer = |raw_bytes_max| {
        let parts = super::footer::FooterParts {
            replaces: &[],
            stats: &stats,
            last_slot: SlotId(0),
            raw_bytes_max,
            covered: &covered,
            lost: &covered,
            collected: &covered,
            block_count: 0,
            index: &[],
            filters: &filters,
        };
        decode_footer(&parts.pieces().concat().into(), FORMAT_VERSION, 24)
            .map(drop)
            .map_err(|error| error.what)
    };
    assert_eq!(footer(format::BLOCK_BYTES_MAX), Ok(()));
    assert_eq!(footer(format::BLOCK_BYTES_MAX + 1), Err("largest block"));
}
