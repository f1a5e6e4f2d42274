use super::*;
use crate::core::slot::KeyHash;
use crate::store::filter::{key_tag, parts_tag, request_tag};

fn hash_of(entry: &KeyedOp) -> KeyHash {
    KeyHash::of(&entry.user, &entry.key)
}

fn place_of_entry(entry: &KeyedOp) -> Vec<u8> {
    place_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str())
}

fn request(number: u64) -> RequestId {
    RequestId((u128::from(number) << 40 | 1).to_le_bytes())
}

/// As a retried add asks.
fn holds(segment: &Arc<Segment>, entry: &KeyedOp, id: RequestId) -> bool {
    let tag = request_tag(hash_of(entry), id);
    let ops = segment.ops_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str());
    segment.may_hold(entry.op.dot.slot, tag) && ops.holds_request(tag, id).unwrap()
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
        let place = |entry: &KeyedOp| place_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str());
        let mut next = segment.footer.index.first();
        while let Some(block) = next {
            let raw = segment.read_block(&block).unwrap();
            let (searched, listed) = (Block::parse(raw.clone()).unwrap(), Block::parse_for_lookups(raw).unwrap());
            for place in entries.iter().chain([&probe]).map(place) {
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
        let place = |entry: &KeyedOp| place_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str());
        let start = entries.partition_point(|entry| place(entry) < place(&from));
        let mut model = &entries[start..];
        let mut scan = segment.scan(Some((from.op.dot.slot, from.user.as_str(), from.key.as_str())));
        for (reads, target) in seeks {
            for _ in 0..reads {
                let next = scan.next().unwrap();
                prop_assert_eq!(next.as_ref(), model.first());
                model = model.get(1..).unwrap_or_default();
            }
            scan.seek(target.op.dot.slot, target.user.as_str(), target.key.as_str());
            model = &model[model.partition_point(|entry| place(entry) < place(&target))..];
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
fn a_new_request_id_for_a_huge_list_reads_almost_nothing_and_a_repeated_one_little() {
    let with_id = |seq| {
        let mut op = value(seq, "some value");
        op.request_id = Some(request(seq));
        keyed(5, "u", "list", op)
    };
    let entries: Vec<_> = (1..=50_000).map(with_id).collect();
    let disk = MemoryDisk::new();
    let segment = write(&disk, &entries, 4096, &Arc::new(BlockCache::new(0)));
    let blocks = u64::from(segment.block_count());
    assert!(blocks > 300);
    let before = disk.reads();
    let asked = 50_000;
    for number in 100_000..100_000 + asked {
        assert!(!holds(&segment, &entries[0], request(number)));
    }
    let new = disk.reads() - before;
    for seq in 0..100 {
        let entry = &entries[seq * 500];
        assert!(holds(&segment, entry, entry.op.request_id.unwrap()));
    }
    let repeated = disk.reads() - before - new;
    // A scan of the list for 1 in 256 would be 256 times as much.
    let expected = asked * blocks / 256 / 256;
    assert!(new < expected * 3 / 2, "{new} reads for {asked} ids in {blocks} blocks");
    assert!(repeated < 300, "{repeated} reads for 100 ids");
}

#[test]
fn the_inside_of_a_huge_list_can_be_counted_unread() {
    let entries: Vec<_> = (1..=50_000)
        .map(|seq| keyed(5, "u", "list", value(seq, "some value")))
        .collect();
    let disk = MemoryDisk::new();
    let segment = write(&disk, &entries, BLOCK_BYTES_TARGET, &cache());
    let reads = disk.reads();
    let mut cursor = segment.ops_of(SlotId(5), "u", "list");
    let (mut read, mut skipped) = (0, 0);
    loop {
        if let Some(run) = cursor.plain_run() {
            skipped += run.ops;
            cursor.skip_plain_run();
        } else if cursor.next().unwrap().is_some() {
            read += 1;
        } else {
            break;
        }
    }
    assert_eq!(read + skipped, 50_000);
    assert!(
        read < 1500 && disk.reads() - reads == 1,
        "{read} read in {} reads",
        disk.reads() - reads
    );
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

#[test]
fn opening_reads_no_block_and_a_cold_list_costs_one_read() {
    let entries: Vec<_> = (0..4000u64)
        .flat_map(|key| (1..=4).map(move |n| keyed(9, "u", &format!("key-{key:06}"), value(key * 4 + n, "a value"))))
        .collect();
    let (disk, cache) = (MemoryDisk::new(), cache());
    drop(write(&disk, &entries, BLOCK_BYTES_TARGET, &cache));
    let before = disk.reads();
    let segment = Arc::new(Segment::open(&disk.as_disk(), dir(), SHARD, NUMBER, &cache).unwrap());
    assert_eq!(disk.reads() - before, 3);
    for entry in entries.iter().step_by(4000) {
        let before = disk.reads();
        assert!(!segment.is_cached(SlotId(9), "u", entry.key.as_str()));
        assert_eq!(ops_of(&segment, entry).unwrap().len(), 4);
        assert_eq!(disk.reads() - before, 1);
        assert!(segment.is_cached(SlotId(9), "u", entry.key.as_str()));
        assert_eq!(ops_of(&segment, entry).unwrap().len(), 4);
        assert_eq!(disk.reads() - before, 1);
    }
}

#[test]
fn a_scan_for_compaction_reads_ahead_and_leaves_the_cache_alone() {
    let entries: Vec<_> = (1..=40_000)
        .map(|seq| keyed(5, "u", &format!("k{seq:08}"), value(seq, "value")))
        .collect();
    let (disk, cache) = (MemoryDisk::new(), cache());
    let segment = write(&disk, &entries, BLOCK_BYTES_TARGET, &cache);
    ops_of(&segment, &entries[0]).unwrap();
    let (reads, used) = (disk.reads(), cache.used_bytes());
    assert_eq!(scan_all(segment.scan(None)).len(), entries.len());
    assert_eq!(cache.used_bytes(), used);
    assert!(
        disk.reads() - reads <= 1 + segment.file_bytes() / (200 * 1024),
        "{} reads",
        disk.reads() - reads
    );
}

#[test]
fn seeking_over_a_huge_key_does_not_read_it() {
    let mut entries: Vec<_> = (1..=60_000)
        .map(|seq| keyed(5, "u", "b", value(seq, &format!("{seq}"))))
        .collect();
    entries.insert(0, keyed(5, "u", "a", value(1, "first")));
    entries.push(keyed(5, "u", "c", value(2, "last")));
    let disk = MemoryDisk::new();
    let segment = write(&disk, &entries, BLOCK_BYTES_TARGET, &cache());
    let mut scan = segment.scan_through(ScanBlocks::Cache, None);
    let before = disk.reads();
    assert_eq!(scan.next().unwrap().unwrap().key.as_str(), "a");
    assert_eq!(scan.next().unwrap().unwrap().key.as_str(), "b");
    scan.seek(SlotId(5), "u", "b\u{0}");
    assert_eq!(scan.next().unwrap().unwrap().key.as_str(), "c");
    assert!(disk.reads() - before <= 3);
}

#[test]
fn a_removed_file_stays_readable_to_those_who_have_it_open() {
    let entries: Vec<_> = (1..=100)
        .map(|seq| keyed(5, "u", &format!("k{seq:03}"), value(seq, "value")))
        .collect();
    let disk = MemoryDisk::new();
    let segment = write(&disk, &entries, 200, &cache());
    disk.as_disk().remove_file(&path()).unwrap();
    assert_eq!(scan_all(segment.scan(None)), entries);
}

#[test]
fn a_closed_segment_leaves_the_cache() {
    let entries: Vec<_> = (1..=100)
        .map(|seq| keyed(5, "u", &format!("k{seq:03}"), value(seq, "value")))
        .collect();
    let cache = cache();
    let segment = write(&MemoryDisk::new(), &entries, 200, &cache);
    scan_all(segment.scan_through(ScanBlocks::Cache, None));
    assert!(cache.used_bytes() > 0);
    drop(segment);
    assert_eq!(cache.used_bytes(), 0);
}

#[test]
fn nothing_is_there_until_it_is_durable() {
    let entries = vec![keyed(5, "u", "k", value(1, "value"))];
    let disk = MemoryDisk::new();
    let mut writer = SegmentWriter::create(disk.as_disk(), dir(), meta()).unwrap();
    push_all(&mut writer, &entries);
    assert!(disk.crash().content(&path()).is_none());
    let written = writer.written_bytes();
    writer
        .finish(SlotClocks::default(), SlotClocks::default(), &cache())
        .unwrap();
    let after = disk.crash();
    assert!(after.content(&path()).is_some_and(|bytes| bytes.len() as u64 > written));
    let segment = Segment::open(&after.as_disk(), dir(), SHARD, NUMBER, &cache()).unwrap();
    assert_eq!(scan_all(Arc::new(segment).scan(None)), entries);
}

#[test]
fn an_abandoned_or_failed_segment_leaves_nothing_under_its_name() {
    let disk = MemoryDisk::new();
    let writer = SegmentWriter::create(disk.as_disk(), dir(), meta()).unwrap();
    writer.abandon();
    assert!(disk.as_disk().list(dir()).unwrap().is_empty());
    disk.faults()
        .fail_sync
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let writer = SegmentWriter::create(disk.as_disk(), dir(), meta()).unwrap();
    let failed = writer.finish(SlotClocks::default(), SlotClocks::default(), &cache());
    assert!(matches!(failed, Err(WriteError::Io { number: NUMBER, .. })));
    let names: Vec<_> = disk
        .as_disk()
        .list(dir())
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, [temporary_name(NUMBER)]);
    assert!(parse_file_name(&names[0]).is_none());
    // The number can be tried again over what was left.
    disk.faults()
        .fail_sync
        .store(false, std::sync::atomic::Ordering::Relaxed);
    let writer = SegmentWriter::create(disk.as_disk(), dir(), meta()).unwrap();
    writer
        .finish(SlotClocks::default(), SlotClocks::default(), &cache())
        .unwrap();
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    let disk = MemoryDisk::new();
    disk.faults()
        .free_bytes
        .store(100, std::sync::atomic::Ordering::Relaxed);
    let mut writer = SegmentWriter::create(disk.as_disk(), dir(), meta()).unwrap();
    push_all(&mut writer, &[keyed(5, "u", "k", value(1, &"v".repeat(200)))]);
    let error = writer
        .finish(SlotClocks::default(), SlotClocks::default(), &cache())
        .unwrap_err();
    assert!(error.is_full());
}

#[test]
fn only_the_one_spelling_is_a_segments_name() {
    assert_eq!(file_name(0x1f), "segment-000000000000001f.kvs");
    assert_eq!(parse_file_name("segment-000000000000001f.kvs"), Some(0x1f));
    for other in [
        "segment-1f.kvs",
        "segment-000000000000001F.kvs",
        "segment-+00000000000001f.kvs",
        "log-000000000000001f.kvs",
    ] {
        assert_eq!(parse_file_name(other), None, "{other}");
    }
}

#[test]
fn a_dump_tells_all_entries() {
    let entries: Vec<_> = (1..=30)
        .map(|seq| keyed(5, "u", &format!("k{seq:03}"), value(seq, "value")))
        .collect();
    let disk = MemoryDisk::new();
    let segment = write(&disk, &entries, 200, &cache());
    let mut lines = Vec::new();
    dump::describe(&disk.as_disk(), &path(), &mut |line| lines.push(line)).unwrap();
    let found: Vec<_> = lines
        .iter()
        .filter_map(|line| match line {
            dump::DumpLine::Entry(entry) => Some(entry.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(found, entries.iter().map(dump::entry_line).collect::<Vec<_>>());
    let blocks = lines.iter().filter(|line| matches!(line, dump::DumpLine::Block { .. }));
    assert_eq!(blocks.count() as u32, segment.block_count());
    let json = serde_json::to_string(&lines).unwrap();
    assert!(
        json.contains(r#""kind":"value","text_bytes":5,"text":"value""#),
        "{json}"
    );
}

#[test]
fn a_long_list_read_whole_does_not_drive_the_rest_out_of_the_cache() {
    let entries: Vec<_> = (1..=20_000)
        .map(|seq| keyed(5, "u", "list", value(seq, &format!("{seq:0100}"))))
        .collect();
    let cache = Arc::new(BlockCache::new(64 << 20));
    let segment = write(&MemoryDisk::new(), &entries, BLOCK_BYTES_TARGET, &cache);
    assert!(segment.block_count() > 100, "{}", segment.block_count());
    assert_eq!(ops_of(&segment, &entries[0]).unwrap().len(), entries.len());
    let used = cache.used_bytes();
    assert!(used > 0 && used < 1 << 20, "{used}");
}
