//! Users that are changed through one node and known to all.

use std::time::Instant;

use serde_json::json;

use super::rig::{Cluster, ensure, wait_for};
use crate::common::calls::Caller;
use crate::common::password_hash;

/// So often a node may still answer by what was before a change, although an add that was sent after the change is there already: they are of
/// two shards, of which either may have to wait for the disk. Counted in answers, which a busy machine gives more slowly; without any word
/// of the change it would go on for a minute.
const ANSWERS_BEFORE_MAX: u32 = 60;

fn status_at(cluster: &Cluster, user: &Caller, index: usize) -> u16 {
    user.at(cluster.http(index)).post("/list_keys", json!({})).status
}

/// An add that is sent now, through this node; its key.
fn add_after<'k>(cluster: &Cluster, through: usize, key: &'k str) -> &'k str {
    cluster.admin(through).add(key, "v");
    key
}

/// Until these nodes, which know the user well, refuse the credential. `later` was added after the change, which takes no longer to come there.
fn wait_refused(cluster: &Cluster, user: &Caller, later: &str, nodes: &[usize]) {
    let begun = Instant::now();
    for index in nodes {
        wait_for("the add is there", || {
            let held = cluster.held(&cluster.admin(*index), *index, later)?;
            ensure(held == ["v"], || format!("node {index} holds {held:?}"))
        });
        let mut before = 0;
        wait_for("the credential is refused", || {
            let status = status_at(cluster, user, *index);
            before += u32::from(status == 200);
            assert!(before <= ANSWERS_BEFORE_MAX, "node {index} goes on by what was before");
            ensure(status == 401, || format!("node {index} answers {status}"))
        });
        println!("{before} answers of node {index} by what was before");
    }
    println!("refused by {nodes:?} in {:?}", begun.elapsed());
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
    let later = add_after(&cluster, 0, "after ann's change");
    wait_refused(&cluster, &ann, later, &[1, 2, 0]);
    assert_eq!([0, 1, 2].map(|index| status_at(&cluster, &renewed, index)), [200; 3]);

    cluster.admin(1).remove_user("bob");
    let later = add_after(&cluster, 1, "after bob's removal");
    wait_refused(&cluster, &bob, later, &[2, 0, 1]);

    // What comes to a node that stood still, it goes by as soon as it has it.
    cluster.freeze(2);
    passwd(1, &ann.hash);
    let later = add_after(&cluster, 1, "after another change");
    wait_refused(&cluster, &renewed, later, &[0, 1]);
    cluster.thaw(2);
    wait_refused(&cluster, &renewed, later, &[2]);
    assert_eq!([0, 1, 2].map(|index| status_at(&cluster, &ann, index)), [200; 3]);
}
