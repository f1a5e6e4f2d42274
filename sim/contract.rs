//! The contract of `Disk`, as tests: one suite for the simulated and the real disk. What a crash leaves is tested where a crash
//! can be had.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kv_storage::store::disk::{Disk, DiskFile, OpenMode};

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn create(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn content(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

type Claim = fn(&dyn Disk, PathBuf);

/// Runs every claim in an empty directory of its own below `root`.
pub fn check(disk: &dyn Disk, root: &Path) {
    let claims: [(&str, Claim); 9] = [
        ("modes", opening_follows_its_mode),
        ("io", what_was_written_is_read),
        ("end", reading_past_the_end_fails),
        ("len", lengths_grow_with_zeroes_and_shrink),
        ("names", names_are_listed_in_order),
        ("rename", a_rename_replaces),
        ("remove", an_open_file_outlives_its_name),
        ("sync", syncs_succeed),
        ("lock", a_lock_is_held_once),
    ];
    for (name, claim) in claims {
        let dir = root.join(name).join("deep");
        disk.create_dir_all(&dir).unwrap();
        disk.create_dir_all(&dir).unwrap();
        claim(disk, dir);
    }
}

fn opening_follows_its_mode(disk: &dyn Disk, dir: PathBuf) {
    let path = dir.join("f");
    assert_eq!(kind(disk.open(&path, OpenMode::Read)), Some(ErrorKind::NotFound));
    assert_eq!(kind(disk.open(&path, OpenMode::ReadWrite)), Some(ErrorKind::NotFound));
    create(disk, &path, b"abc");
    assert_eq!(
        kind(disk.open(&path, OpenMode::CreateNew)),
        Some(ErrorKind::AlreadyExists)
    );
    assert_eq!(content(disk, &path), b"abc");
    let read = disk.open(&path, OpenMode::Read).unwrap();
    assert!(read.write_all_at(b"x", 0).is_err() && read.set_len(0).is_err());
    disk.open(&path, OpenMode::ReadWrite)
        .unwrap()
        .write_all_at(b"x", 1)
        .unwrap();
    assert_eq!(content(disk, &path), b"axc");
    let nowhere = dir.join("no/such");
    assert_eq!(
        kind(disk.open(&nowhere, OpenMode::CreateNew)),
        Some(ErrorKind::NotFound)
    );
}

fn what_was_written_is_read(disk: &dyn Disk, dir: PathBuf) {
    let bytes: Vec<u8> = (0..5000u32).map(|i| (i * 7 % 251) as u8).collect();
    let file = create(disk, &dir.join("f"), &bytes);
    file.write_all_at(&[9; 700], 400).unwrap();
    file.write_all_at(b"", 99).unwrap();
    let mut expected = bytes;
    expected[400..1100].fill(9);
    assert_eq!(content(disk, &dir.join("f")), expected);
    let mut middle = [0; 1000];
    file.read_exact_at(&mut middle, 300).unwrap();
    assert_eq!(middle, expected[300..1300]);
    // Beyond the end: what lies between reads as zeroes.
    file.write_all_at(b"end", 7000).unwrap();
    expected.resize(7000, 0);
    expected.extend(b"end");
    assert_eq!(content(disk, &dir.join("f")), expected);
}

fn reading_past_the_end_fails(disk: &dyn Disk, dir: PathBuf) {
    let file = create(disk, &dir.join("f"), &[1; 600]);
    assert_eq!(
        kind(file.read_exact_at(&mut [0; 10], 591)),
        Some(ErrorKind::UnexpectedEof)
    );
    assert_eq!(
        kind(file.read_exact_at(&mut [0; 1], 4000)),
        Some(ErrorKind::UnexpectedEof)
    );
    assert_eq!(kind(file.read_exact_at(&mut [0; 10], 590)), None);
    assert_eq!(kind(file.read_exact_at(&mut [], 600)), None);
}

fn lengths_grow_with_zeroes_and_shrink(disk: &dyn Disk, dir: PathBuf) {
    let file = create(disk, &dir.join("f"), &[7; 1500]);
    file.set_len(1000).unwrap();
    assert_eq!(file.len().unwrap(), 1000);
    file.set_len(2000).unwrap();
    let mut expected = vec![7; 1000];
    expected.resize(2000, 0);
    assert_eq!(content(disk, &dir.join("f")), expected);
}

fn names_are_listed_in_order(disk: &dyn Disk, dir: PathBuf) {
    for name in ["b", "c", "a"] {
        create(disk, &dir.join(name), name.repeat(3).as_bytes());
    }
    disk.create_dir_all(&dir.join("aa")).unwrap();
    let entries = disk.list(&dir).unwrap();
    let listed: Vec<(&str, u64)> = entries.iter().map(|entry| (entry.name.as_str(), entry.len)).collect();
    assert_eq!(listed, [("a", 3), ("aa", 0), ("b", 3), ("c", 3)]);
    assert!(disk.exists(&dir.join("aa")).unwrap() && disk.exists(&dir.join("a")).unwrap());
    assert!(!disk.exists(&dir.join("d")).unwrap());
    assert_eq!(kind(disk.list(&dir.join("d"))), Some(ErrorKind::NotFound));
}

fn a_rename_replaces(disk: &dyn Disk, dir: PathBuf) {
    create(disk, &dir.join("old"), b"old");
    let file = create(disk, &dir.join("new"), b"new");
    disk.rename(&dir.join("new"), &dir.join("old")).unwrap();
    assert_eq!(content(disk, &dir.join("old")), b"new");
    assert!(!disk.exists(&dir.join("new")).unwrap());
    file.write_all_at(b"N", 0).unwrap();
    assert_eq!(content(disk, &dir.join("old")), b"New");
    let missing = disk.rename(&dir.join("new"), &dir.join("old"));
    assert_eq!(kind(missing), Some(ErrorKind::NotFound));
}

fn an_open_file_outlives_its_name(disk: &dyn Disk, dir: PathBuf) {
    let file = create(disk, &dir.join("f"), b"abc");
    disk.remove_file(&dir.join("f")).unwrap();
    assert_eq!(kind(disk.remove_file(&dir.join("f"))), Some(ErrorKind::NotFound));
    let mut bytes = [0; 3];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"abc");
    create(disk, &dir.join("f"), b"another");
    assert_eq!(file.len().unwrap(), 3);
}

fn syncs_succeed(disk: &dyn Disk, dir: PathBuf) {
    let file = create(disk, &dir.join("f"), b"abc");
    file.sync_data().unwrap();
    disk.sync_dir(&dir).unwrap();
    assert_eq!(kind(disk.sync_dir(&dir.join("no"))), Some(ErrorKind::NotFound));
    assert!(disk.free_bytes(&dir).unwrap() > 0);
}

fn a_lock_is_held_once(disk: &dyn Disk, dir: PathBuf) {
    let path = dir.join("lock");
    let held = disk.lock(&path).unwrap();
    assert_eq!(kind(disk.lock(&path)), Some(ErrorKind::WouldBlock));
    drop(held);
    drop(disk.lock(&path).unwrap());
}

#[test]
fn the_real_disk_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    check(&kv_storage::os::RealDisk::default(), root.path());
}
