//! A disk that hangs keeps nobody waiting beyond the deadline.

use super::*;

/// The real environment, whose threads may block, but for the disk.
fn env_of(disk: &MemoryDisk) -> Env {
    Env {
        disk: disk.as_disk(),
        ..crate::os::env()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_answered_by_its_deadline_though_the_disk_hangs() {
    let disk = MemoryDisk::new();
    let node = Node::start(env_of(&disk), config()).await.unwrap();
    let (user, key, id) = (user(), key(0), Some(RequestId([1; 16])));
    let soon = || Terms {
        // By then the shard has begun with it.
        deadline: tokio::time::Instant::now() + Duration::from_secs(2),
        ..Terms::usual()
    };
    let hangs = disk.hold_syncs("shard-");
    let late = node.add(&user, &key, "v".into(), true, id, soon()).await;
    assert_eq!(late, Err(OpError::Deadline { maybe_applied: true }));
    drop(hangs);
    let retried = node.add(&user, &key, "v".into(), true, id, Terms::usual()).await;
    assert_eq!(retried, Ok(Added::Repeated));
    assert_eq!(list_of(&node, &key).await, ["v"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_answered_by_its_deadline_though_the_disk_hangs() {
    let disk = MemoryDisk::new();
    let no_cache = NodeConfig {
        cache_bytes: 0,
        ..config()
    };
    let node = Node::start(env_of(&disk), no_cache).await.unwrap();
    let (user, key) = (user(), key(0));
    let soon = || Terms {
        deadline: tokio::time::Instant::now() + Duration::from_millis(200),
        ..Terms::usual()
    };
    let late = OpError::Deadline { maybe_applied: false };
    loop {
        // Until what was added first is in a segment.
        let text = "x".repeat(16 << 10);
        node.add(&user, &key, text.into(), true, None, Terms::usual())
            .await
            .unwrap();
        let hangs = disk.hold_reads("shard-");
        let count = node.count(&user, &key, soon()).await;
        let mut reader = node.get(&user, &key, 0, 1, soon()).await.unwrap();
        let first = reader.next(1).await;
        drop(hangs);
        if let (Err(count), Err(first)) = (count, first) {
            assert_eq!((count, first), (late.clone(), late));
            break;
        }
    }
    assert!(node.count(&user, &key, Terms::usual()).await.unwrap() > 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_counts_for_each_piece_until_something_is_sent() {
    let disk = MemoryDisk::new();
    let no_cache = NodeConfig {
        cache_bytes: 0,
        ..config()
    };
    let node = Node::start(env_of(&disk), no_cache).await.unwrap();
    let (user, key) = (user(), key(0));
    let late = OpError::Deadline { maybe_applied: false };
    loop {
        for _ in 0..8 {
            let text = "x".repeat(16 << 10);
            node.add(&user, &key, text.into(), true, None, Terms::usual())
                .await
                .unwrap();
        }
        let terms = Terms {
            deadline: tokio::time::Instant::now() + Duration::from_secs(1),
            ..Terms::usual()
        };
        let mut reader = node.get(&user, &key, 0, u64::MAX, terms).await.unwrap();
        reader.until_sent();
        reader.next(1).await.unwrap();
        let hangs = disk.hold_reads("shard-");
        let rest = async {
            while !reader.next(1).await?.is_empty() {}
            Ok::<_, OpError>(())
        };
        // Less than a piece of what was sent gets.
        let rest = tokio::time::timeout(Duration::from_secs(20), rest).await;
        drop(hangs);
        // Until what was added first is in a segment.
        if let Err(error) = rest.expect("it is answered") {
            assert_eq!(error, late);
            break;
        }
    }
    node.stop().await;
}
