//! Each rule of recovery, on folders made by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::core::op::{Body, Dot, Op};
use crate::core::slot::SlotId;
use crate::store::log::{LogHeader, Place as RecordPlace, Previous, Record, put_record};
use crate::store::memory_disk::MemoryDisk;
use crate::store::segment::{EntryRef, SegmentMeta, SegmentWriter};

pub(super) const DIR: &str = "/data/shard";
pub(super) const ORIGIN: OriginId = OriginId(7);
pub(super) const SECRET: LogSecret = LogSecret::new(*b"sixteen random b");
pub(super) const NEW_SECRET: LogSecret = LogSecret::new(*b"not used so far.");

pub(super) fn place(disk: &MemoryDisk) -> Place {
    Place {
        disk: disk.as_disk(),
        dir: PathBuf::from(DIR),
        shard: 0,
        slots: 0..4,
        cache: Arc::new(BlockCache::new(1 << 20)),
        new_secret: NEW_SECRET,
        own_origins: None,
    }
}

pub(super) fn recovered(disk: &MemoryDisk) -> Recovered {
    recover(&place(disk)).unwrap()
}

/// The same, where there are other replicas.
fn recovered_of_replica(disk: &MemoryDisk) -> Recovered {
    let place = Place {
        own_origins: Some(Arc::default()),
        ..place(disk)
    };
    recover(&place).unwrap()
}

pub(super) fn op(seq: u64) -> Op {
    Op {
        dot: Dot {
            origin: ORIGIN,
            slot: SlotId(1),
            seq,
        },
        time: HybridTime(seq),
        request_id: None,
        body: Body::Value(format!("value {seq}").into()),
    }
}

/// A log of one group per sequence; gives where each record begins, and the end.
pub(super) fn put_log(disk: &MemoryDisk, number: u64, seqs: &[u64], previous: Previous) -> Vec<u64> {
    log::store_secret(&*disk.as_disk(), Path::new(DIR), SECRET).unwrap();
    put_log_with(disk, number, seqs, previous, Some(SECRET))
}

pub(super) fn put_log_with(
    disk: &MemoryDisk,
    number: u64,
    seqs: &[u64],
    previous: Previous,
    secret: Option<LogSecret>,
) -> Vec<u64> {
    let header = LogHeader {
        shard: 0,
        number,
        previous,
        secret,
    };
    let mut file = header.encode().to_vec();
    let mut offsets = Vec::new();
    for (ordinal, &seq) in seqs.iter().enumerate() {
        let offset = file.len() as u64;
        offsets.push(offset);
        let place = RecordPlace {
            key: header.key(),
            offset,
            group_back: 0,
            ordinal: ordinal as u32,
        };
        let op = op(seq);
        put_record(
            &mut file,
            place,
            Record {
                user: "u",
                key: "k",
                op: &op,
            },
        );
    }
    offsets.push(file.len() as u64);
    file.resize(file.len() + 1024, 0);
    disk.put(&log_path(number), file);
    offsets
}

fn put_segment(disk: &MemoryDisk, number: u64, seqs: &[u64], replaces: Vec<u64>) {
    put_segment_without(disk, number, seqs, &[], replaces);
}

/// `dropped`: sequences that it covers and does not hold.
fn put_segment_without(disk: &MemoryDisk, number: u64, seqs: &[u64], dropped: &[u64], replaces: Vec<u64>) {
    let meta = SegmentMeta {
        shard: 0,
        number,
        replaces,
    };
    let mut writer = SegmentWriter::create(disk.as_disk(), Path::new(DIR), meta).unwrap();
    let mut covered = SlotClocks::default();
    for &seq in dropped {
        covered.insert(SlotId(1), ORIGIN, seq);
    }
    for &seq in seqs {
        covered.insert(SlotId(1), ORIGIN, seq);
        let op = op(seq);
        writer
            .push(EntryRef {
                slot: SlotId(1),
                user: "u",
                key: "k",
                op: &op,
            })
            .unwrap();
    }
    let cache = Arc::new(BlockCache::new(1 << 20));
    drop(writer.finish(covered, SlotClocks::default(), &cache).unwrap());
}

