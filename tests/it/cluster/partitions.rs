//! Three nodes in three network namespaces, parted in every way, and what the wires between them can do to packets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::load::{Kind, Load};
use super::rig::{Cluster, Ending, ensure, read, wait_for};
use crate::common::Chance;

#[test]
fn however_the_nodes_are_parted_no_request_fails_and_all_are_alike_afterwards() {
    let Some(mut cluster) = Cluster::in_namespaces() else {
        return;
    };
    let user = cluster.user("writer");
    let load = Load::start(&cluster, &user, Kind::default());
    load.wait_done(100);
    let wires = cluster.wires();

    // One of three is cut off: it is the minority, and says so; the others go on.
    wires.cut_both_ways(2, 0);
    wires.cut_both_ways(2, 1);
    load.wait_done(200);
    wait_for("the minority has no quorum", || {
        let body = json!({"key": "minority", "value": "v", "deadline_ms": 2000});
        let answer = user.at(cluster.http(2)).post("/add_value", body);
        ensure(answer.status == 503, || answer.text())
    });
    wires.heal();
    cluster.wait_whole();

    // It hears the others and is not heard, and then the other way around.
    wires.cut(1, 0);
    wires.cut(1, 2);
    load.wait_done(150);
    wires.heal();
    wires.cut(0, 1);
    wires.cut(2, 1);
    load.wait_done(150);
    wires.heal();
    cluster.wait_whole();

    // Two that do not hear each other, and one that hears both.
    wires.cut_both_ways(0, 1);
    load.wait_done(150);
    wires.heal();
    cluster.wait_whole();

    // Parted and killed at the same time.
    wires.cut_both_ways(2, 0);
    load.wait_done(50);
    cluster.kill(2);
    load.wait_done(50);
    cluster.start(2);
    load.wait_done(50);
    cluster.wires().heal();
    load.finish().check(&cluster, &user);
}

#[test]
fn where_nobody_has_a_quorum_nothing_is_promised_and_nothing_is_lost() {
    let Some(cluster) = Cluster::in_namespaces() else {
        return;
    };
    let user = cluster.user("writer");
    user.add("key", "before");
    cluster.wait_equal(&user, &["key".to_owned()]);
    let wires = cluster.wires();
    for (one, other) in [(0, 1), (1, 2), (2, 0)] {
        wires.cut_both_ways(one, other);
    }
    for index in 0..3 {
        wait_for("nobody has a quorum", || {
            let body = json!({"key": "key", "value": "refused", "deadline_ms": 1000});
            let answer = user.at(cluster.http(index)).post("/add_value", body);
            let told = answer.status == 503 && answer.text().contains("nothing was changed");
            ensure(told, || answer.text())
        });
        let found = cluster.held(&user, index, "key").unwrap();
        assert_eq!(found[0], "before");
    }
    wires.heal();
    cluster.wait_whole();
    user.add("key", "after");
    let held = cluster.wait_equal(&user, &["key".to_owned()]).remove(0);
    assert_eq!((held[0].as_str(), held.last().unwrap().as_str()), ("before", "after"));
    // What was refused in doubt may be there, and then it is everywhere: that is all that is left open.
    assert_eq!(read(&user, "key", "all").unwrap(), held);
}

#[test]
fn lost_and_late_packets_cost_time_and_nothing_else() {
    let Some(cluster) = Cluster::in_namespaces() else {
        return;
    };
    let wires = cluster.wires();
    let disturbed = wires.disturb("delay 30ms 20ms loss 3%");
    if !disturbed {
        println!("SKIPPED: this kernel has no netem to make packets late; they only get lost");
    }
    let user = cluster.user("writer");
    let load = Load::start(&cluster, &user, Kind::default());
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ending = Ending(&ending);
        scope.spawn(|| {
            let mut chance = Chance(5);
            while !ending.load(Ordering::Relaxed) {
                let from = chance.below(3) as usize;
                wires.cut(from, (from + 1 + chance.below(2) as usize) % 3);
                std::thread::sleep(Duration::from_millis(chance.below(100)));
                wires.heal();
                std::thread::sleep(Duration::from_millis(chance.below(300)));
            }
        });
        load.wait_done(500);
    });
    if disturbed {
        wires.calm();
    }
    load.finish().check(&cluster, &user);
}
