//! Clients over HTTP/2 that do not let their answers come, or only slowly.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Method, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use super::fake::{FRAGMENT_BYTES, LONG};
use super::rig::{Rig, request, settle, with_user};
use super::slow::impatient;
use crate::api::{ErrorBody, MAYBE_APPLIED};
use crate::http::FrontConfig;
use crate::http::config::{H2_STREAMS_MAX, H2_STREAMS_OWN_MIN, LINGER_TIME};
use crate::node::OpError;

/// Bodies may take their time: they come later than their heads.
fn brief() -> FrontConfig {
    FrontConfig {
        body_grace: Duration::from_secs(10),
        ..impatient()
    }
}

const CUT: &str = r#"kv_http_cut_connections_total{reason="slow_reader"}"#;

/// A client of which each stream lets so many bytes come before it reads them.
async fn with_window(rig: &Rig, bytes: u32) -> SendRequest<Full<Bytes>> {
    let io = TokioIo::new(rig.connect().await);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(bytes);
    let (client, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask(client: &mut SendRequest<Full<Bytes>>, method: Method, path: &str, body: String) -> Response<Incoming> {
    client.ready().await.unwrap();
    client.send_request(request(method, path, body.into())).await.unwrap()
}

fn get_long(fragments: usize) -> String {
    with_user(json!({"key": format!("{LONG}{fragments}")})).to_string()
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not even after a long time: {what}");
}

fn nothing_is_held(rig: &Rig) -> bool {
    let (front, config) = (&rig.front, &rig.front.config);
    front.requests.available_permits() == config.requests_in_flight_max
        && front.public_bytes.free() == config.public_bytes_in_flight_max
        && front.free_answer_bytes() == config.answer_bytes_in_flight_max
}

#[tokio::test(start_paused = true)]
async fn refusals_that_are_not_taken_stop_nobody_and_their_connection_is_cut() {
    let rig = Rig::in_memory(FrontConfig {
        requests_in_flight_max: H2_STREAMS_MAX as usize,
        write_stall_timeout: Duration::from_millis(500),
        ..brief()
    });
    let client = with_window(&rig, 0).await;
    let asked = (0..H2_STREAMS_MAX).map(|_| {
        let mut client = client.clone();
        async move { ask(&mut client, Method::POST, "/add_value", "x".into()).await }
    });
    let mut untaken = join_all(asked).await;
    assert!(untaken.iter().all(|response| response.status() == 422));
    let add = with_user(json!({"key": "k", "value": "v"}));
    assert_eq!(rig.post("/add_value", &add).await.status, 200);
    assert!(!nothing_is_held(&rig), "what is to be sent is counted");
    until("the connection is cut", async || rig.metric(CUT).await == 1).await;
    until("all is given back", async || nothing_is_held(&rig)).await;
    assert!(untaken.pop().unwrap().into_body().collect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_which_a_part_is_never_taken_is_cut_and_gives_all_back() {
    // Nothing; a byte, so that the rest is already on its way; some frames.
    for window in [0, 1, 100_000] {
        for (method, path, body) in [
            (Method::GET, "/metrics", String::new()),
            (Method::POST, "/get_value", get_long(100)),
            (Method::POST, "/get_value", get_long(6)),
        ] {
            if window > 1 && !body.contains("100") {
                continue;
            }
            let rig = Rig::in_memory(brief());
            let mut client = with_window(&rig, window).await;
            let untaken = ask(&mut client, method, path, body).await;
            assert_eq!(untaken.status(), 200);
            assert!(!nothing_is_held(&rig), "{path}, window {window}");
            until("the connection is cut", async || rig.metric(CUT).await == 1).await;
            until("all is given back", async || nothing_is_held(&rig)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_a_stream_is_reset_with_nothing_done_until_another_one_ends() {
    let rig = Rig::in_memory(FrontConfig {
        h2_streams_max: 2,
        ..FrontConfig::default()
    });
    let mut stranger = with_window(&rig, 0).await;
    let mut untaken = Vec::new();
    for _ in 0..2 {
        untaken.push(ask(&mut stranger, Method::GET, "/openapi.json", String::new()).await);
    }
    let mut client = with_window(&rig, 1000).await;
    let add = with_user(json!({"key": "k", "value": "v"}));
    let asked = client.send_request(request(Method::POST, "/add_value", add.to_string().into()));
    let error = asked.await.expect_err("it is refused");
    let reset = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    assert_eq!(reset.and_then(h2::Error::reason), Some(h2::Reason::REFUSED_STREAM));
    assert!(rig.store.values("123", "k").is_empty(), "nothing was done");
    assert_eq!(rig.metric(r#"kv_http_refused_total{reason="streams"}"#).await, 1);
    let reply = rig.post("/add_value", &add).await;
    assert_eq!(reply.status, 200, "over HTTP/1 it goes on");
    untaken.pop();
    settle().await;
    let reply = ask(&mut client, Method::POST, "/add_value", add.to_string()).await;
    assert_eq!(reply.status(), 200);
}

/// Whether the front has a place for one more stream, of another connection.
async fn has_place(rig: &Rig) -> bool {
    let mut client = with_window(rig, 1000).await;
    let asked = client.send_request(request(Method::GET, "/healthz", Bytes::new()));
    asked.await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_refused_body_keeps_the_place_of_its_stream() {
    let rig = Rig::in_memory(FrontConfig {
        h2_streams_max: 2,
        ..FrontConfig::default()
    });
    let io = TokioIo::new(rig.connect().await);
    let (mut client, connection) = Builder::new(TokioExecutor::new()).handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let (body, rest) = Channel::<Bytes>::new(1);
        let nothing = request(Method::POST, "/nothere", Bytes::new()).map(|_| rest);
        let answer = client.send_request(nothing).await.unwrap();
        assert_eq!(answer.status(), 404);
        answer.into_body().collect().await.unwrap();
        bodies.push(body);
    }
    settle().await;
    assert!(!has_place(&rig).await);
    tokio::time::sleep(LINGER_TIME * 2).await;
    assert!(has_place(&rig).await);
}

#[tokio::test(start_paused = true)]
async fn connections_with_many_streams_leave_some_to_others() {
    let rig = Rig::in_memory(FrontConfig {
        h2_streams_max: 20 * H2_STREAMS_OWN_MIN,
        ..FrontConfig::default()
    });
    let mut untaken = Vec::new();
    for _ in 0..10 {
        let client = with_window(&rig, 0).await;
        let asked = (0..H2_STREAMS_MAX).map(|_| {
            let mut client = client.clone();
            async move {
                client.ready().await.ok()?;
                let asked = client.send_request(request(Method::GET, "/openapi.json", Bytes::new()));
                asked.await.ok()
            }
        });
        let answered: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        assert!(answered.len() >= H2_STREAMS_OWN_MIN, "{}", answered.len());
        untaken.push((client, answered));
        assert!(has_place(&rig).await);
    }
}

#[tokio::test(start_paused = true)]
async fn one_answer_that_is_not_taken_is_found_among_others_that_are() {
    let rig = Rig::in_memory(brief());
    let mut client = with_window(&rig, 10_000).await;
    let _untaken = ask(&mut client, Method::POST, "/get_value", get_long(100)).await;
    until("the connection is cut", async || {
        let mut client = client.clone();
        let taken = async move {
            client.ready().await.ok()?;
            let healthy = request(Method::GET, "/healthz", Bytes::new());
            client
                .send_request(healthy)
                .await
                .ok()?
                .into_body()
                .collect()
                .await
                .ok()
        };
        taken.await.is_none()
    })
    .await;
    assert_eq!(rig.metric(CUT).await, 1);
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_over_http2_gets_all_of_it() {
    let stall = Duration::from_millis(400);
    let rig = Rig::in_memory(FrontConfig {
        write_stall_timeout: stall,
        ..brief()
    });
    // One frame of an answer takes longer than the timeout.
    let mut client = with_window(&rig, 4096).await;
    let mut body = ask(&mut client, Method::POST, "/get_value", get_long(20))
        .await
        .into_body();
    let (started, mut bytes) = (tokio::time::Instant::now(), 0);
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert!(bytes > 20 * FRAGMENT_BYTES && started.elapsed() > stall * 3);
}

#[tokio::test]
async fn a_refusal_that_is_cut_short_says_all_the_same_whether_the_request_may_have_taken_effect() {
    let rig = Rig::with(FrontConfig {
        public_bytes_in_flight_max: 0,
        ..FrontConfig::default()
    });
    let add = with_user(json!({"key": "k", "value": "v"}));
    for (maybe_applied, code) in [(true, "deadline_exceeded"), (false, "deadline_exceeded")] {
        *rig.store.fail.lock() = Some(OpError::Deadline { maybe_applied });
        let reply = rig.post("/add_value", &add).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
        let told: ErrorBody = serde_json::from_slice(&reply.body).unwrap();
        let outage = told.outage.expect("what programs go by");
        assert_eq!(outage.may_have_taken_effect, maybe_applied);
        assert_eq!(reply.json()["code"], code);
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(detail.contains(MAYBE_APPLIED), maybe_applied, "{detail}");
    }
}

#[tokio::test]
async fn without_room_for_more_refusals_are_short_and_metrics_are_shared() {
    let rig = Rig::with(FrontConfig {
        public_bytes_in_flight_max: 0,
        ..FrontConfig::default()
    });
    let refused = rig.post("/add_value", &json!({})).await;
    assert_eq!(refused.status, 422);
    assert!(refused.json()["detail"].as_str().unwrap().contains("cut short"));
    // They are kept for a second.
    for _ in 0..10 {
        let [first, second] = [rig.get("/metrics").await, rig.get("/metrics").await];
        assert!(first.text().ends_with("# EOF\n"));
        if (first.status, &first.body) == (second.status, &second.body) {
            return;
        }
    }
    panic!("each one is made anew");
}
