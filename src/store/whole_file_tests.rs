//! Files that are written on a full disk.

use std::sync::atomic::Ordering;

use super::*;
use crate::store::memory_disk::MemoryDisk;

const PATH: &str = "/d/file";

/// With a file of a hundred bytes and its spare, and no space.
fn full_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    write_with_spare(&disk, Path::new(PATH), &[b'1'; 100]).unwrap();
    disk.faults().free_bytes.store(0, Ordering::Relaxed);
    disk
}

#[test]
fn a_spare_that_could_not_be_synced_is_still_long_enough() {
    let disk = full_disk();
    disk.faults().fail_sync.store(true, Ordering::Relaxed);
    assert!(write_with_spare(&disk, Path::new(PATH), &[b'2'; 100]).is_err());
    disk.faults().fail_sync.store(false, Ordering::Relaxed);
    write_with_spare(&disk, Path::new(PATH), &[b'3'; 119]).unwrap();
    assert_eq!(disk.content(Path::new(PATH)).unwrap(), [b'3'; 119]);
}

#[test]
fn what_a_crash_leaves_of_a_file_written_into_its_spare_is_followed_by_spaces_alone() {
    let disk = full_disk();
    write_with_spare(&disk, Path::new(PATH), &[b'2'; 100]).unwrap();
    let left = disk.crash().content(Path::new(PATH)).unwrap();
    assert_eq!(left.trim_ascii_end(), [b'2'; 100]);
}

#[test]
fn a_spare_is_there_after_a_crash() {
    let disk = full_disk().crash();
    assert!(disk.content(&Path::new(PATH).with_extension("spare")).is_some());
}
