use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::rig::{Rig, with_admin, with_user};
use crate::api::{Member, MemberState};
use crate::types::NodeId;

pub fn member(node: u64, alive: bool) -> Member {
    Member {
        node: NodeId(node).to_string(),
        peer: format!("10.0.0.{node}:7000"),
        http: format!("10.0.0.{node}:8000"),
        zone: "default".to_owned(),
        weight: 100,
        state: MemberState::Up,
        alive,
        slots: 1024,
        lag_ops: alive.then_some(5),
        lag_bytes: alive.then_some(500),
        lag_seconds: alive.then_some(0.5),
        unsynced_slots: alive.then_some(0),
        clock_skew_ms: alive.then_some(-3),
        quarantined_segments: alive.then_some(0),
        quorum_failures: alive.then_some(2),
        stream_ops_per_s: alive.then_some(12.5),
        stream_bytes_per_s: alive.then_some(1000.0),
    }
}

#[tokio::test]
async fn the_status_names_every_member_with_all_that_is_described() {
    let rig = Rig::start();
    *rig.store.members.lock() = vec![member(1, true), member(2, false)];
    let reply = rig.post("/cluster/status", &with_admin(json!({}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let status = reply.json();
    assert_eq!(
        (&status["cluster"], &status["node"], &status["replication"]),
        (&json!("kv"), &json!("0000000000000001"), &json!(3))
    );
    assert_eq!(status["members"][1]["alive"], json!(false));
    let described = rig.get("/openapi.json").await.json();
    let schema = &described["components"]["schemas"]["Member"];
    let named = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(named(&status["members"][0]), named(&schema["properties"]));
    // Of one that does not answer there is only what this node knows by itself.
    let required = schema["required"].as_array().unwrap().iter();
    let required: BTreeSet<String> = required.map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(named(&status["members"][1]), required);
}

#[tokio::test]
async fn a_lost_member_is_removed_or_replaced_and_one_that_lives_is_not() {
    let rig = Rig::start();
    *rig.store.members.lock() = vec![member(1, true), member(2, false), member(3, false)];
    let remove = |node: &str| with_admin(json!({ "node": node }));
    let reply = rig.post("/cluster/remove", &remove("0000000000000001")).await;
    assert_eq!(
        (reply.status, reply.text().contains("stop it first")),
        (409, true),
        "{}",
        reply.text()
    );
    let unknown = "0000000000000009";
    let reply = rig.post("/cluster/remove", &remove(unknown)).await;
    assert_eq!(
        (reply.status, reply.text().contains(unknown)),
        (404, true),
        "{}",
        reply.text()
    );
    let reply = rig.post("/cluster/remove", &remove("10.0.0.2:7000")).await;
    assert_eq!(
        (reply.status, reply.text().contains("16 hexadecimal digits")),
        (404, true),
        "{}",
        reply.text()
    );
    assert_eq!(
        rig.post("/cluster/remove", &remove("0000000000000002")).await.text(),
        r#"{"status":"OK"}"#
    );
    let replace = with_admin(json!({"old": "0000000000000003", "new": "0000000000000002"}));
    assert_eq!(rig.post("/cluster/replace", &replace).await.status, 200);
    let states: Vec<MemberState> = rig.store.members.lock().iter().map(|member| member.state).collect();
    assert_eq!(states, [MemberState::Up, MemberState::Up, MemberState::Removed]);
}

#[tokio::test]
async fn the_cluster_is_for_admins_and_a_single_node_says_that_it_is_none() {
    let rig = Rig::start();
    let node = "0000000000000001";
    for (path, body) in [
        ("/cluster/status", json!({})),
        ("/cluster/remove", json!({ "node": node })),
        ("/cluster/remove", json!({ "node": "nobody" })),
        ("/cluster/replace", json!({ "old": node, "new": node })),
    ] {
        assert_eq!(rig.post(path, &with_user(body)).await.status, 403, "{path}");
    }
    let reply = rig.post("/cluster/status", &with_admin(json!({}))).await;
    assert_eq!(
        (reply.status, reply.text()),
        (409, r#"{"detail":"this node is not part of a cluster"}"#)
    );
}