pub(super) fn log_path(number: u64) -> PathBuf {
    Path::new(DIR).join(log::file_name(number))
}

fn segment_path(number: u64) -> PathBuf {
    Path::new(DIR).join(segment::file_name(number))
}

pub(super) fn flip(disk: &MemoryDisk, path: &Path, at: u64) {
    let mut bytes = disk.content(path).unwrap();
    bytes[at as usize] ^= 1;
    disk.put(path, bytes);
}

/// The trailer is gone.
fn cut_end(disk: &MemoryDisk, path: &Path) {
    let mut bytes = disk.content(path).unwrap();
    bytes.truncate(bytes.len() - 10);
    disk.put(path, bytes);
}

pub(super) fn log_numbers(found: &Recovered) -> Vec<u64> {
    found.logs.iter().map(|log| log.memtable.read().number()).collect()
}

fn segment_numbers(found: &Recovered) -> Vec<u64> {
    found.segments.iter().map(|segment| segment.number()).collect()
}

pub(super) fn is_clean(found: &Recovered) -> bool {
    found.damage.is_empty() && found.lost.is_empty()
}

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
fn a_torn_tail_is_cut_and_nothing_is_lost() {
    let disk = MemoryDisk::new();
    let offsets = put_log(&disk, 1, &[1, 2, 3], Previous::default());
    flip(&disk, &log_path(1), offsets[2] + 60);
    let found = recovered(&disk);
    assert!(is_clean(&found));
    assert_eq!((found.torn_logs, found.logs[0].memtable.read().op_count()), (1, 2));
}

#[test]
fn damage_in_the_middle_of_a_log_is_told_and_the_rest_is_kept() {
    let disk = MemoryDisk::new();
    let offsets = put_log(&disk, 1, &[1, 2, 3], Previous::default());
    for at in [offsets[1] + 10, offsets[1] + 60] {
        let damaged = disk.crash();
        flip(&damaged, &log_path(1), at);
        let found = recovered(&damaged);
        assert_eq!((found.damage.len(), found.torn_logs), (1, 0));
        assert_eq!(found.logs[0].memtable.read().op_count(), 2);
        assert!(found.logs[0].damaged, "to be set aside");
        assert_eq!(found.lost.count(), 1);
        assert!(found.lost.contains(SlotId(1), ORIGIN, 2));
    }
}

#[test]
fn a_last_record_that_the_next_log_proves_is_lost_and_not_torn() {
    let disk = MemoryDisk::new();
    let offsets = put_log(&disk, 1, &[1, 2], Previous::default());
    let previous = Previous {
        number: 1,
        end: offsets[2],
    };
    put_log(&disk, 2, &[3], previous);
    flip(&disk, &log_path(1), offsets[1] + 60);
    let found = recovered(&disk);
    assert_eq!((found.damage.len(), log_numbers(&found)), (1, vec![1, 2]));
    assert!(found.lost.contains(SlotId(1), ORIGIN, 2));
}

#[test]
fn each_log_is_held_against_the_one_behind_it() {
    let disk = MemoryDisk::new();
    let mut previous = Previous::default();
    let mut last_records = Vec::new();
    for number in 1..=4 {
        let offsets = put_log(&disk, number, &[2 * number - 1, 2 * number], previous);
        let end = offsets[2];
        previous = Previous { number, end };
        last_records.push(offsets[1]);
    }
    for (number, at) in (1..).zip(last_records) {
        flip(&disk, &log_path(number), at + 60);
    }
    let found = recovered(&disk);
    assert_eq!(log_numbers(&found), [1, 2, 3, 4]);
    let lost: Vec<u64> = (1..=8)
        .filter(|seq| found.lost.contains(SlotId(1), ORIGIN, *seq))
        .collect();
    assert_eq!(
        (lost, found.torn_logs),
        (vec![2, 4, 6], 1),
        "only behind the newest there is none"
    );
}

