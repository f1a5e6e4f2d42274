//! What the supervisor sees to while the disk hangs.

use std::path::Path;

use super::*;
use crate::core::slot::{KeyHash, shard_slots, slot_of};
use crate::store::disk::Disk;

const LONG: Duration = Duration::from_secs(30);

/// Damages the first record of the shard's log.
fn damage_log(disk: &MemoryDisk, dir: &Path) {
    let names = disk.list(dir).unwrap().into_iter().map(|entry| dir.join(entry.name));
    let is_used = |path: &PathBuf| disk.content(path).is_some_and(|bytes| bytes.starts_with(b"KVLG"));
    let log = names.into_iter().find(is_used).unwrap();
    let mut bytes = disk.content(&log).unwrap();
    bytes[512 + 20] ^= 1;
    disk.put(&log, bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_opened_again_while_the_disk_hangs_at_a_new_name_for_another() {
    let disk = MemoryDisk::new();
    let env = Env {
        disk: disk.as_disk(),
        ..crate::os::env()
    };
    let node = Node::start(env.clone(), NodeConfig { shards: 2, ..config() })
        .await
        .unwrap();
    let user = user();
    let key_of = |shard: u16| {
        let is_there = |key: &Key| shard_slots(shard, 2).contains(&slot_of(&user, KeyHash::of(&user, key)).0);
        (0..).map(key).find(is_there).unwrap()
    };
    let keys = [key_of(0), key_of(1)];
    for key in keys.iter().cycle().take(6) {
        let added = node.add(&user, key, "value".into(), true, None, Terms::usual()).await;
        added.unwrap();
    }
    damage_log(&disk, Path::new("/data/shard-000-of-002"));
    let held = disk.hold_syncs("/data/node.");
    let (release, released) = std::sync::mpsc::channel::<()>();
    // Without the supervisor all may stand still, timers too.
    env.blocking.submit(Box::new(move || {
        let _ = released.recv_timeout(LONG);
        drop(held);
    }));
    node.kill_shard_of(&user, &keys[0]);
    // It takes a new origin, and the disk hangs.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(
        node.count(&user, &keys[1], Terms::usual()).await,
        Ok(3),
        "the other shard serves"
    );
    node.kill_shard_of(&user, &keys[1]);
    while node.figures()[1].restarts == 0 || node.count(&user, &keys[1], Terms::usual()).await != Ok(3) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    assert!(!node.is_ready());
    release.send(()).unwrap();
    while !node.is_ready() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.stop().await;
}
