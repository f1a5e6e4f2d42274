//! Who belongs: joining, replacing and removing when the cluster holds data.

use super::rig::{Cluster, ensure, wait_for};
use crate::common::http::get;
use crate::common::said;

#[test]
fn a_node_cannot_join_a_cluster_with_data_but_can_take_a_lost_ones_place() {
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    let values: Vec<String> = (0..20).map(|number| format!("value {number}")).collect();
    values.iter().for_each(|value| user.add("key", value));

    cluster.start(3);
    let newcomer = cluster.peer(3).to_string();
    wait_for("the newcomer is told why", || {
        let text = said(&cluster.cli(2, &["cluster", "status"]));
        ensure(text.contains("joining"), || text)?;
        let members = cluster.status(0)?;
        let member = members.iter().find(|member| member["peer"] == newcomer);
        ensure(member.is_some_and(|member| member["state"] == "joining"), || {
            format!("{members:?}")
        })?;
        let log = cluster.node(3).log();
        let told = log.contains("not let into the cluster") && log.contains("the cluster holds user data");
        ensure(told, || log)
    });
    assert_eq!(get(cluster.http(3), "/readyz").status, 503);

    let lost = cluster.id(1);
    let refused = cluster.cli(0, &["cluster", "remove", &lost]);
    assert!(!refused.status.success());
    assert!(said(&refused).contains("holds user data"), "{}", said(&refused));
    let refused = cluster.cli(0, &["cluster", "replace", &lost, &cluster.peer(2).to_string()]);
    assert!(!refused.status.success());
    assert!(said(&refused).contains("is a member already"), "{}", said(&refused));

    cluster.kill(1);
    let replaced = cluster.cli(0, &["cluster", "replace", &lost, &newcomer]);
    assert!(replaced.status.success(), "{}", said(&replaced));
    cluster.wait_whole();
    for node in [0, 2] {
        let again = cluster.cli(node, &["cluster", "replace", &lost, &cluster.id(3)]);
        assert!(again.status.success(), "it is done already: {}", said(&again));
    }
    assert_eq!(cluster.wait_equal(&user, &["key".to_owned()])[0], values);
    let members = cluster.status(2).unwrap();
    let old = members.iter().find(|member| member["node"] == lost).unwrap();
    assert_eq!(old["state"], "removed");

    // The one that was lost learns that it belongs no more.
    cluster.start(1);
    wait_for("the old one is told", || {
        let log = cluster.node(1).log();
        ensure(log.contains("was removed from the cluster"), || log)
    });
    assert_eq!(get(cluster.http(1), "/readyz").status, 503);
    cluster.kill(1);
    user.add("key", "after");
    let held = cluster.wait_equal(&user, &["key".to_owned()]);
    assert_eq!(held[0].last().unwrap(), "after");
}
