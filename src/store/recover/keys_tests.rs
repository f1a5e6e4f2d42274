//! Which logs are believed when the secret, headers or both are damaged, and that what a user made never is.

use std::path::Path;

use super::super::tests::*;
use super::super::*;
use crate::core::slot::SlotId;
use crate::store::log::{Previous, Record, put_record, store_secret};
use crate::store::memory_disk::MemoryDisk;

fn secret_path() -> PathBuf {
    Path::new(DIR).join(log::SECRET_NAME)
}

fn store(disk: &MemoryDisk, secret: LogSecret) {
    store_secret(&*disk.as_disk(), Path::new(DIR), secret).unwrap();
}

fn remove_secret(disk: &MemoryDisk) {
    disk.as_disk().remove_file(&secret_path()).unwrap();
    disk.as_disk().sync_dir(Path::new(DIR)).unwrap();
}

fn ops(found: &Recovered) -> usize {
    found.logs.iter().map(|log| log.memtable.read().op_count()).sum()
}

/// What a user can make who knows all but the secret: records from `start` on, for these logs in turn.
fn forged(numbers: std::ops::Range<u64>, start: u64, bytes: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for number in numbers.cycle() {
        if text.len() as u64 >= bytes {
            return text;
        }
        let place = log::Place {
            key: log::LogKey::without_secret(number),
            offset: start + text.len() as u64,
            group_back: 0,
            ordinal: 1,
        };
        let op = op(700);
        let (user, key) = ("victim", "k");
        put_record(&mut text, place, Record { user, key, op: &op });
    }
    text
}

/// Puts them into the log of this number, behind its records.
fn put_forged(disk: &MemoryDisk, number: u64, numbers: std::ops::Range<u64>) {
    let mut file = disk.content(&log_path(number)).unwrap();
    let end = file.len() as u64;
    file.extend(forged(numbers, end, 16 << 10));
    disk.put(&log_path(number), file);
}

#[test]
fn what_a_user_left_in_a_file_that_is_used_again_is_never_taken_for_a_record() {
    for number in 2..20 {
        let disk = MemoryDisk::new();
        // Of a life before there were secrets, or of one after.
        for former in [None, Some(SECRET)] {
            put_log_with(&disk, 1, &[1], Previous::default(), former);
            store(&disk, SECRET);
            put_forged(&disk, 1, 1..20);
            let old = disk.content(&log_path(1)).unwrap();
            disk.as_disk().remove_file(&log_path(1)).unwrap();
            disk.put(&log_path(number), old.clone());
            let found = recovered(&disk);
            assert_eq!((found.spares.clone(), ops(&found)), (vec![number], 0), "not used yet");
            assert!(is_clean(&found) && found.torn_logs == 0);

            put_log(&disk, number, &[1, 2], Previous::default());
            let mut used = disk.content(&log_path(number)).unwrap();
            used.truncate(used.len() - 1024);
            used.extend(&old[used.len()..]);
            disk.put(&log_path(number), used);
            let found = recovered(&disk);
            assert_eq!((ops(&found), found.torn_logs), (2, 0));
            assert!(is_clean(&found), "{:?}", found.damage);
        }
    }
}

#[test]
fn a_log_is_read_although_the_file_of_the_secret_is_missing_or_damaged() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    put_log(&disk, 3, &[3], Previous::default());
    let bytes = disk.content(&secret_path()).unwrap();
    let found = recovered(&disk);
    assert_eq!(
        (found.secret, found.secret_stored, ops(&found)),
        (Some(SECRET), true, 3)
    );
    for damage in 0..=bytes.len() {
        let damaged = disk.crash();
        match damage < bytes.len() {
            true => flip(&damaged, &secret_path(), damage as u64),
            false => remove_secret(&damaged),
        }
        // One log's header says it to the other log.
        for (header, at) in [(None, 0), (Some(1), 9), (Some(3), 40), (Some(1), 4)] {
            let damaged = damaged.crash();
            if let Some(number) = header {
                flip(&damaged, &log_path(number), at);
            }
            let found = recovered(&damaged);
            assert_eq!((found.secret, found.secret_stored), (Some(SECRET), false));
            assert!(
                ops(&found) == 3 && is_clean(&found),
                "{damage}, {header:?}: {:?}",
                found.damage
            );
        }
    }
}

#[test]
fn a_log_that_nothing_is_left_to_read_with_is_lost_and_not_empty() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    put_forged(&disk, 1, 1..2);
    for secret in [None, Some(4), Some(10)] {
        // The magic, the version, the number, the secret, all.
        for header in [Some(0), Some(4), Some(9), Some(40), None] {
            let damaged = disk.crash();
            match secret {
                Some(at) => flip(&damaged, &secret_path(), at),
                None => remove_secret(&damaged),
            }
            match header {
                Some(at) => flip(&damaged, &log_path(1), at),
                None => {
                    let mut bytes = damaged.content(&log_path(1)).unwrap();
                    bytes[..512].fill(0);
                    damaged.put(&log_path(1), bytes);
                }
            }
            let found = recovered(&damaged);
            assert_eq!((ops(&found), found.damage.len()), (0, 1), "{secret:?}, {header:?}");
            assert!(found.spares.is_empty() && found.logs[0].damaged, "to be set aside");
            assert_eq!(found.lost.slots().count(), 4, "nobody knows what it held");
            assert_eq!(found.secret, None);
        }
    }
}

