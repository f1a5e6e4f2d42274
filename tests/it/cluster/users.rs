//! Users that are changed through one node and known to all.

use std::time::{Duration, Instant};

use serde_json::json;

use super::rig::{Cluster, ensure, wait_for};
use crate::common::calls::Caller;
use crate::common::password_hash;

/// Until a change that was acknowledged counts at the other nodes: replication, and one Argon2id run on a busy machine.
const KNOWN_MAX: Duration = Duration::from_secs(3);

fn status_at(cluster: &Cluster, user: &Caller, index: usize) -> u16 {
    user.at(cluster.http(index)).post("/list_keys", json!({})).status
}

/// Until these nodes, which know the user well, refuse the credential.
fn wait_refused(cluster: &Cluster, user: &Caller, nodes: &[usize]) {
    let changed = Instant::now();
    for index in nodes {
        wait_for("the credential is refused", || {
            let status = status_at(cluster, user, *index);
            ensure(status == 401, || format!("node {index} answers {status}"))
        });
    }
    let took = changed.elapsed();
    println!("refused by {nodes:?} {took:?} after the change");
    assert!(took < KNOWN_MAX, "{took:?}");
}

#[test]
fn a_changed_password_and_a_removed_user_count_at_all_nodes_at_once() {
    let cluster = Cluster::new();
    let ann = cluster.user("ann");
    let bob = cluster.user("bob");
    for user in [&ann, &bob] {
        assert_eq!([0, 1, 2].map(|index| status_at(&cluster, user, index)), [200; 3]);
    }
    let passwd = |index: usize, hash: &str| {
        let body = json!({"name": "ann", "password_hash": hash});
        cluster.admin(index).call("/users/passwd", body);
    };
    let renewed = Caller::new(cluster.http(0), "ann", &password_hash("another one"));
    passwd(0, &renewed.hash);
    wait_refused(&cluster, &ann, &[1, 2, 0]);
    assert_eq!([0, 1, 2].map(|index| status_at(&cluster, &renewed, index)), [200; 3]);

    cluster.admin(1).remove_user("bob");
    wait_refused(&cluster, &bob, &[2, 0, 1]);

    // What comes to a node that stood still, it goes by as soon as it has it.
    cluster.freeze(2);
    passwd(1, &ann.hash);
    wait_refused(&cluster, &renewed, &[0, 1]);
    cluster.thaw(2);
    wait_refused(&cluster, &renewed, &[2]);
    assert_eq!([0, 1, 2].map(|index| status_at(&cluster, &ann, index)), [200; 3]);
}
