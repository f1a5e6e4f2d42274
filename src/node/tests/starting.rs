//! Starts of a node whose disk has its faults.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::*;
use crate::node::folder::identity::{Identity, Role};

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

/// One flipped bit of the file's text, in the days when it had no checksum.
#[tokio::test]
async fn another_number_of_shards_in_the_file_hides_no_folder() {
    let disk = MemoryDisk::new();
    let mut config = NodeConfig::new("/data".into());
    config.shards = 4;
    let node = Node::start(env(&disk), config.clone()).await.unwrap();
    let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
    node.add(&user, &key, "v".into(), true, None, Terms::usual())
        .await
        .unwrap();
    node.stop().await;
    let path = Path::new("/data/node.json");
    let text = String::from_utf8(disk.content(path).unwrap()).unwrap();
    let (begin, _) = text
        .split_once(",\"check\"")
        .unwrap_or((text.trim_end_matches('}'), ""));
    let record = format!("{}}}", begin.replace("\"shards\":4", "\"shards\":5"));
    assert!(record.contains("\"shards\":5"));
    disk.put(path, record.into_bytes());
    let node = Node::start(env(&disk), config).await.unwrap();
    assert_eq!(node.count(&user, &key, Terms::usual()).await.unwrap(), 1);
    node.stop().await;
}
