//! A whole node on a disk in memory.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::env::Blocking;
use crate::node::Terms;
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
