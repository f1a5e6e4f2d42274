//! The node's actors on a disk in memory.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::*;
use crate::env::{Blocking, BoxFuture, Datagrams, Entropy, Env, Listener, Net, Stream, WallClock};
use crate::shard::ShardConfig;
use crate::store::memory_disk::MemoryDisk;
use crate::types::{Key, RequestId, UserId, WallMs};

mod hanging;
mod series;
mod starting;
mod supervision;
mod turns;

/// Runs every job where it is submitted.
struct Inline;

impl Blocking for Inline {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

struct NoNet;

impl Net for NoNet {
    fn listen(&self, _addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn datagrams(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

struct Frozen;

impl WallClock for Frozen {
    fn now(&self) -> WallMs {
        WallMs(1_000_000)
    }
}

struct Counted(std::sync::atomic::AtomicU64);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) {
        let next = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        for (byte, from) in bytes.iter_mut().zip(next.to_le_bytes().iter().cycle()) {
            *byte = *from;
        }
    }
}

fn env(disk: &MemoryDisk) -> Env {
    Env {
        disk: disk.as_disk(),
        net: Arc::new(NoNet),
        wall: Arc::new(Frozen),
        entropy: Arc::new(Counted(std::sync::atomic::AtomicU64::new(0))),
        blocking: Arc::new(Inline),
    }
}

fn config() -> NodeConfig {
    NodeConfig {
        shards: 1,
        shard: ShardConfig {
            log_bytes: 128 << 10,
            fill_bytes: 64 << 10,
            ..ShardConfig::default()
        },
        ..NodeConfig::new(PathBuf::from("/data"))
    }
}

fn user() -> UserId {
    UserId::new("u").unwrap()
}

fn key(index: usize) -> Key {
    Key::new(&format!("key {index}")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_write_is_answered_while_logs_give_way_to_one_another() {
    let disk = MemoryDisk::new();
    let node = Node::start(env(&disk), config()).await.unwrap();
    for round in 0..20 {
        let user = user();
        let keys: Vec<Key> = (0..40).map(key).collect();
        let adds = keys
            .iter()
            .map(|key| node.add(&user, key, "x".repeat(1000).into(), true, None, Terms::usual()));
        let answers = tokio::time::timeout(Duration::from_secs(30), join_all(adds)).await;
        let answers = answers.unwrap_or_else(|_| panic!("a write of round {round} was never answered"));
        assert!(answers.iter().all(Result::is_ok));
    }
    for index in 0..40 {
        assert_eq!(node.count(&user(), &key(index), Terms::usual()).await.unwrap(), 20);
    }
    node.stop().await;
}

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
async fn damage_that_meets_a_full_disk_does_not_end_the_node() {
    let disk = MemoryDisk::new();
    let node = Node::start(env(&disk), config()).await.unwrap();
    let (user, key) = (user(), key(0));
    for _ in 0..3 {
        node.add(&user, &key, "value".into(), true, None, Terms::usual())
            .await
            .unwrap();
    }
    let dir = PathBuf::from("/data/shard-000-of-001");
    let log = crate::store::disk::Disk::list(&disk, &dir)
        .unwrap()
        .into_iter()
        .map(|entry| dir.join(entry.name))
        .find(|path| disk.content(path).is_some_and(|bytes| bytes.starts_with(b"KVLG")))
        .unwrap();
    let mut bytes = disk.content(&log).unwrap();
    bytes[512 + 20] ^= 1;
    disk.put(&log, bytes);
    disk.faults().free_bytes.store(0, std::sync::atomic::Ordering::Relaxed);
    node.kill_shard_of(&user, &key);
    tokio::time::sleep(Duration::from_secs(20)).await;
    disk.faults()
        .free_bytes
        .store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(node.is_ready(), "the shard is back");
    assert!(matches!(
        node.count(&user, &key, Terms::usual()).await,
        Err(OpError::Damaged(_))
    ));
    node.stop().await;
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
async fn a_shard_that_cannot_be_opened_does_not_keep_the_others_from_serving() {
    let disk = MemoryDisk::new();
    let config = || NodeConfig { shards: 2, ..config() };
    let node = Node::start(env(&disk), config()).await.unwrap();
    let user = user();
    for index in 0..20 {
        node.add(&user, &key(index), "kept".into(), true, None, Terms::usual())
            .await
            .unwrap();
    }
    node.stop().await;
    let bad = |dir: Option<&str>| *disk.faults().bad_folder.lock() = dir.map(PathBuf::from);
    bad(Some("/data/shard-000-of-002"));
    let node = Node::start(env(&disk), config()).await.unwrap();
    assert!(!node.is_ready());
    let mut unavailable = 0;
    for index in 0..20 {
        match node.count(&user, &key(index), Terms::usual()).await {
            Ok(count) => assert_eq!(count, 1),
            Err(error) => {
                assert_eq!(error, OpError::ShardUnavailable { maybe_applied: false });
                unavailable += 1;
            }
        }
    }
    assert!((1..20).contains(&unavailable));
    bad(None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(node.is_ready());
    for index in 0..20 {
        assert_eq!(node.count(&user, &key(index), Terms::usual()).await.unwrap(), 1);
    }
    node.stop().await;
}

/// Jobs that the actor waits for take their time, and other tasks go on meanwhile.
struct Slow;

const SLOW: Duration = Duration::from_millis(10);

impl Blocking for Slow {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn run_here<'a>(&'a self, job: Box<dyn FnOnce() + Send + 'a>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            tokio::time::sleep(SLOW).await;
            job();
        })
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

#[tokio::test(start_paused = true)]
async fn a_slow_disk_is_forgotten_when_nothing_is_written_any_more() {
    let disk = MemoryDisk::new();
    let slow = Env {
        blocking: Arc::new(Slow),
        ..env(&disk)
    };
    let node = Node::start(slow, config()).await.unwrap();
    for index in 0..40 {
        node.add(&user(), &key(index), "v".into(), true, None, Terms::usual())
            .await
            .unwrap();
    }
    assert!(node.commit_time() > SLOW / 2);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(
        node.commit_time() < Duration::from_millis(1),
        "{:?}",
        node.commit_time()
    );
    node.stop().await;
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

/// The list, from one shard that did not die meanwhile.
async fn list_of(node: &Node, key: &Key) -> Vec<String> {
    loop {
        let Ok(mut reader) = node.get(&user(), key, 0, u64::MAX, Terms::usual()).await else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let (mut values, mut open) = (Vec::new(), String::new());
        loop {
            let fragments = reader.next(2000).await.unwrap();
            if fragments.is_empty() {
                return values;
            }
            // The snapshot is kept while the shard goes on, and dies.
            tokio::task::yield_now().await;
            for fragment in fragments {
                open.push_str(fragment.text.as_ref());
                if fragment.ends_value {
                    values.push(std::mem::take(&mut open));
                }
            }
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
