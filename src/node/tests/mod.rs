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
mod restarts;
mod series;
mod starting;
mod stopping;
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
