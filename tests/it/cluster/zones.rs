//! Five nodes in three zones: a whole zone may go.

use super::rig::{Cluster, ensure, read, wait_for};
use crate::common::calls::Caller;

const ZONES: [&str; 5] = ["a", "a", "b", "b", "c"];
const KEYS: usize = 100;

fn key(number: usize) -> String {
    format!("key {number}")
}

/// Every key has lost one replica of three, so it has one in the zone that is gone and two elsewhere; and it is served.
fn check_one_is_gone(cluster: &Cluster, user: &Caller, zone: &str, round: usize) {
    let left: Vec<usize> = cluster.running();
    assert!(left.iter().all(|index| ZONES[*index] != zone));
    for number in 0..KEYS {
        let caller = user.at(cluster.http(left[number % left.len()]));
        caller.add(&key(number), &format!("without {zone}"));
        let values = read(&caller, &key(number), "quorum").unwrap();
        assert_eq!(values.len(), round + 1, "{values:?}");
        let refused = read(&caller, &key(number), "all").unwrap_err();
        assert!(refused.contains('2') && refused.contains('3'), "{refused}");
    }
}

#[test]
fn each_zone_holds_one_replica_of_each_key_and_a_whole_zone_may_go() {
    let mut cluster = Cluster::of(5, |index, _| {
        let zone = ZONES.get(index).copied().unwrap_or("d");
        vec!["--zone".to_owned(), zone.to_owned()]
    });
    let user = cluster.user("writer");
    for number in 0..KEYS {
        user.at(cluster.http(number % 5)).add(&key(number), "with all");
    }
    let members = cluster.up(0).unwrap();
    for zone in ["a", "b", "c"] {
        let of_zone = members.iter().filter(|member| member["zone"] == zone);
        let slots: u64 = of_zone.map(|member| member["slots"].as_u64().unwrap()).sum();
        assert_eq!(slots, 1024, "zone {zone}");
    }
    for (round, zone) in ["a", "c"].into_iter().enumerate() {
        let nodes: Vec<usize> = (0..5).filter(|index| ZONES[*index] == zone).collect();
        nodes.iter().for_each(|index| cluster.kill(*index));
        wait_for("the others know", || {
            let members = cluster.up(2)?;
            let alive = members.iter().filter(|member| member["alive"] == true).count();
            ensure(alive == 5 - nodes.len(), || format!("{alive} alive"))
        });
        check_one_is_gone(&cluster, &user, zone, round + 1);
        nodes.iter().for_each(|index| cluster.start(*index));
        cluster.wait_whole();
    }
    for number in 0..KEYS {
        let values = read(&user, &key(number), "all").unwrap();
        assert_eq!(values, ["with all", "without a", "without c"]);
    }
}
