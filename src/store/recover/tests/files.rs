//! Which files count, which are spare, and which have to go.

use super::*;

#[test]
fn a_new_folder_survives_a_crash_with_what_was_made_durable_in_it() {
    let disk = MemoryDisk::new();
    recovered(&disk);
    put_log(&disk, 1, &[1, 2], Previous::default());
    let found = recovered(&disk.crash());
    assert_eq!(log_numbers(&found), [1]);
}

#[test]
fn a_file_that_was_never_finished_is_removed() {
    let disk = MemoryDisk::new();
    let path = Path::new(DIR).join(segment::temporary_name(9));
    disk.put(&path, vec![1; 100]);
    let found = recovered(&disk);
    assert!(disk.content(&path).is_none() && is_clean(&found));
    assert_eq!(found.next_number, 10, "its number is not used again");
}

#[test]
fn a_file_of_somebody_else_whose_name_is_almost_that_of_a_log_is_left_alone() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    for name in ["log-000000000000000A.kvl", "log-+00000000000000a.kvl"] {
        disk.put(&Path::new(DIR).join(name), vec![1; 600]);
        let found = recovered(&disk);
        assert!(log_numbers(&found) == [1] && is_clean(&found), "{name}");
        assert!(disk.content(&Path::new(DIR).join(name)).is_some());
    }
}

#[test]
fn a_log_that_a_segment_replaces_is_a_spare_and_is_not_read() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    put_segment(&disk, 2, &[1, 2], vec![1]);
    let found = recovered(&disk);
    assert!(found.logs.is_empty() && is_clean(&found));
    assert_eq!((found.spares, found.next_number), (vec![1], 3));
}

#[test]
fn a_segment_that_another_replaces_is_removed_even_if_the_other_is_replaced_too() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1], vec![1]);
    put_segment(&disk, 3, &[1], vec![2]);
    // As long as the removal of 2 is not durable, it is named again.
    put_segment(&disk, 4, &[1], vec![3, 2]);
    let found = recovered(&disk);
    assert_eq!((segment_numbers(&found), found.obsolete.clone()), (vec![4], vec![2, 3]));
    assert!(is_clean(&found));
}

#[test]
fn the_number_of_a_file_that_is_gone_is_not_used_again() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1], vec![1, 40]);
    disk.put(&quarantine_path(Path::new(DIR), &log::file_name(50)), Vec::new());
    assert_eq!(recovered(&disk).next_number, 51);
}

#[test]
fn a_log_that_holds_nothing_is_a_spare_whatever_its_file_held_before() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    let former = disk.content(&log_path(1)).unwrap();
    disk.put(&log_path(1), Vec::new());
    disk.put(&log_path(5), former);
    let found = recovered(&disk);
    assert_eq!((log_numbers(&found), found.spares.clone()), (vec![], vec![1, 5]));
    assert!(is_clean(&found));
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1], Previous::default());
    let mut bytes = disk.content(&log_path(1)).unwrap();
    bytes[4] = 200;
    let crc = crc32c::crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    disk.put(&log_path(1), bytes.clone());
    let refused = recover(&place(&disk));
    assert!(matches!(refused, Err(RecoverError::NewerVersion { .. })));
    assert_eq!(disk.content(&log_path(1)), Some(bytes));
}

#[test]
fn a_read_that_fails_once_damages_nothing() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    put_segment(&disk, 2, &[1, 2], vec![1]);
    put_log(&disk, 3, &[3, 4], Previous::default());
    let before = disk.reads();
    recovered(&disk);
    let reads = disk.reads() - before;
    assert!(reads > 2);
    for nth in 1..=reads {
        disk.faults().fail_read_once.store(nth, Ordering::Relaxed);
        match recover(&place(&disk)) {
            Ok(found) => assert!(is_clean(&found), "read {nth}: {:?}", found.damage),
            Err(error) => assert!(matches!(error, RecoverError::Io { .. }), "read {nth}: {error}"),
        }
    }
}

#[test]
fn nothing_that_was_merged_goes_before_the_name_of_what_replaces_it_is_durable() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1], vec![1]);
    put_segment(&disk, 3, &[1], vec![2]);
    fail_folder_sync(&disk, true);
    assert!(matches!(recover(&place(&disk)), Err(RecoverError::Io { .. })));
    assert!(disk.content(&segment_path(2)).is_some());
    fail_folder_sync(&disk, false);
    assert_eq!(segment_numbers(&recovered(&disk)), [3]);
}

#[test]
fn what_a_merge_that_failed_left_behind_replaces_nothing_once_it_is_replaced() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1], vec![1]);
    put_segment(&disk, 3, &[2], vec![]);
    // The merge of both, taken back; it could not be removed, so the next merge, of 2 and 5, names it.
    put_segment(&disk, 4, &[1, 2], vec![2, 3]);
    put_segment(&disk, 5, &[3], vec![]);
    put_segment(&disk, 6, &[1, 3], vec![2, 5, 4]);
    let found = recovered(&disk);
    assert_eq!(segment_numbers(&found), [3, 6]);
    assert!(is_clean(&found) && found.covered.contains(SlotId(1), ORIGIN, 2));
}

#[test]
fn a_log_of_another_shard_is_told_and_kept_and_nothing_of_it_is_taken() {
    // As it was, or with the name of one of this folder's.
    for (number, of_other) in [(5, 5), (1, 5), (5, 4)] {
        let disk = MemoryDisk::new();
        put_log(&disk, of_other, &[8, 9], Previous::default());
        let mut other = disk.content(&log_path(of_other)).unwrap();
        // The shard stands there, and the checksums are of no use to tell it from one of this folder.
        let header = LogHeader {
            shard: 1,
            ..LogHeader::decode(&other).unwrap()
        };
        other[..log::HEADER_BYTES].copy_from_slice(&header.encode());
        disk.as_disk().remove_file(&log_path(of_other)).unwrap();
        put_log(&disk, 1, &[1, 2], Previous::default());
        disk.put(&log_path(number), other.clone());
        let place = Place {
            slots: 2..4,
            ..place(&disk)
        };
        for _ in 0..2 {
            let found = recover(&place).unwrap();
            let ops: usize = found.logs.iter().map(|log| log.memtable.read().op_count()).sum();
            assert_eq!(
                (ops, found.spares.len()),
                (if number == 1 { 0 } else { 2 }, 0),
                "{number} {of_other}"
            );
            assert!(!found.damage.is_empty() && (2..4).all(|slot| found.lost.get(SlotId(slot)).is_some()));
            let is_kept = |log: &RecoveredLog| log.memtable.read().number() != number || log.damaged;
            assert!(found.logs.iter().all(is_kept));
            assert_eq!(disk.content(&log_path(number)), Some(other.clone()));
        }
    }
}
