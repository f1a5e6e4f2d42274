//! Nodes that are killed, and nodes that are frozen.

use super::load::{Kind, Load};
use super::rig::Cluster;

/// Memory that the others may take while one is frozen, KiB.
const GROWTH_KIB_MAX: u64 = 64 << 10;

#[test]
fn each_node_killed_in_turn_fails_no_request_and_loses_and_doubles_nothing() {
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    let load = Load::start(&cluster, &user, Kind::default());
    for index in [0, 1, 2] {
        load.wait_done(150);
        cluster.kill(index);
        load.wait_done(150);
        cluster.start(index);
        cluster.wait_whole();
    }
    load.wait_done(50);
    load.finish().check(&cluster, &user);
}

#[test]
fn a_frozen_node_fails_no_request_and_takes_no_memory_of_the_others() {
    let cluster = Cluster::new();
    let user = cluster.user("writer");
    let kind = Kind {
        text_max: 60_000,
        ..Kind::default()
    };
    let load = Load::start(&cluster, &user, kind);
    load.wait_done(200);
    let memory = |index: usize| cluster.node(index).resident_kib();
    let before = [memory(0), memory(1)];
    cluster.freeze(2);
    load.wait_done(600);
    let after = [memory(0), memory(1)];
    cluster.thaw(2);
    load.wait_done(100);
    load.finish().check(&cluster, &user);
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + GROWTH_KIB_MAX, "from {before} to {after} KiB");
    }
}

#[test]
fn nodes_stopped_one_after_the_other_fail_no_request_and_a_power_cut_loses_nothing() {
    let mut cluster = Cluster::new();
    let user = cluster.user("rolling");
    let load = Load::start(&cluster, &user, Kind::default());
    for index in [2, 1, 0] {
        load.wait_done(50);
        cluster.stop(index);
        load.wait_done(50);
        cluster.start(index);
        cluster.wait_whole();
    }
    load.finish().check(&cluster, &user);

    let user = cluster.user("power cut");
    let kind = Kind {
        patient: true,
        ..Kind::default()
    };
    let load = Load::start(&cluster, &user, kind);
    load.wait_done(150);
    for index in [0, 1, 2] {
        cluster.kill(index);
    }
    for index in [2, 0, 1] {
        cluster.start(index);
    }
    load.wait_done(50);
    load.finish().check(&cluster, &user);
}
