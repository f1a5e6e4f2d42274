use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::rig::{Rig, request, whole, with_user};
use crate::node::OpError;
use crate::types::Consistency;

#[tokio::test]
async fn the_seeds_examples_are_answered_as_they_say() {
    let rig = Rig::start();
    let body = |text: &str| text.to_owned();
    let add = r#"{"key":"example","value":"some data","finish_value":true,
        "user":{"user_id":"123","password_hash":"abc123"}}"#;
    let reply = rig.post_bytes("/add_value", body(add)).await;
    assert_eq!((reply.status, reply.text()), (200, r#"{"status":"OK"}"#));
    assert_eq!(reply.header("content-type"), "application/json");

    let on_key = r#"{"key":"example","user":{"user_id":"123","password_hash":"abc123"}}"#;
    let reply = rig.post_bytes("/get_value", body(on_key)).await;
    assert_eq!(
        (reply.status, reply.text()),
        (200, r#"{"key":"example","value":["some data"]}"#)
    );
    let reply = rig.post_bytes("/clear_key", body(on_key)).await;
    assert_eq!((reply.status, reply.text()), (200, r#"{"status":"OK"}"#));
    let reply = rig.post_bytes("/get_value", body(on_key)).await;
    assert_eq!((reply.status, reply.text()), (200, r#"{"key":"example","value":[]}"#));
}

#[tokio::test]
async fn parts_are_in_progress_until_a_value_finishes_them() {
    let rig = Rig::start();
    let part = with_user(json!({"key": "k", "value": "a", "finish_value": false}));
    assert_eq!(
        rig.post("/add_value", &part).await.text(),
        r#"{"status":"IN_PROGRESS"}"#
    );
    assert_eq!(
        rig.post("/get_value", &with_user(json!({"key": "k"}))).await.json()["value"],
        json!([])
    );
    // `finish_value` left out, and null, are true.
    let end = with_user(json!({"key": "k", "value": "b"}));
    assert_eq!(rig.post("/add_value", &end).await.text(), r#"{"status":"OK"}"#);
    let end = with_user(json!({"key": "k", "value": "", "finish_value": null, "request_id": null}));
    assert_eq!(rig.post("/add_value", &end).await.text(), r#"{"status":"OK"}"#);
    assert_eq!(rig.store.values("123", "k"), ["ab", ""]);
}

#[tokio::test]
async fn a_request_id_counts_once() {
    let rig = Rig::start();
    let add = with_user(json!({"key": "k", "value": "a", "request_id": "r1"}));
    for _ in 0..3 {
        assert_eq!(rig.post("/add_value", &add).await.status, 200);
    }
    assert_eq!(rig.store.values("123", "k"), ["a"]);
}

#[tokio::test]
async fn texts_of_every_kind_come_back_as_they_went_in() {
    let rig = Rig::start();
    let long = "ж\"\\\n\u{1}".repeat(10_000);
    for text in ["", "плюс\u{0}\u{1f}\"\\/", "😀\u{7f}\u{2028}", &long] {
        rig.store.put("123", "k\"\n", &[]);
        assert_eq!(
            rig.post("/add_value", &with_user(json!({"key": "k\"\n", "value": text})))
                .await
                .status,
            200
        );
        let reply = rig.post("/get_value", &with_user(json!({"key": "k\"\n"}))).await;
        assert_eq!(reply.json(), json!({"key": "k\"\n", "value": [text]}));
    }
}

#[tokio::test]
async fn offset_limit_and_count_choose_what_is_read() {
    let rig = Rig::start();
    rig.store.put("123", "k", &["a", "b", "c", "d"]);
    let reply = rig
        .post("/get_value", &with_user(json!({"key": "k", "offset": 1, "limit": 2})))
        .await;
    assert_eq!(reply.json()["value"], json!(["b", "c"]));
    let reply = rig
        .post("/get_value", &with_user(json!({"key": "k", "limit": 0})))
        .await;
    assert_eq!(reply.json()["value"], json!([]));
    let reply = rig
        .post("/get_value", &with_user(json!({"key": "k", "count_only": true})))
        .await;
    assert_eq!(reply.text(), r#"{"key":"k","count":4}"#);
}

#[tokio::test]
async fn wrong_and_unknown_users_get_the_same_answer() {
    let rig = Rig::start();
    let try_as = |user: &str, hash: &str| json!({"key": "k", "user": {"user_id": user, "password_hash": hash}});
    for path in ["/get_value", "/clear_key", "/list_keys", "/users/list"] {
        for body in [try_as("123", "wrong"), try_as("nobody", "abc123")] {
            let reply = rig.post(path, &body).await;
            assert_eq!(
                (reply.status, reply.text()),
                (401, r#"{"detail":"Invalid user_id or password"}"#)
            );
            assert!(reply.header("www-authenticate").starts_with("Basic "));
        }
    }
    assert_eq!(rig.metric("kv_http_failed_logins_total").await, 8);
}

#[tokio::test]
async fn credentials_may_come_as_basic_and_those_in_the_body_win() {
    let rig = Rig::start();
    rig.store.put("123", "k", &["mine"]);
    let send = |credentials: String, body: serde_json::Value| {
        let mut request = request(Method::POST, "/get_value", Bytes::from(body.to_string()));
        let value = format!("Basic {}", STANDARD.encode(credentials)).parse().unwrap();
        request.headers_mut().insert("authorization", value);
        rig.send(request)
    };
    assert_eq!(
        send("123:abc123".into(), json!({"key": "k"})).await.json()["value"],
        json!(["mine"])
    );
    assert_eq!(send("123:wrong".into(), json!({"key": "k"})).await.status, 401);
    assert_eq!(send("no colon".into(), json!({"key": "k"})).await.status, 401);
    assert_eq!(send(":".into(), json!({"key": "k"})).await.status, 401);
    assert_eq!(
        send(format!("{}:p", "u".repeat(257)), json!({"key": "k"})).await.status,
        401
    );
    assert_eq!(
        send("nobody:wrong".into(), with_user(json!({"key": "k"}))).await.status,
        200
    );
    let wrong = json!({"key": "k", "user": {"user_id": "123", "password_hash": "wrong"}});
    assert_eq!(send("123:abc123".into(), wrong).await.status, 401);
}

#[tokio::test]
async fn two_users_with_the_same_key_never_see_each_other() {
    let rig = Rig::start();
    rig.store.put("root", "k", &["theirs"]);
    assert_eq!(
        rig.post("/get_value", &with_user(json!({"key": "k"}))).await.json()["value"],
        json!([])
    );
    assert_eq!(
        rig.post("/list_keys", &with_user(json!({}))).await.json(),
        json!({"keys": []})
    );
}

#[tokio::test]
async fn keys_are_listed_page_by_page() {
    let rig = Rig::start();
    let names: Vec<String> = (0..2500).map(|n| format!("k{n:04}")).collect();
    names.iter().for_each(|name| rig.store.put("123", name, &["v"]));
    rig.store.put("123", "other", &["v"]);
    let mut found: Vec<String> = Vec::new();
    let mut body = with_user(json!({"prefix": "k", "limit": 1200}));
    loop {
        let page = rig.post("/list_keys", &body).await.json();
        found.extend(
            page["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key.as_str().unwrap().to_owned()),
        );
        let Some(after) = page.get("after") else { break };
        body["after"] = after.clone();
    }
    assert_eq!(found, names);
    assert_eq!(
        rig.post("/list_keys", &with_user(json!({}))).await.json()["keys"]
            .as_array()
            .unwrap()
            .len(),
        1000
    );
    let last = rig.post("/list_keys", &with_user(json!({"limit": 2501}))).await.json();
    assert_eq!(
        (last["keys"].as_array().unwrap().len(), last.get("after")),
        (2501, None)
    );
}

#[tokio::test]
async fn keys_that_hold_nothing_do_not_show_and_do_not_end_a_listing() {
    let rig = Rig::start();
    (0..3500).for_each(|n| rig.store.put("123", &format!("a{n:04}"), &[]));
    rig.store.put("123", "b", &["v"]);
    let page = rig.post("/list_keys", &with_user(json!({}))).await.json();
    assert_eq!(page, json!({"keys": ["b"]}));
    // So many of them end a call early, with the place to go on from.
    let page = rig.post("/list_keys", &with_user(json!({"limit": 1}))).await.json();
    assert_eq!(page, json!({"keys": [], "after": "a0063"}));
}

#[tokio::test]
async fn a_listing_whose_time_is_over_says_how_far_it_came() {
    let rig = Rig::start();
    (0..3500).for_each(|n| rig.store.put("123", &format!("a{n:04}"), &[]));
    rig.store.pages.store(2, SeqCst);
    let page = rig.post("/list_keys", &with_user(json!({}))).await;
    assert_eq!((page.status, page.json()), (200, json!({"keys": [], "after": "a1999"})));
    // Not one page of it.
    let late = rig.post("/list_keys", &with_user(json!({"after": "a1999"}))).await;
    assert_eq!(late.status, 503);
}

#[tokio::test]
async fn a_page_of_long_keys_ends_early_and_says_where_to_go_on() {
    let rig = Rig::start();
    let names: Vec<String> = (0..2200).map(|n| format!("{n:04}{}", "x".repeat(1020))).collect();
    names.iter().for_each(|name| rig.store.put("123", name, &["v"]));
    let mut body = with_user(json!({"limit": 10_000}));
    let mut found = 0;
    let mut pages = 0;
    loop {
        let reply = rig.post("/list_keys", &body).await;
        assert!(reply.body.len() < 1_100_000);
        let page = reply.json();
        (found, pages) = (found + page["keys"].as_array().unwrap().len(), pages + 1);
        let Some(after) = page.get("after") else { break };
        body["after"] = after.clone();
    }
    assert_eq!((found, pages), (2200, 3));
}

#[tokio::test]
async fn what_goes_wrong_below_has_its_status_and_headers() {
    let rig = Rig::start();
    let add = with_user(json!({"key": "k", "value": "v"}));
    let cases = [
        (
            OpError::Overloaded {
                what: "the queue",
                retry_after_s: 3,
            },
            503,
            "3",
        ),
        (OpError::ShardUnavailable { maybe_applied: true }, 503, "1"),
        (OpError::DiskFull, 507, ""),
        (OpError::ValueTooLong { got: 2, max: 1 }, 413, ""),
        (OpError::OtherRequest, 409, ""),
        (OpError::Damaged("x".into()), 500, ""),
    ];
    for (error, status, retry_after) in cases {
        *rig.store.fail.lock() = Some(error);
        let reply = rig.post("/add_value", &add).await;
        assert_eq!((reply.status, reply.header("retry-after")), (status, retry_after));
        assert!(reply.json()["detail"].is_string());
    }
    rig.store.auth_busy.store(true, SeqCst);
    let reply = rig.post("/add_value", &add).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, "9"));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let rig = Rig::start();
    let reply = rig.get("/nothing").await;
    assert_eq!((reply.status, reply.text()), (404, r#"{"detail":"Not Found"}"#));
    let reply = rig.get("/add_value").await;
    assert_eq!((reply.status, reply.header("allow")), (405, "POST"));
    assert_eq!(reply.text(), r#"{"detail":"Method Not Allowed"}"#);
    let reply = rig.post("/healthz", &json!({})).await;
    assert_eq!((reply.status, reply.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn probes_say_how_the_node_is() {
    let rig = Rig::start();
    assert_eq!(rig.get("/healthz").await.text(), r#"{"status":"OK"}"#);
    assert_eq!(rig.get("/readyz").await.status, 200);
    rig.store.counts.store(false, SeqCst);
    assert_eq!(rig.get("/readyz").await.status, 200);
    for (query, status) in [
        ("counts", 503),
        ("counts=1", 503),
        ("a&counts", 503),
        ("counted", 200),
        ("", 200),
    ] {
        assert_eq!(rig.get(&format!("/readyz?{query}")).await.status, status, "{query}");
    }
    rig.store.counts.store(true, SeqCst);
    assert_eq!(rig.get("/readyz?counts").await.status, 200);
    rig.store.ready.store(false, SeqCst);
    let reply = rig.get("/readyz").await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
    assert_eq!(rig.get("/healthz").await.status, 200);
    let reply = rig.get("/metrics").await;
    assert!(reply.header("content-type").starts_with("application/openmetrics-text"));
    assert!(
        reply
            .text()
            .contains(r#"kv_http_requests_total{call="readyz",status="503"} 4"#),
        "{}",
        reply.text()
    );
    assert!(reply.text().ends_with("# EOF\n"));
}

#[tokio::test]
async fn head_gets_the_headers_of_get_over_both_protocols() {
    let rig = Rig::start();
    let full = rig.get("/openapi.json").await;
    let ask = || request(Method::HEAD, "/openapi.json", Bytes::new());
    for reply in [rig.send(ask()).await, whole(rig.respond_http2(ask()).await).await] {
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(reply.header("content-length"), full.body.len().to_string());
    }
}

#[tokio::test]
async fn terms_reach_the_node_and_are_a_quorum_in_ten_seconds_when_left_out() {
    let rig = Rig::start();
    let asked = json!({"key": "k", "value": "v", "consistency": "all", "deadline_ms": 60_000});
    for path in ["/add_value", "/get_value", "/clear_key", "/list_keys"] {
        assert_eq!(rig.post(path, &with_user(asked.clone())).await.status, 200);
        let plain = json!({"key": "k", "value": "v", "consistency": null, "deadline_ms": null});
        assert_eq!(rig.post(path, &with_user(plain)).await.status, 200);
    }
    let counted = with_user(json!({"key": "k", "count_only": true, "consistency": "one"}));
    assert_eq!(rig.post("/get_value", &counted).await.status, 200);
    let terms = rig.store.terms.lock().clone();
    let levels: Vec<Consistency> = terms.iter().map(|(level, _)| *level).collect();
    let each = [Consistency::All, Consistency::Quorum];
    assert_eq!(
        levels,
        [each, each, each, each]
            .concat()
            .into_iter()
            .chain([Consistency::One])
            .collect::<Vec<_>>()
    );
    for (level, left) in terms {
        let most = if level == Consistency::All { 60 } else { 10 };
        let most = Duration::from_secs(most);
        assert!(left <= most && left > most / 2, "{left:?}");
    }
}

#[tokio::test]
async fn a_level_that_there_is_not_is_refused_with_those_that_there_are() {
    let rig = Rig::start();
    let add = with_user(json!({"key": "k", "value": "v", "consistency": "most", "deadline_ms": 0}));
    let reply = rig.post("/add_value", &add).await;
    assert_eq!(reply.status, 422);
    let detail = &reply.json()["detail"];
    assert_eq!(detail[0]["loc"], json!(["body", "consistency"]));
    assert_eq!(detail[0]["msg"], "Input should be 'one', 'quorum' or 'all'");
    assert_eq!(detail[1]["loc"], json!(["body", "deadline_ms"]));
    assert!(rig.store.values("123", "k").is_empty());
}

#[tokio::test]
async fn a_clear_with_a_request_id_counts_once() {
    let rig = Rig::start();
    let clear = with_user(json!({"key": "k", "request_id": "c1"}));
    assert_eq!(rig.post("/clear_key", &clear).await.status, 200);
    let add = with_user(json!({"key": "k", "value": "later"}));
    assert_eq!(rig.post("/add_value", &add).await.status, 200);
    assert_eq!(rig.post("/clear_key", &clear).await.status, 200);
    let batch = with_user(json!({"operations": [{"op": "clear_key", "key": "k", "request_id": "c1"}]}));
    assert_eq!(rig.post("/batch", &batch).await.status, 200);
    assert_eq!(rig.store.values("123", "k"), ["later"]);
}
