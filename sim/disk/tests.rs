//! What the simulated disk promises to those who test on it: faults inside the contract, all of them, and none beyond.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use kv_storage::store::disk::{Disk, DiskFile, OpenMode};

use super::{Fault, Mount, SimDisk};
use crate::contract;

const SECTOR: usize = 512;

fn file(disk: &Mount, path: &str) -> Box<dyn DiskFile> {
    let path = Path::new(path);
    let mode = if disk.exists(path).unwrap() {
        OpenMode::ReadWrite
    } else {
        OpenMode::CreateNew
    };
    disk.open(path, mode).unwrap()
}

fn content(disk: &Mount, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// A file of two synced sectors of ones, and a second write of twos, unsynced.
fn half_synced(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let mount = disk.mount();
    let handle = file(&mount, "/f");
    handle.write_all_at(&[1; 2 * SECTOR], 0).unwrap();
    handle.sync_data().unwrap();
    mount.sync_dir(Path::new("/")).unwrap();
    handle.write_all_at(&[2; 3 * SECTOR], 0).unwrap();
    disk
}

#[test]
fn the_contract_holds() {
    contract::check(&SimDisk::new(1).mount(), Path::new("/data"));
}

#[test]
fn what_was_synced_survives_and_the_rest_survives_in_every_mixture() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let disk = half_synced(seed);
        disk.crash();
        let bytes = content(&disk.mount(), "/f").unwrap();
        assert!(
            bytes.len() == 2 * SECTOR || bytes.len() == 3 * SECTOR,
            "{}",
            bytes.len()
        );
        let sectors: Vec<u8> = bytes.chunks(SECTOR).map(|sector| sector[0]).collect();
        assert!(
            bytes
                .chunks(SECTOR)
                .all(|sector| sector.iter().all(|&byte| byte == sector[0]))
        );
        assert!(sectors[..2].iter().all(|&byte| byte == 1 || byte == 2));
        assert!(sectors.get(2).is_none_or(|&byte| byte == 0 || byte == 2));
        seen.insert(sectors);
    }
    assert_eq!(seen.len(), 4 + 8, "{seen:?}");
}

#[test]
fn a_name_without_a_directory_sync_may_be_lost_and_a_rename_is_whole() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let mount = disk.mount();
        for (name, bytes) in [("/old", b"old"), ("/tmp", b"new")] {
            let handle = file(&mount, name);
            handle.write_all_at(bytes, 0).unwrap();
            handle.sync_data().unwrap();
        }
        mount.sync_dir(Path::new("/")).unwrap();
        mount.rename(Path::new("/tmp"), Path::new("/old")).unwrap();
        file(&mount, "/more").sync_data().unwrap();
        disk.crash();
        let mount = disk.mount();
        let old = content(&mount, "/old").expect("one of the two is always there");
        let tmp = content(&mount, "/tmp");
        match tmp {
            Some(tmp) => assert_eq!((old.as_slice(), tmp.as_slice()), (&b"old"[..], &b"new"[..])),
            None => assert_eq!(old, b"new"),
        }
        seen.insert((old, content(&mount, "/more").is_some()));
    }
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_directory_without_a_sync_of_its_parent_may_be_lost_with_all_in_it() {
    let survivals = (0..100).filter(|&seed| {
        let disk = SimDisk::new(seed);
        let mount = disk.mount();
        mount.create_dir_all(Path::new("/a/b")).unwrap();
        file(&mount, "/a/b/f").sync_data().unwrap();
        mount.sync_dir(Path::new("/a/b")).unwrap();
        mount.sync_dir(Path::new("/a")).unwrap();
        disk.crash();
        disk.mount().exists(Path::new("/a/b/f")).unwrap()
    });
    let survivals = survivals.count();
    assert!((1..100).contains(&survivals), "{survivals}");
}

#[test]
fn after_a_crash_every_handle_fails_and_every_lock_is_free() {
    let disk = half_synced(3);
    let mount = disk.mount();
    let handle = file(&mount, "/f");
    let lock = mount.lock(Path::new("/lock")).unwrap();
    disk.crash();
    assert!(disk.is_dead(&mount));
    assert!(handle.read_exact_at(&mut [0; 1], 0).is_err());
    assert!(handle.write_all_at(&[0; 1], 0).is_err() && handle.sync_data().is_err() && handle.len().is_err());
    assert!(mount.list(Path::new("/")).is_err());
    let mount = disk.mount();
    let again = mount.lock(Path::new("/lock")).unwrap();
    // The lock of the former life frees nothing when it goes.
    drop(lock);
    assert!(mount.lock(Path::new("/lock")).is_err());
    drop(again);
}

#[test]
fn a_killed_process_loses_nothing_that_it_wrote() {
    let disk = half_synced(4);
    let mount = disk.mount();
    disk.kill();
    assert!(mount.exists(Path::new("/f")).is_err());
    assert_eq!(content(&disk.mount(), "/f").unwrap(), [2; 3 * SECTOR]);
}

