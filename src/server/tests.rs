//! A whole node on a disk in memory.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::env::Blocking;
use crate::http::Backend;
use crate::net::KeyRing;
use crate::node::cluster::tests::free_port;
use crate::node::{ClusterConfig, Terms};
use crate::os;
use crate::store::memory_disk::MemoryDisk;
use crate::types::Key;

/// Runs every job where it is submitted.
struct Inline;

impl Blocking for Inline {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

fn env(disk: &MemoryDisk) -> Env {
    Env {
        disk: disk.as_disk(),
        blocking: Arc::new(Inline),
        ..os::env()
    }
}

fn config(admin: &UserId) -> ServerConfig {
    ServerConfig {
        node: NodeConfig::new(PathBuf::from("/data")),
        front: FrontConfig::default(),
        listen: ([127, 0, 0, 1], 0).into(),
        first_admin: Some(FirstAdmin {
            user: admin.clone(),
            password_hash: "secret".to_owned(),
        }),
        password_cost: PasswordCost::new(8, 1).expect("within Argon2's limits"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_starts_while_its_first_admin_is_being_removed_and_makes_it_anew_when_that_is_done() {
    let (disk, ann) = (MemoryDisk::new(), UserId::new("ann").unwrap());
    let (record, key) = (Key::new("user/ann").unwrap(), Key::new("key").unwrap());
    // Not decided yet: that takes some seconds.
    let mark = r#"{"v":1,"name":"ann","state":"removing","id":"1","decided":false}"#;
    let node = Node::start(env(&disk), config(&ann).node).await.unwrap();
    for (user, key, text) in [(&UserId::system(), &record, mark), (&ann, &key, "old")] {
        node.add(user, key, text.to_owned().into(), true, None, Terms::usual())
            .await
            .unwrap();
    }
    node.stop().await;

    let server = Server::start(env(&disk), config(&ann)).await.unwrap();
    let login = || server.users().verify("ann", "secret", [127, 0, 0, 1].into());
    let made = async {
        while login().await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), made).await.unwrap();
    assert_eq!(server.node().count(&ann, &key, Terms::usual()).await, Ok(0));
    server.stop().await;
}

/// Keeps every job.
#[derive(Default)]
struct Held(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl Blocking for Held {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.lock().push(job);
    }
}

/// The only node of its cluster.
fn founder(folder: &TempDir) -> NodeConfig {
    let mut config = NodeConfig::new(folder.path().join("data"));
    let listen = free_port();
    config.cluster = Some(ClusterConfig {
        listen,
        advertise: listen,
        http: listen,
        join: Vec::new(),
        founds: true,
        keys: KeyRing::parse(&"ab".repeat(32)).unwrap(),
        tls: None,
        name: "test".to_owned(),
        zone: "z".to_owned(),
        weight: 100,
        replication: 3,
    });
    config
}

#[tokio::test]
async fn a_founder_is_not_ready_before_somebody_can_log_in() {
    let (folder, ann, held) = (
        TempDir::new().unwrap(),
        UserId::new("ann").unwrap(),
        Arc::new(Held::default()),
    );
    let node = Node::start(os::env(), founder(&folder)).await.unwrap();
    let slow = Env {
        blocking: held.clone(),
        ..os::env()
    };
    let ServerConfig {
        first_admin,
        password_cost,
        ..
    } = config(&ann);
    let users = Users::start(slow, node.clone(), password_cost);
    let live = Live {
        node: node.clone(),
        users: users.clone(),
    };
    let made = tokio::spawn({
        let (node, users) = (node.clone(), users.clone());
        async move { see_to_admin(&node, &users, first_admin.unwrap()).await }
    });
    // The password is being hashed.
    while held.0.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.why_not_ready(), None);
    for why in [live.why_not_ready(), live.why_not_counting()] {
        assert!(why.is_some_and(|why| why.contains("\"ann\"")));
    }
    held.0.lock().drain(..).for_each(|job| job());
    made.await.unwrap().unwrap();
    // On a slow machine it was not waited for to the end.
    while live.why_not_ready().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(live.why_not_counting(), None);
    node.stop().await;
}