#[test]
fn lost_records_that_nothing_names_concern_every_slot() {
    let disk = MemoryDisk::new();
    let offsets = put_log(&disk, 1, &[1, 2, 3], Previous::default());
    let previous = Previous {
        number: 1,
        end: offsets[3],
    };
    put_log(&disk, 2, &[], previous);
    // One body, and one header: the first still says its name, the second does not.
    flip(&disk, &log_path(1), offsets[1] + 60);
    flip(&disk, &log_path(1), offsets[2] + 10);
    let found = recovered(&disk);
    let slots: Vec<u16> = found.lost.slots().map(|(slot, _)| slot.0).collect();
    assert_eq!(slots, [0, 1, 2, 3]);
    assert!(found.lost.contains(SlotId(1), ORIGIN, 2));
}

#[test]
fn a_damaged_header_alone_loses_nothing() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    for at in [0, 9, 20] {
        let damaged = disk.crash();
        flip(&damaged, &log_path(1), at);
        let found = recovered(&damaged);
        assert!(is_clean(&found));
        assert_eq!(found.logs[0].memtable.read().op_count(), 2);
    }
}

#[test]
fn a_gap_in_the_sequences_is_a_loss_and_is_told() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    put_log(&disk, 3, &[5], Previous::default());
    let found = recovered(&disk);
    assert_eq!(found.lost.count(), 2);
    assert!(found.lost.contains(SlotId(1), ORIGIN, 3) && found.lost.contains(SlotId(1), ORIGIN, 4));
    assert!(
        !found.damage.is_empty(),
        "what the origin gave out last may be lost as well"
    );
}

#[test]
fn a_segment_without_its_end_is_salvaged_and_set_aside() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2], vec![1]);
    let mut bytes = disk.content(&segment_path(2)).unwrap();
    bytes.truncate(bytes.len() - 10);
    disk.put(&segment_path(2), bytes);
    for _ in 0..2 {
        let found = recovered(&disk);
        assert!(found.covered.contains(SlotId(1), ORIGIN, 2));
        assert!(
            !found.lost.is_empty(),
            "nobody knows what else it held, at no later start either"
        );
        // Salvaged once; after a crash before it was set aside, that is still to be done.
        assert_eq!((segment_numbers(&found), found.set_aside.clone()), (vec![3], vec![2]));
        assert!(found.obsolete.is_empty() && disk.content(&segment_path(2)).is_some());
    }
}

#[test]
fn a_log_that_a_damaged_footer_may_have_replaced_does_not_come_back_unnoticed() {
    let disk = MemoryDisk::new();
    // All that it held was cleared, and the clear is collected.
    put_log(&disk, 1, &[1, 2], Previous::default());
    put_segment(&disk, 5, &[], vec![1, 2, 3, 4]);
    let end = disk.content(&segment_path(5)).unwrap().len() as u64;
    for at in [end - 60, end - 40, end - 1] {
        let damaged = disk.crash();
        flip(&damaged, &segment_path(5), at);
        let found = recovered(&damaged);
        assert!(!found.damage.is_empty());
        assert!(!found.lost.is_empty(), "the cleared values would be read again");
    }
}

