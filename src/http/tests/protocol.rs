//! HTTP itself: versions, garbage, half-closed connections, shutdown.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{Rig, read_all, request, whole, with_user};
use crate::http::FrontConfig;

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let rig = Rig::start();
    let body = with_user(json!({"key": "k", "value": "v"})).to_string();
    let reply = whole(
        rig.respond_http2(request(Method::POST, "/add_value", body.into()))
            .await,
    )
    .await;
    assert_eq!((reply.status, reply.text()), (200, r#"{"status":"OK"}"#));
    let large = with_user(json!({"key": "k", "value": "x".repeat(3_000_000)})).to_string();
    let reply = whole(
        rig.respond_http2(request(Method::POST, "/add_value", large.into()))
            .await,
    )
    .await;
    assert_eq!(reply.status, 200);
    assert_eq!(rig.store.values("123", "k")[1].len(), 3_000_000);
    let too_large = "x".repeat(9_000_000);
    let reply = whole(
        rig.respond_http2(request(Method::POST, "/add_value", too_large.into()))
            .await,
    )
    .await;
    assert_eq!(reply.status, 413);
}

#[tokio::test(start_paused = true)]
async fn which_version_is_spoken_is_told_however_its_beginning_is_cut() {
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // A method that begins as that does.
    let http1 = b"PRINT /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    // The type of the first frame, settings; and a status.
    for (sent, at, expected) in [(&http2[..], 3, &b"\x04"[..]), (http1, 0, b"HTTP/1.1 405 ")] {
        for cut in 1..sent.len() {
            let rig = Rig::in_memory(FrontConfig::default());
            let mut stream = rig.connect().await;
            let (first, rest) = sent.split_at(cut);
            stream.write_all(first).await.unwrap();
            super::rig::settle().await;
            stream.write_all(rest).await.unwrap();
            let mut answer = vec![0; at + expected.len()];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer[at..], expected, "cut at {cut}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_not_asked_yet_does_not_hold_up_the_end() {
    let rig = Rig::in_memory(FrontConfig::default());
    let (mut silent, mut begun) = (rig.connect().await, rig.connect().await);
    begun.write_all(b"PRI * HT").await.unwrap();
    super::rig::settle().await;
    assert_eq!(rig.front.connections.count(), 2);
    let began = tokio::time::Instant::now();
    rig.stop.send(true).unwrap();
    rig.served.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(begun.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let rig = Rig::start();
    let get = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = rig
        .raw(format!("{get}GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n{get}"))
        .await;
    let statuses: Vec<&str> = answer
        .split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|part| part.get(..3))
        .collect();
    assert_eq!(statuses, ["200", "404", "200"]);
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let rig = Rig::start();
    let good = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = rig.raw(format!("{good}\x01\x02garbage\r\n\r\n{good}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("HTTP/1.1 400 "),
        "{answer}"
    );
    for garbage in [
        &b"\0\0\0\0"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff",
        b"\r\n\r\n\r\n",
        b"PRI",
    ] {
        rig.raw(garbage).await;
    }
    assert_eq!(rig.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let rig = Rig::start();
    let mut stream = rig.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let line = format!("x-{}: {}\r\n", "y".repeat(100), "z".repeat(4000));
    for _ in 0..100 {
        if stream.write_all(line.as_bytes()).await.is_err() {
            break;
        }
    }
    let answer = read_all(stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "a: b\r\n".repeat(200);
    let answer = rig.raw(format!("GET /healthz HTTP/1.1\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_half_closed_connection_still_gets_its_answer() {
    let rig = Rig::start();
    let body = with_user(json!({"key": "k", "value": "v"})).to_string();
    let head = format!(
        "POST /add_value HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    assert!(rig.raw(format!("{head}{body}")).await.ends_with(r#"{"status":"OK"}"#));
    // A body that is cut off changes nothing.
    let cut = body.get(..10).unwrap();
    rig.raw(format!("{head}{cut}")).await;
    assert_eq!(rig.store.values("123", "k").len(), 1);
    assert_eq!(rig.front.body_bytes.free(), rig.front.config.body_bytes_in_flight_max);
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_usable() {
    let rig = Rig::start();
    let refused = "POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
    let answer = rig
        .raw(format!("{refused}GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.contains("HTTP/1.1 200 "),
        "{answer}"
    );
}

#[tokio::test]
async fn on_shutdown_what_is_in_flight_finishes_and_the_rest_ends() {
    let rig = Rig::start();
    rig.store.gate.forget_permits(usize::MAX);
    let mut idle = rig.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    idle.read_exact(&mut [0; 13]).await.unwrap();
    let add = with_user(json!({"key": "k", "value": "v"}));
    let in_flight = async { rig.post("/add_value", &add).await.status };
    let stop = async {
        while rig.store.waiting.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        rig.stop.send(true).unwrap();
        read_all(idle).await;
        assert!(!rig.served.is_finished());
        rig.store.gate.add_permits(1);
    };
    assert_eq!(tokio::join!(in_flight, stop).0, 200);
    rig.served.await.unwrap();
}

#[tokio::test]
async fn what_does_not_finish_by_the_deadline_is_cut() {
    let rig = Rig::with(FrontConfig {
        shutdown_deadline: Duration::from_millis(20),
        ..FrontConfig::default()
    });
    rig.store.gate.forget_permits(usize::MAX);
    let body = with_user(json!({"key": "k", "value": "v"})).to_string();
    let mut stream = rig.connect().await;
    let head = format!(
        "POST /add_value HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    while rig.store.waiting.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    rig.stop.send(true).unwrap();
    rig.served.await.unwrap();
    assert_eq!(read_all(stream).await, "");
}
