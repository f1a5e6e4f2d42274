//! What a client can make the front hold, and for how long.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use hyper::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake::LONG;
use super::rig::{Rig, read_all, request, whole, with_user};
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

/// For connections in memory and a clock that only moves when nobody can go on: no test is too slow for it.
pub(super) fn impatient() -> FrontConfig {
    let short = Duration::from_millis(30);
    FrontConfig {
        head_timeout: short,
        idle_timeout: short * 4,
        write_stall_timeout: short,
        body_grace: short,
        sweep_interval: Duration::from_millis(5),
        ..FrontConfig::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_drips_its_body_is_cut_with_408() {
    let rig = Rig::in_memory(impatient());
    let mut stream = rig.connect().await;
    stream
        .write_all(&post("/add_value", "content-length: 100\r\n", b"{"))
        .await
        .unwrap();
    let answer = read_all(stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(rig.metric(r#"kv_http_refused_total{reason="slow_body"}"#).await, 1);
    assert_eq!(rig.front.body_bytes.free(), rig.front.config.body_bytes_in_flight_max);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_drips_its_head_is_cut() {
    let rig = Rig::in_memory(impatient());
    let mut stream = rig.connect().await;
    // Each byte comes well within the idle timeout; the head as a whole does not come in time.
    while stream.write_all(b"P").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        rig.metric(r#"kv_http_cut_connections_total{reason="slow_head"}"#).await,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_that_begins_before_the_answer_and_does_not_end_is_cut() {
    let body = with_user(json!({"key": "k", "value": "v"})).to_string();
    let add = post(
        "/add_value",
        &format!("content-length: {}\r\n", body.len()),
        body.as_bytes(),
    );
    let (head, rest) = add.split_at(add.len() - 3);
    let next = &b"GET /healthz HTTP/1.1\r\nho"[..];
    // In one piece; and with the end of the body.
    for pieces in [
        vec![[&add[..], next].concat()],
        vec![head.to_vec(), [rest, next].concat()],
    ] {
        let rig = Rig::in_memory(FrontConfig {
            idle_timeout: Duration::from_secs(600),
            ..impatient()
        });
        let mut stream = rig.connect().await;
        for piece in pieces {
            stream.write_all(&piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let answer = tokio::time::timeout(Duration::from_secs(10), read_all(stream)).await;
        assert!(answer.unwrap().starts_with("HTTP/1.1 200 "));
        assert_eq!(
            rig.metric(r#"kv_http_cut_connections_total{reason="slow_head"}"#).await,
            1
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_request_came_in_pieces_is_idle_after_it_and_not_slow() {
    let body = with_user(json!({"key": "k", "value": "v"})).to_string();
    let add = post(
        "/add_value",
        &format!("content-length: {}\r\n", body.len()),
        body.as_bytes(),
    );
    let whole = [&add[..], &add[..]].concat();
    let rig = Rig::in_memory(impatient());
    for cut in [
        0,
        5,
        add.len() - body.len() - 1,
        add.len() - body.len(),
        add.len() - 3,
        add.len(),
        whole.len() - 3,
    ] {
        let mut stream = rig.connect().await;
        let (first, second) = whole.split_at(cut);
        stream.write_all(first).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        stream.write_all(second).await.unwrap();
        let answers = read_all(stream).await;
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "cut at {cut}: {answers}");
    }
    assert_eq!(
        rig.metric(r#"kv_http_cut_connections_total{reason="slow_head"}"#).await,
        0
    );
    assert_eq!(rig.metric(r#"kv_http_cut_connections_total{reason="idle"}"#).await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_and_not_slow_after_a_body_that_came_behind_its_refusal() {
    const PIECE: [u8; 1000] = [b'x'; 1000];
    const PIECES: usize = 20;
    let headers = format!("content-length: {}\r\n", PIECES * PIECE.len());
    let rig = Rig::in_memory(impatient());
    let next = &b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"[..];
    let begun = &next[..9];
    // What comes with the last of the body, and after it.
    for (with, after) in [
        (&b""[..], &b""[..]),
        (b"", next),
        (next, b""),
        (begun, &next[9..]),
        (begun, b""),
    ] {
        let mut stream = rig.connect().await;
        stream.write_all(&post("/nope", &headers, &PIECE)).await.unwrap();
        let mut status = [0; 13];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 404 ");
        super::rig::settle().await;
        for _ in 2..PIECES {
            stream.write_all(&PIECE).await.unwrap();
            super::rig::settle().await;
        }
        for rest in [&[&PIECE[..], with].concat(), after] {
            stream.write_all(rest).await.unwrap();
            super::rig::settle().await;
        }
        let answers = read_all(stream).await;
        let served = with.len() + after.len() == next.len();
        assert_eq!(answers.contains("HTTP/1.1 200 "), served, "{answers}");
    }
    // The last one alone did not end its head.
    let cut = async |reason| {
        rig.metric(&format!("kv_http_cut_connections_total{{reason=\"{reason}\"}}"))
            .await
    };
    assert_eq!((cut("slow_head").await, cut("idle").await), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_cut_in_the_end() {
    let rig = Rig::in_memory(impatient());
    for sent in ["", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream = rig.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        assert_eq!(read_all(stream).await.is_empty(), sent.is_empty());
    }
    assert_eq!(rig.metric(r#"kv_http_cut_connections_total{reason="idle"}"#).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_answer_is_cut() {
    let rig = Rig::in_memory(impatient());
    let body = with_user(json!({"key": format!("{LONG}100")})).to_string();
    let headers = format!("content-length: {}\r\n", body.len());
    let mut stream = rig.connect().await;
    stream
        .write_all(&post("/get_value", &headers, body.as_bytes()))
        .await
        .unwrap();
    while rig
        .metric(r#"kv_http_cut_connections_total{reason="slow_reader"}"#)
        .await
        == 0
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!read_all(stream).await.ends_with("0\r\n\r\n"));
    assert_eq!(
        rig.front.requests.available_permits(),
        rig.front.config.requests_in_flight_max
    );
}

/// A few bytes at a time, each before the timeout: the client of an answer that never ends.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_its_answer_in_a_trickle_is_cut() {
    let rig = Rig::in_memory(impatient());
    let body = with_user(json!({"key": format!("{LONG}100")})).to_string();
    let headers = format!("content-length: {}\r\n", body.len());
    let mut stream = rig.connect().await;
    let request = post("/get_value", &headers, body.as_bytes());
    stream.write_all(&request).await.unwrap();
    let step = rig.front.config.write_stall_timeout / 4;
    let (mut taken, mut piece) = (0, [0; 64]);
    loop {
        tokio::time::sleep(step).await;
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(bytes) => taken += bytes,
        }
        assert!(taken < 1 << 20, "it goes on for ever");
    }
    let cut = rig.metric(r#"kv_http_cut_connections_total{reason="slow_reader"}"#);
    assert_eq!(cut.await, 1);
}

#[tokio::test]
async fn beyond_the_limit_a_connection_is_answered_and_closed() {
    let rig = Rig::with(FrontConfig {
        connections_max: 2,
        ..FrontConfig::default()
    });
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = rig.connect().await;
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        stream.read_exact(&mut [0; 13]).await.unwrap();
        kept.push(stream);
    }
    let answer = read_all(rig.connect().await).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"),
        "{answer}"
    );
    kept.pop();
    while rig.front.connections.count() == 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.get("/healthz").await.status, 200);
}

/// A front whose one place is taken by the connection that comes with it.
async fn without_a_place() -> (Rig, Box<dyn crate::env::Stream>) {
    let rig = Rig::in_memory(FrontConfig {
        connections_max: 1,
        ..FrontConfig::default()
    });
    let only = rig.connect().await;
    super::rig::settle().await;
    (rig, only)
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_takes_the_refusal_for_the_answer_to_its_request() {
    let (rig, _only) = without_a_place().await;
    // The second one is longer than what a connection holds.
    for value in ["v".to_owned(), "v".repeat(8 * super::rig::PIPE_BYTES)] {
        let connected = TokioIo::new(rig.connect().await);
        super::rig::settle().await;
        let (mut client, connection) = hyper::client::conn::http1::handshake(connected).await.unwrap();
        tokio::spawn(connection);
        let add = with_user(json!({"key": "k", "value": value})).to_string();
        let answer = client.send_request(request(Method::POST, "/add_value", add.into()));
        let reply = whole(answer.await.expect("an answer")).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
        assert_eq!(
            (&reply.json()["code"], &reply.json()["may_have_taken_effect"]),
            (&json!("overloaded"), &json!(false))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_over_http2_hears_that_nothing_was_done() {
    let (rig, _only) = without_a_place().await;
    let io = TokioIo::new(rig.connect().await);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let add = with_user(json!({"key": "k", "value": "v"})).to_string();
    let answer = client.send_request(request(Method::POST, "/add_value", add.into()));
    let error = answer.await.expect_err("it is refused");
    let told = format!("{error:?}");
    assert!(told.contains("GoAway") && told.contains("ENHANCE_YOUR_CALM"), "{told}");
    assert!(told.contains("too many connections are open"), "{told}");
    assert!(connection.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn few_who_find_no_place_are_waited_for_and_not_for_long() {
    let (rig, _only) = without_a_place().await;
    let silent = [rig.connect().await, rig.connect().await];
    super::rig::settle().await;
    assert_eq!(rig.front.turned_away.free(), 0);
    for stream in silent {
        assert!(read_all(stream).await.starts_with("HTTP/1.1 503 "));
    }
    // One that goes on sending.
    let mut stream = rig.connect().await;
    while stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    super::rig::settle().await;
    assert_eq!(rig.front.turned_away.free(), 1);
}

#[tokio::test]
async fn thousands_of_idle_connections_leave_others_served() {
    let rig = Rig::in_memory(FrontConfig::default());
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        idle.push(rig.connect().await);
    }
    while rig.front.connections.count() < idle.len() {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.get("/healthz").await.status, 200);
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
