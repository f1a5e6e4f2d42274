use super::*;
use crate::store::segment::format::{BLOCK_HEADER_BYTES, HEADER_BYTES, Header};

/// Small, with every kind of op and a key of several blocks.
fn entries() -> Vec<KeyedOp> {
    let mut context = Clock::default();
    context.insert_range(OriginId(1), 1, 3);
    let mut requested = value(9, "requested");
    requested.request_id = Some(RequestId([7; 16]));
    let mut entries = vec![
        keyed(1, "u", "clear", op(1, 4, NOW_MS << 16, Body::Clear(context))),
        keyed(1, "u", "part", op(2, 5, NOW_MS << 16, Body::Part("piece".into()))),
        keyed(
            2,
            "",
            "spent",
            op(
                1,
                6,
                NOW_MS << 16 | 9,
                Body::Spent {
                    cleared_at: WallMs(NOW_MS),
                },
            ),
        ),
        keyed(3, "u", "requested", requested),
    ];
    entries.extend((10..40).map(|seq| keyed(2, "u", "list", value(seq, "twelve bytes"))));
    entries.extend((40..50).map(|seq| keyed(4, "u", &format!("k{seq}"), value(seq, "x"))));
    sorted(entries)
}

fn small_file() -> (Vec<KeyedOp>, Vec<u8>) {
    let (entries, disk) = (entries(), MemoryDisk::new());
    drop(write(&disk, &entries, 150, &cache()));
    (entries, disk.content(&path()).unwrap())
}

fn open(bytes: Vec<u8>) -> Result<Arc<Segment>, OpenError> {
    let disk = MemoryDisk::new();
    disk.put(&path(), bytes);
    Segment::open(&disk.as_disk(), dir(), SHARD, NUMBER, &cache()).map(Arc::new)
}

