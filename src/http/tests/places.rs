//! More connections than there are places for.

use std::time::Duration;

use hyper::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{Rig, read_all, request, whole, with_user};
use crate::http::FrontConfig;

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
