//! What a client can make the front hold, and for how long.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake::LONG;
use super::rig::{Rig, read_all, with_user};
use crate::http::FrontConfig;
use crate::http::config::STREAMS_WAITING_MAX;
use crate::types::BODY_BYTES_MAX;

pub(super) fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A body of exactly `bytes` bytes that is a good `add_value`.
pub(super) fn add_of(bytes: usize) -> String {
    let empty = with_user(json!({"key": "k", "value": ""})).to_string();
    with_user(json!({"key": "k", "value": "x".repeat(bytes - empty.len())})).to_string()
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let rig = Rig::start();
    assert_eq!(rig.post_bytes("/add_value", add_of(BODY_BYTES_MAX)).await.status, 200);
    let reply = rig.post_bytes("/add_value", add_of(BODY_BYTES_MAX + 1)).await;
    assert_eq!(reply.status, 413);
    assert!(
        reply.json()["detail"]
            .as_str()
            .unwrap()
            .contains(&BODY_BYTES_MAX.to_string())
    );
    assert_eq!(rig.store.values("123", "k").len(), 1);
    assert_eq!(rig.front.body_bytes.free(), rig.front.config.body_bytes_in_flight_max);
}

#[tokio::test]
async fn a_chunked_body_is_limited_while_it_arrives() {
    let rig = Rig::start();
    let body = add_of(20_000);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let (left, right) = body.split_at(9_000);
    let chunks = format!("{}{}0\r\n\r\n", chunk(left), chunk(right));
    let answer = rig
        .raw(post("/add_value", "transfer-encoding: chunked\r\n", chunks.as_bytes()))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let endless = chunk(&"x".repeat(64 * 1024)).repeat(BODY_BYTES_MAX / 65536 + 1);
    let answer = rig
        .raw(post("/add_value", "transfer-encoding: chunked\r\n", endless.as_bytes()))
        .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let rig = Rig::start();
    let headers = format!("content-length: {}\r\nexpect: 100-continue\r\n", BODY_BYTES_MAX + 1);
    let mut stream = rig.connect().await;
    stream.write_all(&post("/add_value", &headers, b"")).await.unwrap();
    let answer = read_all(stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_told_to_go_on_may_send_until_it_has_read_why_it_is_refused() {
    let crowded = FrontConfig {
        body_bytes_in_flight_max: 1 << 20,
        ..FrontConfig::default()
    };
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for (config, refused) in [(FrontConfig::default(), "413"), (crowded, "503")] {
        let rig = Rig::in_memory(config);
        let mut stream = rig.connect().await;
        let headers = "transfer-encoding: chunked\r\nexpect: 100-continue\r\n";
        stream.write_all(&post("/add_value", headers, b"")).await.unwrap();
        let mut told = [0; 25];
        stream.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
        for _ in 0..(BODY_BYTES_MAX + (4 << 20)) / 0x10000 {
            stream.write_all(chunk.as_bytes()).await.unwrap();
        }
        let mut status = [0; 13];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(status, format!("HTTP/1.1 {refused} ").as_bytes());
    }
}

#[test]
fn requests_that_wait_for_a_login_leave_half_of_the_places() {
    assert!(crate::users::UNKNOWN_MAX <= FrontConfig::default().requests_in_flight_max / 2);
}

#[tokio::test]
async fn without_a_permit_for_a_request_it_is_refused_at_once() {
    let rig = Rig::with(FrontConfig {
        requests_in_flight_max: 1,
        ..FrontConfig::default()
    });
    rig.store.gate.forget_permits(usize::MAX);
    let add = with_user(json!({"key": "k", "value": "v"}));
    let waiting = async { rig.post("/add_value", &add).await.status };
    let refused = async {
        while rig.store.waiting.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let reply = rig.post("/get_value", &with_user(json!({"key": "k"}))).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
        // Probes are answered all the same.
        assert_eq!(rig.get("/healthz").await.status, 200);
        rig.store.gate.add_permits(1);
    };
    assert_eq!(tokio::join!(waiting, refused).0, 200);
    assert_eq!(
        rig.post("/get_value", &with_user(json!({"key": "k"}))).await.status,
        200
    );
    assert_eq!(rig.metric(r#"kv_http_refused_total{reason="requests"}"#).await, 1);
}

#[tokio::test]
async fn without_permits_for_its_bytes_a_body_is_refused_at_once() {
    let rig = Rig::with(FrontConfig {
        body_bytes_in_flight_max: 1000,
        short_body_bytes_in_flight_max: 0,
        ..FrontConfig::default()
    });
    for headers in ["content-length: 2000\r\n", "transfer-encoding: chunked\r\n"] {
        let body = if headers.starts_with('t') {
            format!("7d0\r\n{}\r\n", "x".repeat(2000))
        } else {
            String::new()
        };
        let mut stream = rig.connect().await;
        // The rest of the body never comes; the answer does.
        stream
            .write_all(&post("/add_value", headers, body.as_bytes()))
            .await
            .unwrap();
        let mut start = [0; 13];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 503 ");
    }
    assert_eq!(rig.metric(r#"kv_http_refused_total{reason="body_bytes"}"#).await, 2);
    assert_eq!(
        rig.post("/add_value", &with_user(json!({"key": "k", "value": "v"})))
            .await
            .status,
        200
    );
    assert_eq!(rig.front.body_bytes.free(), 1000);
}

#[tokio::test]
async fn a_permit_is_held_until_a_streamed_answer_was_taken() {
    let rig = Rig::in_memory(FrontConfig {
        requests_in_flight_max: 1,
        ..FrontConfig::default()
    });
    let body = with_user(json!({"key": format!("{LONG}100")})).to_string();
    let headers = format!("connection: close\r\ncontent-length: {}\r\n", body.len());
    let mut stream = rig.connect().await;
    stream
        .write_all(&post("/get_value", &headers, body.as_bytes()))
        .await
        .unwrap();
    super::rig::settle().await;
    assert_eq!(rig.front.requests.available_permits(), 0);
    read_all(stream).await;
    super::rig::settle().await;
    assert_eq!(rig.front.requests.available_permits(), 1);
}

#[tokio::test]
async fn answers_take_permits_until_they_were_taken() {
    let limit = 3 * 64 * 1024;
    let rig = Rig::in_memory(FrontConfig {
        answer_bytes_in_flight_max: limit,
        ..FrontConfig::default()
    });
    let long = with_user(json!({"key": format!("{LONG}100")}));
    let body = long.to_string();
    let headers = format!("connection: close\r\ncontent-length: {}\r\n", body.len());
    let mut stream = rig.connect().await;
    stream
        .write_all(&post("/get_value", &headers, body.as_bytes()))
        .await
        .unwrap();
    super::rig::settle().await;
    // There is room for one stream; small answers and writes go on beside it.
    assert_eq!(rig.post("/get_value", &long).await.status, 503);
    assert_eq!(
        rig.post("/get_value", &with_user(json!({"key": "k"}))).await.status,
        200
    );
    assert_eq!(rig.post("/list_keys", &with_user(json!({}))).await.status, 200);
    assert_eq!(
        rig.post("/add_value", &with_user(json!({"key": "k", "value": "v"})))
            .await
            .status,
        200
    );
    assert_eq!(rig.metric(r#"kv_http_refused_total{reason="answer_bytes"}"#).await, 1);
    read_all(stream).await;
    super::rig::settle().await;
    assert_eq!(rig.front.free_answer_bytes(), limit);
}

const MIB: usize = 1 << 20;

/// A front with room for one fragment of 3 MiB, which the answer to the request that comes with it holds.
async fn full_of_one_fragment() -> (Rig, Box<dyn crate::env::Stream>) {
    let rig = Rig::in_memory(FrontConfig {
        answer_bytes_in_flight_max: 4 * MIB,
        ..FrontConfig::default()
    });
    let body = with_user(json!({"key": format!("{LONG}0+{}", 3 * MIB)})).to_string();
    let headers = format!("connection: close\r\ncontent-length: {}\r\n", body.len());
    let mut stream = rig.connect().await;
    stream
        .write_all(&post("/get_value", &headers, body.as_bytes()))
        .await
        .unwrap();
    super::rig::settle().await;
    (rig, stream)
}

/// 100 short fragments, and then one of 2 MiB.
fn long_at_last() -> serde_json::Value {
    with_user(json!({"key": format!("{LONG}100+{}", 2 * MIB)}))
}

#[tokio::test]
async fn a_stream_has_room_for_the_fragment_that_it_holds() {
    let (rig, stream) = full_of_one_fragment().await;
    let held = 4 * MIB - rig.front.free_answer_bytes();
    assert!((3 * MIB..4 * MIB).contains(&held), "{held} bytes");
    let long = with_user(json!({"key": format!("{LONG}0+{}", 2 * MIB)}));
    assert_eq!(rig.post("/get_value", &long).await.status, 503);
    let usual = with_user(json!({"key": format!("{LONG}100")}));
    assert_eq!(rig.post("/get_value", &usual).await.status, 200);
    // One that finds no room in its middle waits for it.
    let first_read = async {
        while rig.front.waiting_streams.free() == STREAMS_WAITING_MAX {
            tokio::task::yield_now().await;
        }
        read_all(stream).await
    };
    let waiting = long_at_last();
    let (reply, first) = tokio::join!(rig.post("/get_value", &waiting), first_read);
    assert!(first.len() > 3 * MIB && first.ends_with("\r\n0\r\n\r\n"));
    assert_eq!(reply.json()["value"].as_array().unwrap().len(), 101);
    super::rig::settle().await;
    assert_eq!(rig.front.free_answer_bytes(), 4 * MIB);
}

#[tokio::test(start_paused = true)]
async fn a_stream_does_not_wait_for_room_for_ever() {
    let (rig, _never_read) = full_of_one_fragment().await;
    let body = long_at_last().to_string();
    let headers = format!("content-length: {}\r\n", body.len());
    let mut stream = rig.connect().await;
    stream
        .write_all(&post("/get_value", &headers, body.as_bytes()))
        .await
        .unwrap();
    let answer = read_all(stream).await;
    assert!(answer.contains("xxx") && !answer.ends_with("0\r\n\r\n"));
    assert_eq!(rig.front.waiting_streams.free(), STREAMS_WAITING_MAX);
}