#[test]
fn a_log_without_a_secret_is_read_before_the_folder_has_one_and_after() {
    let disk = MemoryDisk::new();
    let offsets = put_log_with(&disk, 1, &[1, 2, 3], Previous::default(), None);
    for stored in [None, Some(NEW_SECRET)] {
        if let Some(secret) = stored {
            store(&disk, secret);
        }
        for header in [None, Some(0), Some(9), Some(20)] {
            let damaged = disk.crash();
            if let Some(at) = header {
                flip(&damaged, &log_path(1), at);
            }
            let found = recovered(&damaged);
            assert_eq!((ops(&found), found.secret), (3, stored));
            assert!(is_clean(&found), "a damaged header alone loses nothing");
            flip(&damaged, &log_path(1), offsets[1] + 60);
            let found = recovered(&damaged);
            assert_eq!((ops(&found), found.damage.len()), (2, 1));
            assert!(found.lost.contains(SlotId(1), ORIGIN, 2));
        }
    }
}

#[test]
fn a_log_without_a_secret_whose_beginning_is_damaged_is_lost_and_not_empty() {
    let disk = MemoryDisk::new();
    let offsets = put_log_with(&disk, 1, &[1, 2, 3], Previous::default(), None);
    flip(&disk, &log_path(1), 9);
    for stored in [false, true] {
        if stored {
            store(&disk, NEW_SECRET);
        }
        // As long as the header of the first record says what log it is, only that record is lost.
        for (at, kept, slots) in [(60, 2, 1), (10, 0, 4)] {
            let damaged = disk.crash();
            flip(&damaged, &log_path(1), offsets[0] + at);
            let found = recovered(&damaged);
            assert_eq!((ops(&found), found.damage.len()), (kept, 1));
            assert!(found.spares.is_empty() && found.logs[0].damaged);
            assert_eq!(found.lost.slots().count(), slots);
        }
    }
}

#[test]
fn a_log_that_was_never_used_is_empty_whatever_befell_its_former_header() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    let former = disk.content(&log_path(1)).unwrap();
    disk.as_disk().remove_file(&log_path(1)).unwrap();
    disk.put(&log_path(5), former);
    for at in [0, 4, 20, 40] {
        let damaged = disk.crash();
        flip(&damaged, &log_path(5), at);
        let found = recovered(&damaged);
        assert!(found.spares == [5] && is_clean(&found));
    }
}

#[test]
fn a_header_that_was_written_in_part_is_no_loss() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1, 2], Previous::default());
    let former = disk.content(&log_path(1)).unwrap();
    for former in [former, vec![0; 4096]] {
        for (secret, stored) in [(Some(SECRET), true), (None, false)] {
            for written in 1..HEADER_PART {
                // The write failed, and the group was not written any more.
                let disk = MemoryDisk::new();
                put_log_with(&disk, 5, &[], Previous::default(), secret);
                let mut bytes = former.clone();
                let header = disk.content(&log_path(5)).unwrap();
                bytes[..written].copy_from_slice(&header[..written]);
                disk.put(&log_path(5), bytes);
                if stored {
                    store(&disk, SECRET);
                }
                let found = recovered(&disk);
                // As one of the next version, it would tell of a secret, which is gone.
                let is_known = stored || (6..HEADER_PART).contains(&written);
                assert!(!is_known || (found.spares == [5] && is_clean(&found)), "{written}");
            }
        }
    }
}

/// Less than all that a header without a secret has.
const HEADER_PART: usize = 32;

#[test]
fn a_first_write_that_was_torn_is_no_loss_with_or_without_the_secret() {
    for file_is_damaged in [false, true] {
        let disk = MemoryDisk::new();
        let offsets = put_log(&disk, 1, &[1], Previous::default());
        put_log(&disk, 2, &[2], Previous::default());
        if file_is_damaged {
            flip(&disk, &secret_path(), 9);
        }
        let mut bytes = disk.content(&log_path(2)).unwrap();
        // Neither the header nor the end of the record reached the disk.
        bytes[..512].fill(0);
        bytes[offsets[0] as usize + 60..].fill(0);
        disk.put(&log_path(2), bytes);
        let found = recovered(&disk);
        assert_eq!((log_numbers(&found), found.spares.clone()), (vec![1], vec![2]));
        assert!(is_clean(&found));
    }
}

#[test]
fn a_secret_of_a_newer_version_is_refused() {
    let disk = MemoryDisk::new();
    put_log(&disk, 1, &[1], Previous::default());
    let mut bytes = disk.content(&secret_path()).unwrap();
    bytes[4] = 9;
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    disk.put(&secret_path(), bytes);
    let refused = recover(&place(&disk));
    assert!(matches!(
        refused,
        Err(RecoverError::NewerVersion { found: 9, known: 1, .. })
    ));
}
