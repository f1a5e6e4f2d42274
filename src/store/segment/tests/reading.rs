//! What is read is what was written, whatever way it is read.

use super::*;
use crate::store::filter::{key_tag, parts_tag, request_tag};

fn place_of_entry(entry: &KeyedOp) -> Vec<u8> {
    place_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str())
}

/// Keys from one op to many blocks, with whatever carries a request id.
fn entries_with_requests() -> impl Strategy<Value = Vec<KeyedOp>> {
    let one = (0u8..12, 0usize..70, 0u8..4, prop::bool::weighted(0.02));
    let keys = proptest::collection::vec(proptest::collection::vec(one, 1..120), 1..5);
    keys.prop_map(|keys| {
        let mut entries = Vec::new();
        for (key, ops) in keys.into_iter().enumerate() {
            for (index, (kind, length, id, of_other_origin)) in ops.into_iter().enumerate() {
                let seq = index as u64 + 1;
                let mut op = value(seq, &"v".repeat(length));
                match kind {
                    0 => {
                        op.body = Body::Spent {
                            cleared_at: WallMs(seq),
                        }
                    }
                    1 => op.body = Body::Part("part".into()),
                    2 if length < 5 => op.body = Body::Clear(Clock::default()),
                    _ => {}
                }
                op.dot.origin.0 += u64::from(of_other_origin);
                op.request_id = (id > 0).then(|| request(seq));
                entries.push(keyed(5, "u", &format!("key {key}"), op));
            }
        }
        sorted(entries)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_written_is_read(entries in any_entries(), block_bytes in 100usize..4000) {
        let (disk, cache) = (MemoryDisk::new(), cache());
        let segment = write(&disk, &entries, block_bytes, &cache);
        prop_assert_eq!(scan_all(segment.scan(None)), entries.clone());
        prop_assert_eq!(scan_all(segment.scan_through(ScanBlocks::Cache, None)), entries.clone());
        prop_assert_eq!(segment.verify(), vec![]);
        for entry in &entries {
            let expected: Vec<Op> = same_key(&entries, entry).map(|entry| entry.op.clone()).collect();
            prop_assert_eq!(segment.last_stamp_of(&place_of_entry(entry)).unwrap(), expected.last().map(Op::stamp));
            prop_assert_eq!(ops_of(&segment, entry).unwrap(), expected);
        }
        prop_assert_eq!(segment.covered(), &covered(&entries));
        prop_assert_eq!(segment.lost(), &lost());
        prop_assert_eq!(segment.replaces(), &[7, 8]);
        prop_assert_eq!(segment.stats().ops as usize, entries.len());
    }

    #[test]
    fn every_request_id_is_found_and_no_other(
        entries in prop_oneof![entries_with_requests(), any_entries()],
        block_bytes in 100usize..1500,
    ) {
        let segment = write(&MemoryDisk::new(), &entries, block_bytes, &cache());
        for (index, entry) in entries.iter().enumerate() {
            prop_assert!(entry.op.request_id.is_none_or(|id| holds(&segment, entry, id)), "{entry:?}");
            prop_assert!(!holds(&segment, entry, request(1000 + index as u64)));
        }
    }

    #[test]
    fn the_filter_denies_nothing_that_is_there(entries in any_entries()) {
        let segment = write(&MemoryDisk::new(), &entries, 1000, &cache());
        for entry in &entries {
            let (slot, hash) = (entry.op.dot.slot, hash_of(entry));
            prop_assert!(segment.may_hold(slot, key_tag(hash)));
            prop_assert!(entry.op.request_id.is_none_or(|id| segment.may_hold(slot, request_tag(hash, id))));
            prop_assert!(!matches!(entry.op.body, Body::Part(_)) || segment.may_hold(slot, parts_tag(hash)));
        }
    }

    #[test]
    fn absent_keys_are_absent(entries in any_entries(), probe in any_entry(), block_bytes in 100usize..1000) {
        let segment = write(&MemoryDisk::new(), &entries, block_bytes, &cache());
        let expected: Vec<Op> = same_key(&entries, &probe).map(|entry| entry.op.clone()).collect();
        let place = place_of_entry(&probe);
        prop_assert_eq!(segment.last_stamp_of(&place).unwrap(), expected.last().map(Op::stamp));
        prop_assert_eq!(segment.values_of(&place).unwrap() == Values::Absent, expected.is_empty());
        prop_assert_eq!(ops_of(&segment, &probe).unwrap(), expected);
    }

    #[test]
    fn a_directory_finds_what_a_search_finds(
        entries in any_entries(),
        probe in any_entry(),
        tiny in prop_oneof![Just(0u64), 100u64..160],
        block_bytes in 100usize..20_000,
    ) {
        let mut entries = entries;
        entries.extend((0..tiny).map(|seq| keyed(1, "b", &format!("{seq:03}"), value(seq + 1, "v"))));
        let entries = sorted(entries);
        let segment = write(&MemoryDisk::new(), &entries, block_bytes, &cache());
        let mut next = segment.footer.index.first();
        while let Some(block) = next {
            let raw = segment.read_block(&block).unwrap();
            let (searched, listed) = (Block::parse(raw.clone()).unwrap(), Block::parse_for_lookups(raw).unwrap());
            for place in entries.iter().chain([&probe]).map(place_of_entry) {
                prop_assert_eq!(searched.find(&place), listed.find(&place));
            }
            next = segment.footer.index.after(&block);
        }
    }

    #[test]
    fn a_scan_begins_and_goes_on_where_it_is_told(
        entries in any_entries(),
        block_bytes in 100usize..2000,
        from in any_entry(),
        seeks in proptest::collection::vec((0usize..9, any_entry()), 0..6),
    ) {
        let segment = write(&MemoryDisk::new(), &entries, block_bytes, &cache());
        let start = entries.partition_point(|entry| place_of_entry(entry) < place_of_entry(&from));
        let mut model = &entries[start..];
        let mut scan = segment.scan(Some((from.op.dot.slot, from.user.as_str(), from.key.as_str())));
        for (reads, target) in seeks {
            for _ in 0..reads {
                let next = scan.next().unwrap();
                prop_assert_eq!(next.as_ref(), model.first());
                model = model.get(1..).unwrap_or_default();
            }
            scan.seek(target.op.dot.slot, target.user.as_str(), target.key.as_str());
            model = &model[model.partition_point(|entry| place_of_entry(entry) < place_of_entry(&target))..];
        }
        prop_assert_eq!(scan_all(scan), model);
    }

    #[test]
    fn plain_runs_say_what_reading_would_find(entries in any_entries(), many in 0u64..200, block_bytes in 100usize..600) {
        let mut entries = entries;
        entries.extend((1..=many).map(|seq| keyed(1, "b", "list", value(seq, &"v".repeat(seq as usize % 50)))));
        let entries = sorted(entries);
        let segment = write(&MemoryDisk::new(), &entries, block_bytes, &cache());
        for entry in &entries {
            let last = same_key(&entries, entry).last().map(|entry| entry.op.stamp());
            prop_assert_eq!(segment.last_stamp_of(&place_of_entry(entry)).unwrap(), last);
            let mut expected = same_key(&entries, entry).map(|entry| &entry.op);
            let mut cursor = segment.ops_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str());
            loop {
                if let Some(run) = cursor.plain_run() {
                    let ops: Vec<&Op> = expected.by_ref().take(run.ops as usize).collect();
                    prop_assert!(ops.iter().all(|op| matches!(op.body, Body::Value(_))));
                    prop_assert!(ops.iter().all(|op| op.dot.origin == run.origin));
                    prop_assert!(ops.iter().all(|op| (run.first_seq..=run.last_seq).contains(&op.dot.seq)));
                    prop_assert_eq!(ops.iter().any(|op| op.request_id.is_some()), run.has_request_ids);
                    prop_assert_eq!((ops[0].time, ops[ops.len() - 1].time), (run.first, run.last));
                    prop_assert_eq!(ops.len() as u64, run.ops);
                    cursor.skip_plain_run();
                } else {
                    let next = cursor.next().unwrap();
                    prop_assert_eq!(next.as_ref(), expected.next());
                    if next.is_none() {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn request_ids_are_found_wherever_a_block_ends() {
    for block_bytes in 60..140 {
        for count in 1..=12 {
            let entries: Vec<_> = (1..=count)
                .map(|seq| {
                    let mut op = value(seq, "some value");
                    op.request_id = Some(request(seq));
                    keyed(5, "u", "list", op)
                })
                .chain([keyed(5, "u", "list, next", value(1, "x"))])
                .collect();
            let segment = write(&MemoryDisk::new(), &entries, block_bytes, &cache());
            for entry in entries.iter().filter(|entry| entry.op.request_id.is_some()) {
                let id = entry.op.request_id.unwrap();
                assert!(holds(&segment, entry, id), "{block_bytes} {count} {entry:?}");
            }
        }
    }
}

#[test]
fn the_longest_text_comes_back() {
    let text = "ü".repeat(crate::types::BODY_BYTES_MAX / 2);
    let noise: String = (0..crate::types::BODY_BYTES_MAX as u64)
        .map(|i| char::from(b'a' + (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as u8 % 26))
        .collect();
    let entries = sorted(vec![
        keyed(1, "u", "a", value(1, "before")),
        keyed(1, "u", "b", value(2, &text)),
        keyed(1, "u", "b", value(3, &noise)),
        keyed(1, "u", "b", value(4, "small")),
        keyed(1, "u", "c", value(5, "after")),
    ]);
    let segment = write(&MemoryDisk::new(), &entries, BLOCK_BYTES_TARGET, &cache());
    assert_eq!(scan_all(segment.scan(None)), entries);
    assert_eq!(ops_of(&segment, &entries[1]).unwrap().len(), 3);
}
