use hyper::Method;
use serde_json::{Value, json};

use super::rig::{Rig, request, with_user};
use crate::api::FIELD_ERRORS_MAX;

/// `(loc, type)` of every fault.
fn faults(reply: &super::rig::Reply) -> Vec<(Value, String)> {
    assert_eq!(reply.status, 422, "{}", reply.text());
    let detail = reply.json()["detail"].as_array().unwrap().clone();
    detail
        .iter()
        .map(|fault| (fault["loc"].clone(), fault["type"].as_str().unwrap().to_owned()))
        .collect()
}

async fn check(rig: &Rig, path: &str, body: Value, expected: &[(Value, &str)]) {
    let reply = rig.post(path, &body).await;
    let mut found = faults(&reply);
    let mut expected: Vec<_> = expected
        .iter()
        .map(|(loc, kind)| (loc.clone(), (*kind).to_owned()))
        .collect();
    let order = |fault: &(Value, String)| fault.0.to_string();
    found.sort_by_key(order);
    expected.sort_by_key(order);
    assert_eq!(found, expected, "{path} {}", reply.text());
}

#[tokio::test]
async fn every_bad_field_has_an_entry() {
    let rig = Rig::start();
    let user = json!({"user_id": "", "password_hash": 5});
    let body = json!({"key": 1, "value": null, "finish_value": "yes", "request_id": "", "user": user});
    let expected = [
        (json!(["body", "key"]), "string_type"),
        (json!(["body", "value"]), "string_type"),
        (json!(["body", "finish_value"]), "bool_type"),
        (json!(["body", "request_id"]), "string_too_short"),
        (json!(["body", "user", "user_id"]), "string_too_short"),
        (json!(["body", "user", "password_hash"]), "string_type"),
    ];
    check(&rig, "/add_value", body, &expected).await;
    let missing = ["key", "value", "user"].map(|name| (json!(["body", name]), "missing"));
    check(&rig, "/add_value", json!({}), &missing).await;
}

#[tokio::test]
async fn the_words_are_those_of_the_original() {
    let rig = Rig::start();
    let reply = rig.post("/get_value", &with_user(json!({}))).await;
    assert_eq!(
        reply.text(),
        r#"{"detail":[{"loc":["body","key"],"msg":"Field required","type":"missing"}]}"#
    );
    let reply = rig.post("/get_value", &with_user(json!({"key": []}))).await;
    assert_eq!(reply.json()["detail"][0]["msg"], "Input should be a valid string");
}

