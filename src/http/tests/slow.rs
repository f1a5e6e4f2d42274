//! Clients that send or take slowly, or do nothing: how long they may.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake::LONG;
use super::limits::post;
use super::rig::{Rig, read_all, with_user};
use crate::http::FrontConfig;

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