#[test]
fn every_change_can_be_the_one_in_which_the_crash_happens() {
    let run = |crash_at: Option<u64>| {
        let disk = SimDisk::new(5);
        let mount = disk.mount();
        if let Some(nth) = crash_at {
            disk.crash_after(nth);
        }
        let script = || -> std::io::Result<()> {
            let handle = mount.open(Path::new("/t"), OpenMode::CreateNew)?;
            handle.set_len(4096)?;
            handle.write_all_at(b"x", 0)?;
            handle.sync_data()?;
            mount.rename(Path::new("/t"), Path::new("/f"))?;
            mount.sync_dir(Path::new("/"))
        };
        (script().is_ok(), disk.is_dead(&mount), disk.changes())
    };
    assert_eq!(run(None), (true, false, 6));
    for nth in 1..=6 {
        assert_eq!(run(Some(nth)), (false, true, nth));
    }
}

#[test]
fn a_failed_sync_is_not_made_good_by_a_later_one() {
    let mut lost_in_silence = 0;
    let mut dropped_from_cache = 0;
    for seed in 0..200 {
        let disk = half_synced(seed);
        let mount = disk.mount();
        let handle = file(&mount, "/f");
        disk.fail(Fault::Sync, 1);
        assert!(handle.sync_data().is_err());
        let cached = content(&mount, "/f").unwrap();
        handle.sync_data().unwrap();
        disk.crash();
        let left = content(&disk.mount(), "/f").unwrap();
        lost_in_silence += u32::from(left[0] == 1 && cached[0] == 2);
        dropped_from_cache += u32::from(cached[0] == 1);
    }
    assert!(lost_in_silence > 0 && dropped_from_cache > 0);
}

#[test]
fn a_write_to_its_page_makes_what_a_failed_sync_left_dirty_again() {
    for seed in 0..100 {
        let disk = half_synced(seed);
        let mount = disk.mount();
        let handle = file(&mount, "/f");
        disk.fail(Fault::Sync, 1);
        assert!(handle.sync_data().is_err());
        let cached = content(&mount, "/f").unwrap();
        handle.write_all_at(&[3], 2 * SECTOR as u64).unwrap();
        handle.sync_data().unwrap();
        disk.crash();
        let left = content(&disk.mount(), "/f").unwrap();
        assert_eq!(left[..2 * SECTOR], cached[..2 * SECTOR]);
    }
}

#[test]
fn a_failed_sync_of_a_directory_is_not_made_good_by_a_later_one_but_by_a_change() {
    let (root, old, mark) = (Path::new("/"), Path::new("/old"), Path::new("/mark"));
    let left = |seed, changes_again: bool| {
        let disk = SimDisk::new(seed);
        let mount = disk.mount();
        file(&mount, "/old").sync_data().unwrap();
        mount.sync_dir(root).unwrap();
        mount.remove_file(old).unwrap();
        disk.fail(Fault::SyncDir, 1);
        assert!(mount.sync_dir(root).is_err());
        assert!(!mount.exists(old).unwrap());
        if changes_again {
            drop(file(&mount, "/mark"));
            mount.remove_file(mark).unwrap();
        }
        mount.sync_dir(root).unwrap();
        // Nor does the end of the process make it good.
        disk.kill();
        assert!(!disk.mount().exists(old).unwrap());
        disk.crash();
        disk.mount().exists(old).unwrap()
    };
    let come_back = (0..200).filter(|&seed| left(seed, false)).count();
    assert!((20..80).contains(&come_back), "{come_back}");
    assert!(!(0..200).any(|seed| left(seed, true)));
}

#[test]
fn a_change_of_names_that_fails_may_be_done_all_the_same_and_a_look_fails_once() {
    let (old, new) = (Path::new("/old"), Path::new("/new"));
    let renamed = |seed| {
        let disk = SimDisk::new(seed);
        let mount = disk.mount();
        drop(file(&mount, "/old"));
        disk.fail(Fault::Name, 1);
        assert!(mount.open(old, OpenMode::Read).is_err());
        assert!(mount.open(old, OpenMode::Read).is_ok());
        disk.fail(Fault::Name, 1);
        assert!(mount.rename(old, new).is_err());
        assert_ne!(mount.exists(old).unwrap(), mount.exists(new).unwrap());
        mount.exists(new).unwrap()
    };
    let done = (0..200).filter(|&seed| renamed(seed)).count();
    assert!((50..150).contains(&done), "{done}");
}

#[test]
fn a_failed_write_leaves_a_prefix_at_most() {
    for seed in 0..50 {
        let disk = half_synced(seed);
        let handle = file(&disk.mount(), "/f");
        disk.fail(Fault::Write, 2);
        handle.write_all_at(&[5; 10], 0).unwrap();
        assert!(handle.write_all_at(&[6; 1000], 10).is_err());
        let bytes = content(&disk.mount(), "/f").unwrap();
        let written = bytes[10..1010].iter().take_while(|&&byte| byte == 6).count();
        assert!(bytes[10 + written..].iter().all(|&byte| byte == 2));
    }
}

