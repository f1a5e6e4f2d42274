//! How little is read, and what stays in the cache.

use std::io;

use super::*;
use crate::store::disk::DiskFile;

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
fn a_closed_segment_leaves_the_cache() {
    let entries = numbered_keys(100);
    let cache = cache();
    let segment = write(&MemoryDisk::new(), &entries, 200, &cache);
    scan_all(segment.scan_through(ScanBlocks::Cache, None));
    assert!(cache.used_bytes() > 0);
    drop(segment);
    assert_eq!(cache.used_bytes(), 0);
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

/// All that the system has in memory.
struct InMemory(Box<dyn DiskFile>);

impl DiskFile for InMemory {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn read_without_wait(&self, buf: &mut [u8], offset: u64) -> bool {
        self.0.read_exact_at(buf, offset).is_ok()
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

#[test]
fn a_block_that_is_in_memory_needs_no_wait_for_the_disk_and_one_that_is_not_is_left() {
    let entries = numbered_keys(900);
    let disk = MemoryDisk::new();
    let cache = cache();
    let segment = write(&disk, &entries, BLOCK_BYTES_TARGET, &cache);
    let texts_of = |segment: &Segment, entry: &KeyedOp| {
        let place = place_of(entry.op.dot.slot, entry.user.as_str(), entry.key.as_str());
        segment.texts_of(&place, Reach::Memory, &mut Gathered::default())
    };
    let before = disk.reads();
    assert_eq!(texts_of(&segment, &entries[0]).unwrap(), Texts::OutOfReach);
    assert_eq!(disk.reads(), before);

    let mut segment = Arc::into_inner(segment).unwrap();
    let file = disk.as_disk().open(&path(), OpenMode::Read).unwrap();
    segment.file = Box::new(InMemory(file));
    for _ in 0..2 {
        let texts = texts_of(&segment, &entries[0]).unwrap();
        assert!(matches!(texts, Texts::Plain(_)), "{texts:?}");
    }
    assert_eq!((disk.reads() - before, cache.misses(), cache.hits()), (1, 1, 1));
}