#[tokio::test]
async fn numbers_are_checked_for_type_and_range() {
    let rig = Rig::start();
    let one = |field: &str, kind| [(json!(["body", field]), kind)];
    for (value, kind) in [
        (json!(-1), "greater_than_equal"),
        (json!("1"), "int_type"),
        (json!(1.5), "int_type"),
        (json!(true), "int_type"),
        (json!(1e20), "less_than_equal"),
    ] {
        check(
            &rig,
            "/get_value",
            with_user(json!({"key": "k", "offset": value})),
            &one("offset", kind),
        )
        .await;
    }
    check(
        &rig,
        "/list_keys",
        with_user(json!({"limit": 0})),
        &one("limit", "greater_than_equal"),
    )
    .await;
    check(
        &rig,
        "/list_keys",
        with_user(json!({"limit": 10_001})),
        &one("limit", "less_than_equal"),
    )
    .await;
    assert_eq!(
        rig.post("/list_keys", &with_user(json!({"limit": 10_000})))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_body_must_be_one_json_object() {
    let rig = Rig::start();
    for (body, kind) in [
        ("", "missing"),
        ("  \n", "missing"),
        ("[]", "model_attributes_type"),
        (
            r#"["k",{"user_id":"123","password_hash":"abc123"}]"#,
            "model_attributes_type",
        ),
        ("null", "model_attributes_type"),
        ("7", "model_attributes_type"),
    ] {
        let reply = rig.post_bytes("/get_value", body).await;
        assert_eq!(faults(&reply), [(json!(["body"]), kind.to_owned())], "{body}");
    }
    let body = json!({"key": "k", "user": ["123", "abc123"]});
    check(
        &rig,
        "/get_value",
        body,
        &[(json!(["body", "user"]), "model_attributes_type")],
    )
    .await;
    check(
        &rig,
        "/get_value",
        json!({"key": "k", "user": null}),
        &[(json!(["body", "user"]), "missing")],
    )
    .await;
}

#[tokio::test]
async fn broken_json_is_named_with_its_place() {
    let rig = Rig::start();
    let reply = rig.post_bytes("/get_value", "{\n\"key\": \"k\",\n!").await;
    assert_eq!(faults(&reply), [(json!(["body", 15]), "json_invalid".to_owned())]);
    let deep = format!(r#"{{"key":{}"#, "[".repeat(100_000));
    for body in [
        &b"{\"key\":\"\xff\"}"[..],
        b"{\"key\":\"k\",\"user\":{\"user_id\":\"123\",\"password_hash\":\"abc123\"},\"more\":\"\xff\"}",
        b"{} {}",
        br#"{"key":"\ud800"}"#,
        deep.as_bytes(),
        b"\0",
    ] {
        let reply = rig.post_bytes("/get_value", body.to_vec()).await;
        assert_eq!(faults(&reply)[0].1, "json_invalid");
    }
}

#[tokio::test]
async fn a_field_given_twice_is_a_fault() {
    let rig = Rig::start();
    let body = r#"{"key":"a","key":"b","user":{"user_id":"123","password_hash":"abc123"}}"#;
    assert_eq!(
        faults(&rig.post_bytes("/get_value", body).await),
        [(json!(["body", "key"]), "duplicate".to_owned())]
    );
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let rig = Rig::start();
    let body = with_user(json!({"key": "k", "x": {"y": [1, 2, {"z": null}]}, "value": 5}));
    assert_eq!(rig.post("/get_value", &body).await.status, 200);
}

#[tokio::test]
async fn the_form_is_checked_before_the_credentials() {
    let rig = Rig::start();
    let wrong = json!({"user_id": "123", "password_hash": "wrong"});
    assert_eq!(
        rig.post("/add_value", &json!({"key": "", "value": "v", "user": wrong}))
            .await
            .status,
        422
    );
    assert_eq!(
        rig.post("/add_value", &json!({"key": "k", "value": "v", "user": wrong}))
            .await
            .status,
        401
    );
    assert!(rig.store.values("123", "k").is_empty());
}

#[tokio::test]
async fn operations_are_faulted_one_by_one() {
    let rig = Rig::start();
    let operations = json!([
        {"op": "clear_key", "key": "k"},
        {"op": "add_value", "key": ""},
        {"op": "destroy", "key": "k"},
        {"key": "k", "value": 1},
        5,
        {"op": "get_value", "key": "k", "limit": -1, "count_only": 1},
        {"op": "add_value", "key": "k", "value": "v", "request_id": "r".repeat(257)},
    ]);
    let at = |index: usize, field: &str| json!(["body", "operations", index, field]);
    let expected = [
        (at(1, "key"), "string_too_short"),
        (at(1, "value"), "missing"),
        (at(2, "op"), "literal_error"),
        (at(3, "op"), "missing"),
        (at(3, "value"), "string_type"),
        (json!(["body", "operations", 4]), "model_attributes_type"),
        (at(5, "limit"), "greater_than_equal"),
        (at(5, "count_only"), "bool_type"),
        (at(6, "request_id"), "string_too_long"),
    ];
    check(&rig, "/batch", with_user(json!({"operations": operations})), &expected).await;
    let expected = [(json!(["body", "operations"]), "list_type")];
    check(&rig, "/batch", with_user(json!({"operations": {}})), &expected).await;
}

#[tokio::test]
async fn the_list_of_faults_is_bounded() {
    let rig = Rig::start();
    let body = with_user(json!({"operations": vec![0; 100_000]}));
    assert_eq!(faults(&rig.post("/batch", &body).await).len(), FIELD_ERRORS_MAX);
}

#[tokio::test]
async fn a_body_that_is_packed_is_refused_by_the_name_of_its_packing() {
    let rig = Rig::start();
    let body = with_user(json!({"key": "k"})).to_string();
    let sent = |encoding: &'static str| {
        let mut request = request(Method::POST, "/get_value", body.clone().into());
        request
            .headers_mut()
            .insert("content-encoding", encoding.parse().unwrap());
        rig.send(request)
    };
    for encoding in ["gzip", "br", "identity, gzip"] {
        let reply = sent(encoding).await;
        assert_eq!(reply.status, 415, "{}", reply.text());
        assert!(
            reply.json()["detail"].as_str().unwrap().contains(encoding),
            "{}",
            reply.text()
        );
    }
    for encoding in ["identity", "Identity", ""] {
        assert_eq!(sent(encoding).await.status, 200, "{encoding:?}");
    }
    assert_eq!(
        rig.metric(r#"kv_http_requests_total{call="get_value",status="415"}"#)
            .await,
        3
    );
    // Where no body is taken, it does not matter.
    let mut probe = request(Method::GET, "/healthz", "".into());
    probe.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    assert_eq!(rig.send(probe).await.status, 200);
}
