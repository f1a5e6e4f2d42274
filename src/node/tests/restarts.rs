//! A shard that fails or dies, and is opened again.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_failed_sync_restarts_the_shard_and_what_was_acknowledged_is_there() {
    let disk = MemoryDisk::new();
    let node = Node::start(env(&disk), config()).await.unwrap();
    let (user, key) = (user(), key(0));
    node.add(&user, &key, "first".into(), true, None, Terms::usual())
        .await
        .unwrap();
    let failing = &disk.faults().fail_sync;
    failing.store(true, std::sync::atomic::Ordering::Relaxed);
    let refused = node.add(&user, &key, "second".into(), true, None, Terms::usual()).await;
    assert_eq!(refused, Err(OpError::ShardUnavailable { maybe_applied: true }));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!node.is_ready(), "it is not opened while syncs fail");
    failing.store(false, std::sync::atomic::Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(node.is_ready());
    node.add(&user, &key, "third".into(), true, None, Terms::usual())
        .await
        .unwrap();
    let count = node.count(&user, &key, Terms::usual()).await.unwrap();
    assert!((2..=3).contains(&count), "{count} values");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn writes_that_a_dead_actor_never_took_are_answered_although_a_reader_of_it_lives_on() {
    for by_kill in [false, true] {
        let disk = MemoryDisk::new();
        let slow = Env {
            blocking: Arc::new(Slow),
            ..env(&disk)
        };
        let node = Node::start(slow, config()).await.unwrap();
        let (user, key) = (user(), key(0));
        node.add(&user, &key, "first".into(), true, None, Terms::usual())
            .await
            .unwrap();
        let mut reader = node.get(&user, &key, 0, u64::MAX, Terms::usual()).await.unwrap();
        let failing = &disk.faults().fail_sync;
        failing.store(!by_kill, std::sync::atomic::Ordering::Relaxed);
        let late = async {
            tokio::time::sleep(SLOW / 2).await;
            if by_kill {
                node.kill_shard_of(&user, &key);
            }
            node.add(&user, &key, "never taken".into(), true, None, Terms::usual())
                .await
        };
        let both = async { tokio::join!(node.add(&user, &key, "second".into(), true, None, Terms::usual()), late) };
        let answers = tokio::time::timeout(Duration::from_secs(60), both).await;
        let (second, late) = answers.expect("a write to a dying actor was never answered");
        assert_eq!(second, Err(OpError::ShardUnavailable { maybe_applied: true }));
        assert_eq!(late, Err(OpError::ShardUnavailable { maybe_applied: false }));
        failing.store(false, std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(node.is_ready());
        assert_eq!(node.figures()[0].waiting_requests, 0);
        assert_eq!(reader.next(1000).await.unwrap().len(), 1);
        node.stop().await;
    }
}

/// Adds until it is said to be done; a retry carries the same id.
async fn add_surely(node: &Node, key: &Key, text: &str, finish: bool, id: RequestId) {
    loop {
        let user = user();
        let add = node.add(&user, key, text.to_owned().into(), finish, Some(id), Terms::usual());
        match tokio::time::timeout(Duration::from_secs(60), add).await {
            Err(_) => panic!("a write was never answered"),
            Ok(Ok(_)) => return,
            Ok(Err(OpError::ShardUnavailable { .. })) => tokio::time::sleep(Duration::from_millis(1)).await,
            Ok(Err(error)) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shard_that_dies_again_and_again_under_load_loses_and_doubles_nothing() {
    const WRITERS: usize = 8;
    const VALUES: usize = 300;
    const DEATHS: usize = 5;
    let disk = MemoryDisk::new();
    let threads = Env {
        blocking: crate::os::env().blocking,
        ..env(&disk)
    };
    let node = Node::start(threads, config()).await.unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let node = node.clone();
        tokio::spawn(async move {
            let key = key(writer);
            let mut expected = Vec::new();
            for index in 0..VALUES {
                let (front, back) = (format!("{index} {}", "x".repeat(index)), "y".repeat(index % 7));
                let id = |part: u8| {
                    RequestId(
                        [part, writer as u8, index as u8, (index >> 8) as u8]
                            .repeat(4)
                            .try_into()
                            .unwrap(),
                    )
                };
                if index % 3 == 0 {
                    add_surely(&node, &key, &front, false, id(1)).await;
                    add_surely(&node, &key, &back, true, id(2)).await;
                } else {
                    add_surely(&node, &key, &format!("{front}{back}"), true, id(3)).await;
                }
                expected.push(format!("{front}{back}"));
                if index % 10 == 9 {
                    assert!(list_of(&node, &key).await == expected, "writer {writer} after {index}");
                }
            }
        })
    });
    let writing = join_all(writers.collect::<Vec<_>>());
    let killing = async {
        // The pause before it is opened again doubles each time.
        for death in 1..=DEATHS as u64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            while !node.is_ready() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            node.kill_shard_of(&user(), &key(0));
            // Who is killed once more before anybody has noticed dies once.
            while node.figures()[0].restarts < death {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let (written, ()) = tokio::join!(writing, killing);
    for written in written {
        written.unwrap();
    }
    assert_eq!(node.figures()[0].restarts, DEATHS as u64);
    node.stop().await;
}
