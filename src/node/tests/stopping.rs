//! A node that stops.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_writes_that_only_a_merge_makes_room_for() {
    let disk = MemoryDisk::new();
    let node = Node::start(env(&disk), config()).await.unwrap();
    let user = user();
    let keys: Vec<Key> = (0..2000).map(key).collect();
    let adds = keys
        .iter()
        .map(|key| node.add(&user, key, "x".repeat(1000).into(), true, None, Terms::usual()));
    let begun = tokio::time::Instant::now();
    let (answers, ()) = tokio::join!(join_all(adds), node.stop());
    assert!(answers.iter().any(Result::is_ok));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "a virtual {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_stopped_leaves_its_folder_alone_and_can_be_started_again_at_once() {
    let disk = MemoryDisk::new();
    let (user, key) = (user(), key(0));
    for round in 1..4 {
        let node = Node::start(env(&disk), config()).await.unwrap();
        node.add(&user, &key, "value".into(), true, None, Terms::usual())
            .await
            .unwrap();
        assert_eq!(node.count(&user, &key, Terms::usual()).await.unwrap(), round);
        // It is stopped while a shard waits to be reopened.
        node.kill_shard_of(&user, &key);
        while node.is_ready() {
            tokio::task::yield_now().await;
        }
        node.stop().await;
        let reads = disk.reads();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(disk.reads(), reads, "nobody holds the lock, and somebody reads");
    }
    for _ in 0..20 {
        Node::start(env(&disk), config()).await.unwrap().stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn writes_that_come_after_a_stop_are_all_refused() {
    let disk = MemoryDisk::new();
    let node = Node::start(env(&disk), config()).await.unwrap();
    node.stop().await;
    let (user, keys) = (user(), [key(0), key(1), key(2)]);
    let adds = keys
        .iter()
        .map(|key| node.add(&user, key, "late".into(), true, None, Terms::usual()));
    let answers = tokio::time::timeout(Duration::from_secs(60), join_all(adds)).await;
    let answers = answers.expect("a write after the stop was never answered");
    let refused = Err(OpError::ShardUnavailable { maybe_applied: false });
    assert!(answers.iter().all(|answer| *answer == refused), "{answers:?}");
}
