//! A member whose disk fails, among others whose disks do not.

use std::sync::atomic::Ordering;

use super::*;

const TRIES: usize = 100;

/// Lets the first node hold its copy of the key in a segment, and no more be able to read it.
async fn fail_reads_of(rig: &Rig, disk: &MemoryDisk, name: &str) {
    let fails = &disk.faults().fail_read;
    for round in 0..TRIES {
        // What is in the way of it in memory goes to the disk.
        for at in 0..8 {
            let filler = format!("{round} {at}");
            add(rig.node(1), &filler, &"x".repeat(16 << 10)).await.unwrap();
        }
        sleep(Duration::from_millis(50)).await;
        fails.store(true, Ordering::Relaxed);
        match rig.node(0).local().count(&user(), &key(name)).await {
            Err(OpError::Disk(_)) => return,
            _ => fails.store(false, Ordering::Relaxed),
        }
    }
    panic!("the key stays in memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_disk_cannot_read_comes_from_another_replica() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(3)
    };
    let rig = rig.started().await;
    let (user, k, id) = (user(), key("k"), Some(RequestId([7; 16])));
    let again = |level| rig.node(0).add(&user, &k, "v".into(), true, id, at(level));
    assert_eq!(again(Consistency::All).await.unwrap(), Added::Appended);
    fail_reads_of(&rig, &disk, "k").await;
    let node = rig.node(0);
    for level in [Consistency::One, Consistency::Quorum] {
        assert_eq!(list(node, "k", level).await.unwrap(), ["v"]);
        assert_eq!(node.count(&user, &k, at(level)).await.unwrap(), 1);
        assert_eq!(again(level).await.unwrap(), Added::Repeated);
    }
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    rig.end().await;
}
