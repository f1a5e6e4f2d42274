//! Starts of a node whose disk has its faults.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::super::identity::{Identity, Role};
use super::*;

#[test]
fn a_member_starts_although_the_disk_is_full() {
    let disk = MemoryDisk::new();
    let env = env(&disk);
    let start = |free_bytes: u64| {
        disk.faults().free_bytes.store(free_bytes, Ordering::Relaxed);
        let identity = Identity::open(&env, Path::new("/data"), 1, Role::Member).unwrap();
        (identity.origin, identity.former.clone(), identity.node, identity.starts)
    };
    let (first, _, node, _) = start(u64::MAX);
    let (second, former, same, starts) = start(0);
    assert_ne!(first, second);
    assert_eq!((former, same, starts), (vec![first], node, 2));
    // With space again some is set aside again, and more as the record becomes longer.
    for _ in 0..500 {
        start(u64::MAX);
    }
    let (_, former, same, starts) = start(0);
    assert_eq!((former.len(), same, starts), (502, node, 503));
    let record = disk.content(Path::new("/data/node.json")).unwrap();
    assert!(record.len() > 8192, "more than the first spare file was made for");
}