#[test]
fn what_was_read_is_written_again_and_synced_before_it_is_believed() {
    let disk = MemoryDisk::new();
    let offsets = put_log(&disk, 1, &[1, 2, 3], Previous::default());
    let read = disk.content(&log_path(1)).unwrap();
    for damage in [None, Some(offsets[1] + 60)] {
        // The page cache shows all; the disk has nothing: the sync that failed left its pages clean.
        let after_failure = MemoryDisk::new();
        after_failure.put(&log_path(1), vec![0; read.len()]);
        let mut shown = read.clone();
        if let Some(at) = damage {
            shown[at as usize] ^= 1;
        }
        after_failure.show(&log_path(1), shown);
        let found = recovered(&after_failure);
        let on_disk = recovered(&after_failure.crash());
        assert_eq!(
            on_disk
                .logs
                .iter()
                .map(|log| log.memtable.read().op_count())
                .sum::<usize>(),
            found.logs[0].memtable.read().op_count()
        );
    }
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
fn a_sector_of_a_log_that_cannot_be_read_is_damage_and_the_rest_is_kept() {
    let disk = MemoryDisk::new();
    let seqs: Vec<u64> = (1..=200).collect();
    let offsets = put_log(&disk, 1, &seqs, Previous::default());
    let sector = logs::READ_AGAIN_BYTES as u64..2 * logs::READ_AGAIN_BYTES as u64;
    disk.faults()
        .bad_byte
        .store(sector.start + 9, std::sync::atomic::Ordering::Relaxed);
    let found = recovered(&disk);
    let outside = |pair: &&[u64]| pair[1] <= sector.start || pair[0] >= sector.end;
    let kept = offsets.windows(2).filter(outside).count();
    assert_eq!(found.logs[0].memtable.read().op_count(), kept);
    assert!(found.logs[0].damaged && !found.damage.is_empty());
    assert!(found.lost.get(SlotId(1)).is_some());
}

#[test]
fn a_log_of_which_nothing_can_be_read_is_not_taken_for_empty() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    disk.faults()
        .fail_read
        .store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(recover(&place(&disk)), Err(RecoverError::Io { .. })));
    disk.faults()
        .fail_read
        .store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(recovered(&disk).logs[0].memtable.read().op_count(), 2);
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
        disk.faults()
            .fail_read_once
            .store(nth, std::sync::atomic::Ordering::Relaxed);
        match recover(&place(&disk)) {
            Ok(found) => assert!(is_clean(&found), "read {nth}: {:?}", found.damage),
            Err(error) => assert!(matches!(error, RecoverError::Io { .. }), "read {nth}: {error}"),
        }
    }
}

#[test]
fn a_log_that_is_cut_into_its_header_is_a_loss_and_the_shard_opens() {
    for (len, seqs_behind) in [
        (0, vec![3]),
        (1, vec![3]),
        (511, vec![3]),
        (0, vec![]),
        (1, vec![]),
        (511, vec![]),
    ] {
        let disk = MemoryDisk::new();
        let offsets = put_log(&disk, 1, &[1, 2], Previous::default());
        let previous = Previous {
            number: 1,
            end: offsets[2],
        };
        put_log(&disk, 2, &seqs_behind, previous);
        let mut bytes = disk.content(&log_path(1)).unwrap();
        bytes.truncate(len);
        disk.put(&log_path(1), bytes);
        let found = recovered(&disk);
        assert!(log_numbers(&found).starts_with(&[1]) && found.logs[0].damaged);
        assert_eq!(found.damage.len(), 1, "{:?}", found.damage);
        let slots: Vec<u16> = found.lost.slots().map(|(slot, _)| slot.0).collect();
        assert_eq!(slots, [0, 1, 2, 3], "nobody knows of which keys its records were");
    }
}

#[test]
fn a_log_that_is_cut_between_its_records_is_a_loss() {
    let disk = MemoryDisk::new();
    let offsets = put_log(&disk, 1, &[1, 2], Previous::default());
    let previous = Previous {
        number: 1,
        end: offsets[2],
    };
    put_log(&disk, 2, &[], previous);
    let mut bytes = disk.content(&log_path(1)).unwrap();
    bytes.truncate(offsets[1] as usize);
    disk.put(&log_path(1), bytes);
    let found = recovered(&disk);
    assert_eq!((found.damage.len(), found.logs[0].memtable.read().op_count()), (1, 1));
    assert_eq!(found.lost.slots().count(), 4);
}

