//! Logs that are torn, damaged or cut.

use super::*;

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
fn a_log_that_was_never_used_does_not_hide_where_the_one_before_it_ended() {
    let other = MemoryDisk::new();
    put_log(&other, 40, &[8, 9], Previous::default());
    let of_former_life = other.content(&log_path(40)).unwrap();
    for unused in [Vec::new(), of_former_life] {
        let disk = MemoryDisk::new();
        let offsets = put_log(&disk, 1, &[1, 2], Previous::default());
        disk.put(&log_path(2), unused);
        let previous = Previous {
            number: 1,
            end: offsets[2],
        };
        put_log(&disk, 3, &[3], previous);
        flip(&disk, &log_path(1), offsets[1] + 60);
        let found = recovered(&disk);
        assert_eq!((found.damage.len(), found.torn_logs), (1, 0));
        assert_eq!((log_numbers(&found), found.spares.clone()), (vec![1, 3], vec![2]));
        assert!(found.lost.contains(SlotId(1), ORIGIN, 2));
    }
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
fn a_sector_of_a_log_that_cannot_be_read_is_damage_and_the_rest_is_kept() {
    let disk = MemoryDisk::new();
    let seqs: Vec<u64> = (1..=200).collect();
    let offsets = put_log(&disk, 1, &seqs, Previous::default());
    let sector = logs::READ_AGAIN_BYTES as u64..2 * logs::READ_AGAIN_BYTES as u64;
    disk.faults().bad_byte.store(sector.start + 9, Ordering::Relaxed);
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
    disk.faults().fail_read.store(true, Ordering::Relaxed);
    assert!(matches!(recover(&place(&disk)), Err(RecoverError::Io { .. })));
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    assert_eq!(recovered(&disk).logs[0].memtable.read().op_count(), 2);
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
fn the_last_log_that_is_cut_short_is_a_loss_until_it_is_accepted() {
    let whole = MemoryDisk::new();
    let offsets = put_log(&whole, 1, &[1, 2, 3], Previous::default());
    let in_body = offsets[2] as usize + 60;
    for (len, kept) in [
        (in_body, 2),
        (offsets[2] as usize + 9, 2),
        (offsets[1] as usize, 1),
        (600, 1),
        (570, 0),
        (512, 0),
        (100, 0),
        (40, 0),
    ] {
        let disk = whole.crash();
        let mut bytes = disk.content(&log_path(1)).unwrap();
        bytes.truncate(len);
        disk.put(&log_path(1), bytes);
        let found = recovered(&disk);
        assert_eq!(
            (log_numbers(&found), found.torn_logs, found.damage.len()),
            (vec![1], 0, 1),
            "{len}"
        );
        assert!(found.logs[0].damaged);
        assert_eq!(found.logs[0].memtable.read().op_count(), kept);
        assert_eq!(
            found.lost.slots().count(),
            4,
            "nobody knows of which keys the others were"
        );
        // Nor does the next start before it is sealed, when a newer log says how far this one went.
        let end = found.logs[0].memtable.read().end();
        put_log(&disk, 2, &[9], Previous { number: 1, end });
        let found = recovered(&disk);
        assert!(found.logs[0].damaged && found.logs[0].memtable.read().op_count() == kept);
        assert_eq!(found.lost.slots().count(), 4, "{len}");
    }
    let disk = whole.crash();
    disk.put(&log_path(1), Vec::new());
    assert_eq!(
        recovered(&disk).spares,
        [1],
        "as a crash leaves it that came before it was filled"
    );
}