/// Whatever it reads is right; gives how many blocks it could not read.
fn check_reads(segment: &Arc<Segment>, entries: &[KeyedOp]) -> usize {
    let mut scan = segment.scan(None);
    let (mut at, mut damaged) = (0, 0);
    loop {
        match scan.next() {
            Ok(Some(entry)) => {
                let skipped = entries[at..].iter().position(|known| *known == entry);
                at += skipped.expect("only what was written, in order") + 1;
            }
            Ok(None) => break,
            Err(ReadError::Damaged(block)) => {
                assert_eq!(scan.skip_damaged(), Some(block));
                damaged += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    for entry in entries {
        let expected: Vec<Op> = same_key(entries, entry).map(|entry| entry.op.clone()).collect();
        match ops_of(segment, entry) {
            Ok(ops) => assert_eq!(ops, expected),
            Err(ReadError::Damaged(block)) => assert!((block.slots.0..=block.slots.1).contains(&entry.op.dot.slot)),
            Err(error) => panic!("{error}"),
        }
    }
    damaged
}

#[test]
fn no_flipped_byte_gives_wrong_data() {
    let (entries, bytes) = small_file();
    let intact = open(bytes.clone()).unwrap();
    assert!(intact.block_count() >= 5);
    assert_eq!(check_reads(&intact, &entries), 0);
    let blocks_end = intact.blocks_end as usize;
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] ^= flip;
            match open(bad) {
                Ok(segment) => {
                    assert!((HEADER_BYTES..blocks_end).contains(&at), "byte {at} is not checked");
                    assert_eq!(check_reads(&segment, &entries), 1);
                    assert_eq!(segment.verify().len(), 1);
                }
                Err(error) => {
                    assert!(!(HEADER_BYTES..blocks_end).contains(&at), "byte {at}: {error}");
                    let is_trailer_magic = at >= bytes.len() - 8;
                    assert_eq!(
                        matches!(error, OpenError::Unfinished { .. }),
                        is_trailer_magic,
                        "byte {at}: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_file_cut_short_anywhere_does_not_open() {
    let (_, bytes) = small_file();
    for length in 0..bytes.len() {
        let error = open(bytes[..length].to_vec()).unwrap_err();
        assert!(
            matches!(error, OpenError::Unfinished { .. } | OpenError::Damaged { .. }),
            "{length}: {error}"
        );
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(open(longer).is_err());
}

#[test]
fn a_newer_version_is_refused_by_its_name() {
    let (_, mut bytes) = small_file();
    let header = Header {
        version: FORMAT_VERSION + 1,
        shard: SHARD,
        number: NUMBER,
    };
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    let error = open(bytes).unwrap_err();
    assert!(
        matches!(error, OpenError::NewerVersion { found: 6, known: 5, .. }),
        "{error}"
    );
}

#[test]
fn a_segment_in_the_wrong_place_is_refused() {
    let (_, bytes) = small_file();
    let disk = MemoryDisk::new();
    disk.put(&dir().join(file_name(NUMBER + 1)), bytes);
    let other = |shard, number| Segment::open(&disk.as_disk(), dir(), shard, number, &cache()).unwrap_err();
    assert!(matches!(
        other(SHARD, NUMBER + 1),
        OpenError::Misplaced { number: NUMBER, .. }
    ));
    assert!(matches!(other(SHARD, NUMBER), OpenError::Io { .. }));
    let (_, bytes) = small_file();
    disk.put(&path(), bytes);
    assert!(matches!(
        other(SHARD + 1, NUMBER),
        OpenError::Misplaced { shard: SHARD, .. }
    ));
}

#[test]
fn damage_names_the_slots_and_leaves_the_rest_readable() {
    let (entries, mut bytes) = small_file();
    let block = open(bytes.clone()).unwrap().footer.index.first().unwrap();
    bytes[block.offset as usize + 20] ^= 1;
    let segment = open(bytes).unwrap();
    let damage = segment.verify();
    assert_eq!(
        (damage.len(), damage[0].offset, damage[0].reason),
        (1, block.offset, "checksum of a block")
    );
    assert_eq!(damage[0].slots.0, SlotId(1));
    let last = entries.last().unwrap();
    assert_eq!(ops_of(&segment, last).unwrap(), vec![last.op.clone()]);
}

fn salvaged(bytes: Vec<u8>) -> Result<(Vec<KeyedOp>, Salvaged), OpenError> {
    let disk = MemoryDisk::new();
    disk.put(&path(), bytes);
    let mut found = Vec::new();
    let report = salvage(&disk.as_disk(), dir(), SHARD, NUMBER, &mut |entry| found.push(entry))?;
    Ok((found, report))
}

#[test]
fn a_segment_without_its_ends_gives_all_its_ops() {
    let (entries, mut bytes) = small_file();
    let segment = open(bytes.clone()).unwrap();
    let (blocks, end) = (u64::from(segment.block_count()), segment.blocks_end);
    bytes.truncate(end as usize + 5);
    bytes[3] ^= 1;
    let (found, report) = salvaged(bytes.clone()).unwrap();
    assert_eq!(found, entries);
    assert_eq!((report.blocks, report.bad_blocks, report.unread_bytes), (blocks, 0, 5));
    // A bad block costs its own ops only.
    bytes[HEADER_BYTES + 20] ^= 1;
    let (found, report) = salvaged(bytes).unwrap();
    assert_eq!((report.blocks, report.bad_blocks), (blocks - 1, 1));
    assert!(entries.ends_with(&found) && report.ops as usize == found.len());
}

#[test]
fn salvage_never_gives_an_op_that_was_not_written() {
    let (entries, bytes) = small_file();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x11;
        let (found, _) = salvaged(bad).unwrap();
        assert!(found.iter().all(|entry| entries.contains(entry)), "byte {at}");
        let (found, _) = salvaged(bytes[..at].to_vec()).unwrap();
        assert!(entries.starts_with(&found), "cut at {at}");
    }
}

#[test]
fn a_failing_disk_is_no_damage() {
    let (entries, disk) = (entries(), MemoryDisk::new());
    let segment = write(&disk, &entries, 150, &cache());
    let failing = &disk.faults().fail_read;
    failing.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut scan = segment.scan(None);
    assert!(matches!(scan.next(), Err(ReadError::Io { .. })));
    assert!(matches!(ops_of(&segment, &entries[0]), Err(ReadError::Io { .. })));
    failing.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(scan_all(scan), entries);
}

#[test]
fn a_sector_that_cannot_be_read_is_damage_of_its_block_alone() {
    let (entries, disk) = (entries(), MemoryDisk::new());
    let segment = write(&disk, &entries, 150, &cache());
    let index = &segment.footer.index;
    let block = index.after(&index.first().unwrap()).unwrap();
    set(&disk.faults().bad_byte, block.offset + 20);
    for blocks in [ScanBlocks::ReadAhead, ScanBlocks::Cache] {
        let (mut scan, mut found, mut damage) = (segment.scan_through(blocks, None), Vec::new(), Vec::new());
        loop {
            match scan.next() {
                Ok(Some(entry)) => found.push(entry),
                Ok(None) => break,
                Err(ReadError::Damaged(_)) => damage.extend(scan.skip_damaged()),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((damage.len(), damage[0].offset), (1, block.offset), "{blocks:?}");
        assert_eq!(found.len() as u64, entries.len() as u64 - block.ops, "{blocks:?}");
        assert!(found.iter().all(|entry| entries.contains(entry)));
    }
    let failed = entries.iter().filter_map(|entry| ops_of(&segment, entry).err());
    assert!(failed.count() > 0);
    assert!(
        entries
            .iter()
            .all(|entry| !matches!(ops_of(&segment, entry), Err(ReadError::Io { .. })))
    );
    assert_eq!(segment.verify(), vec![segment.damage(&block, stored::UNREADABLE)]);
}

#[test]
fn a_read_that_fails_once_condemns_no_block() {
    let (entries, disk) = (entries(), MemoryDisk::new());
    let segment = write(&disk, &entries, 150, &cache());
    for blocks in [ScanBlocks::ReadAhead, ScanBlocks::Cache] {
        set(&disk.faults().fail_read_once, 1);
        assert_eq!(scan_all(segment.scan_through(blocks, None)), entries);
    }
}

#[test]
fn a_sector_that_cannot_be_read_does_not_keep_the_rest_from_being_salvaged() {
    let (entries, bytes) = small_file();
    let segment = open(bytes.clone()).unwrap();
    let first = segment.footer.index.first().unwrap();
    let block = segment.footer.index.after(&first).unwrap();
    let salvaged_with = |bad_byte| {
        let disk = MemoryDisk::new();
        disk.put(&path(), bytes.clone());
        set(&disk.faults().bad_byte, bad_byte);
        let mut found = Vec::new();
        let report = salvage(&disk.as_disk(), dir(), SHARD, NUMBER, &mut |entry| found.push(entry)).unwrap();
        (found, report)
    };
    for elsewhere in [2, segment.blocks_end + 3, bytes.len() as u64 - 1] {
        assert_eq!(salvaged_with(elsewhere).0, entries, "byte {elsewhere}");
    }
    assert!(!salvaged_with(bytes.len() as u64 - 1).1.complete);
    let (found, report) = salvaged_with(block.offset + BLOCK_HEADER_BYTES as u64 + 5);
    assert_eq!((report.bad_blocks, report.complete), (1, false));
    assert_eq!(found.len() as u64, entries.len() as u64 - block.ops);
    // Nothing says where the block behind this one begins.
    let (found, report) = salvaged_with(block.offset);
    assert_eq!((found.len() as u64, report.complete), (first.ops, false));
}

fn set(fault: &std::sync::atomic::AtomicU64, value: u64) {
    fault.store(value, std::sync::atomic::Ordering::Relaxed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Behind a checksum that is right: a footer or a block that someone made.
    #[test]
    fn a_crafted_footer_never_harms(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4)) {
        let (entries, bytes) = small_file();
        let end = open(bytes.clone()).unwrap().blocks_end as usize;
        let trailer_at = bytes.len() - TRAILER_BYTES;
        let mut footer = bytes[end..trailer_at].to_vec();
        for (at, byte) in changes {
            let at = at.index(footer.len());
            footer[at] = byte;
        }
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes[..HEADER_BYTES]);
        let trailer = Trailer::new(&header, end as u64, &[&footer]).encode();
        let crafted = [&bytes[..end], &footer, &trailer].concat();
        if let Ok(segment) = open(crafted) {
            let mut scan = segment.scan(None);
            while !matches!(scan.next(), Ok(None)) {
                scan.skip_damaged();
            }
            for entry in &entries {
                let _ = ops_of(&segment, entry);
                let mut cursor = segment.ops_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str());
                while cursor.plain_run().is_some() || matches!(cursor.next(), Ok(Some(_))) {
                    cursor.skip_plain_run();
                }
            }
            segment.verify();
        }
    }

    #[test]
    fn a_crafted_block_never_harms(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4), cut in 0usize..20) {
        let (entries, bytes) = small_file();
        let segment = open(bytes).unwrap();
        let mut next = segment.footer.index.first();
        while let Some(block) = next {
            let mut raw = segment.read_block(&block).unwrap().to_vec();
            for (at, byte) in &changes {
                let at = at.index(raw.len());
                raw[at] = *byte;
            }
            raw.truncate(raw.len().saturating_sub(cut));
            walk(raw.into(), &entries);
            next = segment.footer.index.after(&block);
        }
    }

    #[test]
    fn garbage_for_a_block_never_harms(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
        walk(raw.into(), &entries());
    }

    #[test]
    fn garbage_for_a_footer_never_harms(footer in proptest::collection::vec(any::<u8>(), 0..200), end in 24u64..400) {
        for version in 1..=FORMAT_VERSION {
            let _ = decode_footer(&footer.clone().into(), version, end);
        }
    }
}

/// Everything that can be read of a block, to the first error.
fn walk(raw: Bytes, entries: &[KeyedOp]) {
    let Ok(block) = Block::parse(raw) else { return };
    for entry in entries {
        let place = place_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str());
        if let Ok(Some(run)) = block.find(&place) {
            let mut ops = block.ops(&run, entry.op.dot.slot);
            while let Ok(Some(_)) = ops.next() {}
        }
    }
    let mut groups = block.groups();
    while let Ok(Some(run)) = groups.next() {
        let mut ops = groups.ops(&run, SlotId(1));
        while let Ok(Some(_)) = ops.next() {}
    }
}