#[test]
fn nothing_that_was_merged_goes_before_the_name_of_what_replaces_it_is_durable() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1], vec![1]);
    put_segment(&disk, 3, &[1], vec![2]);
    let folder = |name: Option<&str>| {
        *disk.faults().unsyncable_folder.lock().unwrap() = name.map(PathBuf::from);
    };
    folder(Some(DIR));
    assert!(matches!(recover(&place(&disk)), Err(RecoverError::Io { .. })));
    assert!(disk.content(&segment_path(2)).is_some());
    folder(None);
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
fn a_salvage_that_fails_late_does_not_leave_its_number_to_another_file() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2], vec![1]);
    cut_end(&disk, &segment_path(2));
    *disk.faults().unsyncable_folder.lock().unwrap() = Some(DIR.into());
    let found = recovered_of_replica(&disk);
    assert!(
        disk.content(&segment_path(3)).is_some(),
        "it got its name, but not durably"
    );
    assert_eq!((found.next_number, found.obsolete.clone()), (4, vec![3]));
    assert!(!found.lost.is_empty());
    *disk.faults().unsyncable_folder.lock().unwrap() = None;
    let found = recovered_of_replica(&disk);
    assert_eq!((segment_numbers(&found), found.set_aside.clone()), (vec![3], vec![2]));
    assert!(found.covered.contains(SlotId(1), ORIGIN, 2));
}

#[test]
fn a_salvage_that_failed_late_and_was_replaced_is_done_again() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2], vec![1]);
    cut_end(&disk, &segment_path(2));
    *disk.faults().unsyncable_folder.lock().unwrap() = Some(DIR.into());
    recovered_of_replica(&disk);
    *disk.faults().unsyncable_folder.lock().unwrap() = None;
    // It goes on without what the salvage wrote.
    put_segment(&disk, 4, &[3], vec![3]);
    let found = recovered_of_replica(&disk);
    assert_eq!(
        (segment_numbers(&found), found.set_aside.clone()),
        (vec![4, 5], vec![2])
    );
    assert!(found.covered.contains(SlotId(1), ORIGIN, 2));
}

#[test]
fn what_was_dropped_while_a_damaged_segment_waited_does_not_come_back() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2, 3], vec![1]);
    cut_end(&disk, &segment_path(2));
    *disk.faults().unsyncable_folder.lock().unwrap() = Some(DIR.into());
    recovered_of_replica(&disk);
    *disk.faults().unsyncable_folder.lock().unwrap() = None;
    // Peers gave back 1 and 2, and 2 was cleared since.
    put_segment_without(&disk, 4, &[1], &[2], vec![3]);
    let found = recovered_of_replica(&disk);
    let ops: Vec<_> = found.segments.iter().map(|segment| segment.stats().ops).collect();
    assert_eq!((segment_numbers(&found), ops), (vec![4, 5], vec![1, 1]));
    for seq in 1..=3 {
        assert!(found.segments[1].covered().contains(SlotId(1), ORIGIN, seq));
    }
}

#[test]
fn what_was_dropped_does_not_come_back_from_a_log_that_a_damaged_segment_may_have_replaced() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2, 3], Previous::default());
    put_segment(&disk, 2, &[], vec![1]);
    cut_end(&disk, &segment_path(2));
    put_segment_without(&disk, 3, &[1], &[2], vec![]);
    put_log(&disk, 4, &[4], Previous::default());
    let found = recovered_of_replica(&disk);
    let ops: Vec<_> = found.logs.iter().map(|log| log.memtable.read().op_count()).collect();
    assert_eq!((log_numbers(&found), ops), (vec![1, 4], vec![1, 1]));
    assert!(found.covered.contains(SlotId(1), ORIGIN, 3) && !found.lost.is_empty());
}

#[test]
fn without_other_replicas_nothing_is_taken_before_a_damaged_segment_is_salvaged() {
    let disk = MemoryDisk::new();
    put_segment(&disk, 2, &[1, 2], vec![1]);
    cut_end(&disk, &segment_path(2));
    let fails = |what: &str| {
        // A clear that is taken now would not name what the segment holds.
        assert!(matches!(recover(&place(&disk)), Err(RecoverError::Io { .. })), "{what}");
    };
    disk.faults().free_bytes.store(10, std::sync::atomic::Ordering::Relaxed);
    fails("no space");
    disk.faults()
        .free_bytes
        .store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
    *disk.faults().unsyncable_folder.lock().unwrap() = Some(DIR.into());
    fails("a sync that fails late");
    *disk.faults().unsyncable_folder.lock().unwrap() = None;
    let found = recovered(&disk);
    assert!(found.covered.contains(SlotId(1), ORIGIN, 2));
    assert_eq!(found.set_aside, [2]);
}