#[test]
fn a_full_disk_refuses_growth_only_and_space_comes_back() {
    let disk = half_synced(6);
    let mount = disk.mount();
    let root = Path::new("/");
    disk.set_capacity(disk.used_bytes() + 100);
    assert_eq!(mount.free_bytes(root).unwrap(), 100);
    let handle = file(&mount, "/f");
    handle.write_all_at(&[1; 3 * SECTOR], 0).unwrap();
    let refused = handle.write_all_at(&[1; 200], 3 * SECTOR as u64).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    assert!(handle.len().unwrap() <= 3 * SECTOR as u64 + 100);
    assert_eq!(handle.set_len(1 << 40).unwrap_err().kind(), ErrorKind::StorageFull);
    // The space of a removed file is free once nobody holds it open.
    mount.remove_file(Path::new("/f")).unwrap();
    let still_used = disk.used_bytes();
    drop(handle);
    assert!(still_used > 0 && disk.used_bytes() == 0);
}

#[test]
fn what_was_cut_off_reads_as_zeroes_and_stays_so_once_synced() {
    let disk = half_synced(7);
    let handle = file(&disk.mount(), "/f");
    handle.set_len(100).unwrap();
    handle.set_len(3 * SECTOR as u64).unwrap();
    handle.sync_data().unwrap();
    disk.crash();
    let bytes = content(&disk.mount(), "/f").unwrap();
    assert_eq!(bytes.len(), 3 * SECTOR);
    assert!(bytes[..100].iter().all(|&byte| byte == 2) && bytes[100..].iter().all(|&byte| byte == 0));
}

#[test]
fn rot_flips_one_bit_for_good() {
    let disk = half_synced(8);
    file(&disk.mount(), "/f").sync_data().unwrap();
    disk.flip_bit(Path::new("/f"), 600, 3);
    disk.crash();
    let bytes = content(&disk.mount(), "/f").unwrap();
    let changed: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 2).collect();
    assert_eq!((changed, bytes[600]), (vec![600], 2 ^ 8));
}

#[test]
fn a_read_can_fail_once() {
    let disk = half_synced(9);
    let handle = file(&disk.mount(), "/f");
    disk.fail(Fault::Read, 1);
    assert!(handle.read_exact_at(&mut [0; 1], 0).is_err());
    assert!(handle.read_exact_at(&mut [0; 1], 0).is_ok());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        disk.start_trace();
        contract::check(&disk.mount(), Path::new("/data"));
        disk.crash();
        let mount = disk.mount();
        let names = mount.list(Path::new("/"));
        format!("{names:?}\n{}", disk.trace().join("\n"))
    };
    assert_eq!(run(10), run(10));
    let different: BTreeSet<String> = (0..20).map(run).collect();
    assert!(different.len() > 1);
}

#[test]
fn a_bad_sector_stays_bad_until_it_is_written() {
    let disk = SimDisk::new(1);
    let mount = disk.mount();
    let handle = file(&mount, "/f");
    handle.write_all_at(&[1; 3 * SECTOR], 0).unwrap();
    handle.sync_data().unwrap();
    mount.sync_dir(Path::new("/")).unwrap();
    disk.spoil_sector(Path::new("/f"), SECTOR as u64 + 7);
    disk.spoil_sector(Path::new("/f"), 9 * SECTOR as u64);
    let can_read = |mount: &Mount, offset: usize, len: usize| {
        let file = mount.open(Path::new("/f"), OpenMode::Read).unwrap();
        file.read_exact_at(&mut vec![0; len], offset as u64).is_ok()
    };
    let check = |mount: &Mount| {
        assert!(can_read(mount, 0, SECTOR) && can_read(mount, 2 * SECTOR, SECTOR));
        assert!(!can_read(mount, SECTOR, 1) && !can_read(mount, SECTOR - 1, 2) && !can_read(mount, 2 * SECTOR - 1, 2));
    };
    (0..3).for_each(|_| check(&mount));
    check(&disk.after_power_loss().mount());
    let image = disk.image();
    disk.crash();
    check(&disk.mount());
    let mount = disk.mount();
    file(&mount, "/f").write_all_at(&[2; SECTOR], SECTOR as u64).unwrap();
    assert!(can_read(&mount, 0, 3 * SECTOR));
    disk.restore(&image);
    check(&disk.mount());
    let mount = disk.mount();
    let handle = file(&mount, "/f");
    handle.set_len(SECTOR as u64).unwrap();
    handle.set_len(3 * SECTOR as u64).unwrap();
    assert!(can_read(&mount, 0, 3 * SECTOR));
}
