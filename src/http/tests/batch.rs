use serde_json::{Value, json};

use super::fake::{FRAGMENT_BYTES, LONG, REFUSED};
use super::rig::{Rig, with_user};
use crate::api::BATCH_ANSWER_BYTES_MAX;
use crate::http::FrontConfig;
use crate::node::OpError;
use crate::types::Consistency;

async fn results(rig: &Rig, operations: Value) -> Vec<Value> {
    let reply = rig.post("/batch", &with_user(json!({"operations": operations}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["results"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_get_sees_what_the_batch_wrote_before_it() {
    let rig = Rig::start();
    let operations = json!([
        {"op": "add_value", "key": "a", "value": "1"},
        {"op": "add_value", "key": "b", "value": "x", "finish_value": false},
        {"op": "get_value", "key": "a"},
        {"op": "add_value", "key": "a", "value": "2", "finish_value": null},
        {"op": "get_value", "key": "a", "offset": 1},
        {"op": "get_value", "key": "a", "count_only": true},
        {"op": "clear_key", "key": "a"},
        {"op": "get_value", "key": "a"},
    ]);
    let expected = [
        json!({"status_code": 200, "status": "OK"}),
        json!({"status_code": 200, "status": "IN_PROGRESS"}),
        json!({"status_code": 200, "key": "a", "value": ["1"]}),
        json!({"status_code": 200, "status": "OK"}),
        json!({"status_code": 200, "key": "a", "value": ["2"]}),
        json!({"status_code": 200, "key": "a", "count": 2}),
        json!({"status_code": 200, "status": "OK"}),
        json!({"status_code": 200, "key": "a", "value": []}),
    ];
    assert_eq!(results(&rig, operations).await, expected);
    assert!(results(&rig, json!([])).await.is_empty());
}

#[tokio::test]
async fn many_operations_on_one_key_keep_their_order() {
    let rig = Rig::start();
    let add = |n: u32| json!({"op": "add_value", "key": format!("k{}", n % 300), "value": n.to_string()});
    let found = results(&rig, (0..3000).map(add).collect()).await;
    assert!(found.len() == 3000 && found.iter().all(|result| result["status_code"] == 200));
    let expected: Vec<String> = (0..10).map(|round| (round * 300 + 7).to_string()).collect();
    assert_eq!(rig.store.values("123", "k7"), expected);
}

#[tokio::test]
async fn an_operation_that_fails_fails_alone() {
    let rig = Rig::start();
    *rig.store.fail.lock() = Some(OpError::DiskFull);
    let found = results(&rig, json!([{"op": "clear_key", "key": "k"}])).await;
    assert_eq!(found[0]["status_code"], 507);
    assert!(found[0]["detail"].as_str().unwrap().contains("the disk is full"));
}

#[tokio::test]
async fn after_a_write_that_failed_the_rest_of_its_key_is_not_carried_out() {
    let rig = Rig::start();
    *rig.store.fail.lock() = Some(OpError::DiskFull);
    let found = results(
        &rig,
        json!([{"op": "add_value", "key": "k", "value": "1"}, {"op": "add_value", "key": "k", "value": "2"}]),
    )
    .await;
    assert_eq!(found[0]["status_code"], 507);
    assert_eq!(found[1]["status_code"], 503);
    assert!(found[1]["detail"].as_str().unwrap().starts_with("not carried out"));
    assert!(rig.store.values("123", "k").is_empty());
}

#[tokio::test]
async fn what_a_batch_reads_is_bounded() {
    let rig = Rig::start();
    let fits = (BATCH_ANSWER_BYTES_MAX / FRAGMENT_BYTES) * 2 / 3;
    let operations = json!([
        {"op": "get_value", "key": format!("{LONG}{fits}")},
        {"op": "get_value", "key": format!("{LONG}{fits}")},
        {"op": "add_value", "key": "k", "value": "v"},
    ]);
    let found = results(&rig, operations).await;
    let mut statuses: Vec<u64> = found[..2]
        .iter()
        .map(|result| result["status_code"].as_u64().unwrap())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 413]);
    assert_eq!(found[2]["status_code"], 200);
    let refused = found.iter().find(|result| result["status_code"] == 413).unwrap();
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains(&BATCH_ANSWER_BYTES_MAX.to_string()) && detail.contains("get_value"));
}

#[tokio::test]
async fn what_a_batch_reads_takes_permits_of_answers() {
    let rig = Rig::with(FrontConfig {
        answer_bytes_in_flight_max: 200_000,
        ..FrontConfig::default()
    });
    let found = results(&rig, json!([{"op": "get_value", "key": format!("{LONG}40")}])).await;
    assert_eq!(found[0]["status_code"], 503);
    assert_eq!(
        results(&rig, json!([{"op": "get_value", "key": format!("{LONG}10")}])).await[0]["status_code"],
        200
    );
    assert_eq!(rig.front.free_answer_bytes(), 200_000);
}

#[tokio::test]
async fn a_long_fragment_takes_room_beside_what_is_made_of_it() {
    const MIB: usize = 1 << 20;
    let rig = Rig::with(FrontConfig {
        answer_bytes_in_flight_max: 4 * MIB,
        ..FrontConfig::default()
    });
    for (bytes, status) in [(3 * MIB, 503), (3 * MIB / 2, 200)] {
        let get = json!([{"op": "get_value", "key": format!("{LONG}0+{bytes}")}]);
        assert_eq!(results(&rig, get).await[0]["status_code"], status);
        assert_eq!(rig.front.free_answer_bytes(), 4 * MIB);
    }
}

#[tokio::test]
async fn a_batch_whose_answer_has_no_room_is_refused_before_anything_is_done() {
    let rig = Rig::with(FrontConfig {
        answer_bytes_in_flight_max: 800,
        ..FrontConfig::default()
    });
    let adds = |count| {
        let add = json!({"op": "add_value", "key": "k", "value": "v"});
        with_user(json!({"operations": vec![add; count]}))
    };
    assert_eq!(rig.post("/batch", &adds(10)).await.status, 503);
    assert!(rig.store.values("123", "k").is_empty());
    assert_eq!(rig.post("/batch", &adds(3)).await.status, 200);
    assert_eq!(rig.store.values("123", "k").len(), 3);
}

#[tokio::test]
async fn an_operation_has_the_terms_of_its_batch_unless_it_has_its_own() {
    let rig = Rig::start();
    let batch = json!({"consistency": "one", "deadline_ms": 50_000, "operations": [
        {"op": "get_value", "key": "a"},
        {"op": "clear_key", "key": "b", "consistency": "all"},
        {"op": "add_value", "key": "c", "value": "v", "deadline_ms": 20_000},
    ]});
    assert_eq!(rig.post("/batch", &with_user(batch)).await.status, 200);
    let mut terms = rig.store.terms.lock().clone();
    let in_tens = |left: std::time::Duration| left.as_secs_f64().div_euclid(10.0) as u64;
    terms.sort_unstable();
    let terms: Vec<_> = terms.into_iter().map(|(level, left)| (level, in_tens(left))).collect();
    assert_eq!(
        terms,
        [(Consistency::One, 1), (Consistency::One, 4), (Consistency::All, 4)]
    );
}

#[tokio::test]
async fn adds_to_one_key_that_follow_each_other_go_together_as_many_as_there_is_room_for() {
    let rig = Rig::start();
    let add = |value: usize| json!({"op": "add_value", "key": "a", "value": value.to_string()});
    let mut operations: Vec<Value> = (0..70).map(add).collect();
    operations.push(json!({"op": "get_value", "key": "a"}));
    operations.extend([add(70), add(71)]);
    operations.push(json!({"op": "add_value", "key": "a", "value": "72", "consistency": "one"}));
    operations.push(json!({"op": "clear_key", "key": "a"}));
    operations.push(add(73));
    let found = results(&rig, json!(operations)).await;
    assert!(found.len() == 76 && found.iter().all(|result| result["status_code"] == 200));
    assert_eq!(*rig.store.series.lock(), [64, 6, 2]);
    let shown: Vec<String> = (0..70).map(|value| value.to_string()).collect();
    assert_eq!(found[70]["value"], json!(shown));
    assert_eq!(rig.store.values("123", "a"), ["73"]);
    // Of many keys each has less room.
    let operations = (0..600).map(|n| json!({"op": "add_value", "key": (n % 100).to_string(), "value": "v"}));
    results(&rig, operations.collect()).await;
    assert!(rig.store.series.lock()[3..].iter().all(|adds| *adds == 2));
}

#[tokio::test]
async fn what_is_refused_among_adds_that_go_together_is_told_so_and_nothing_comes_behind_it() {
    let rig = Rig::start();
    let add = |value: &str| json!({"op": "add_value", "key": "k", "value": value, "finish_value": value != "a"});
    let found = results(&rig, json!([add("1"), add("a"), add(REFUSED), add("3"), add("4")])).await;
    let statuses: Vec<_> = found
        .iter()
        .map(|result| result["status_code"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 200, 413, 503, 503]);
    assert_eq!(found[1]["status"], "IN_PROGRESS");
    assert!(found[4]["detail"].as_str().unwrap().starts_with("not carried out"));
    assert_eq!(rig.store.values("123", "k"), ["1"]);
}
