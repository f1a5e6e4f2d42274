//! The file of a segment: its name, when it is there, and a dump of it.

use std::sync::atomic::Ordering;

use super::*;

#[test]
fn a_removed_file_stays_readable_to_those_who_have_it_open() {
    let entries = numbered_keys(100);
    let disk = MemoryDisk::new();
    let segment = write(&disk, &entries, 200, &cache());
    disk.as_disk().remove_file(&path()).unwrap();
    assert_eq!(scan_all(segment.scan(None)), entries);
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
    disk.faults().fail_sync.store(true, Ordering::Relaxed);
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
    disk.faults().fail_sync.store(false, Ordering::Relaxed);
    let writer = SegmentWriter::create(disk.as_disk(), dir(), meta()).unwrap();
    writer
        .finish(SlotClocks::default(), SlotClocks::default(), &cache())
        .unwrap();
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    let disk = MemoryDisk::new();
    disk.faults().free_bytes.store(100, Ordering::Relaxed);
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
        "segment-ffffffffffffffff.kvs",
        "log-000000000000001f.kvs",
    ] {
        assert_eq!(parse_file_name(other), None, "{other}");
    }
}

#[test]
fn a_dump_tells_all_entries() {
    let entries = numbered_keys(30);
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
