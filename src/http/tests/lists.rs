use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::fake::{ANEW, FRAGMENT_BYTES, LONG};
use super::rig::{PIPE_BYTES, Rig, read_all, request, settle, whole, with_user};
use crate::http::FrontConfig;
use crate::http::config::{ANSWER_FRAME_BYTES, H2_SEND_BYTES_MAX, H2_STREAM_WINDOW_BYTES, HEAD_BYTES_MAX};

fn ask(key: &str) -> hyper::Request<http_body_util::Full<Bytes>> {
    let body = with_user(json!({"key": key})).to_string();
    request(Method::POST, "/get_value", body.into())
}

#[tokio::test]
async fn a_large_list_comes_in_frames_over_both_protocols() {
    let rig = Rig::start();
    let key = format!("{LONG}500");
    for reply in [
        rig.send(ask(&key)).await,
        whole(rig.respond_http2(ask(&key)).await).await,
    ] {
        assert_eq!((reply.status, reply.header("content-length")), (200, ""));
        let values = reply.json()["value"].as_array().unwrap().clone();
        assert!(
            values.len() == 500
                && values
                    .iter()
                    .all(|value| value.as_str().unwrap().len() == FRAGMENT_BYTES)
        );
    }
}

#[tokio::test]
async fn a_small_list_comes_whole() {
    let rig = Rig::start();
    let reply = rig.send(ask(&format!("{LONG}6"))).await;
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
}

#[tokio::test]
async fn a_list_that_begins_anew_before_any_of_it_was_sent_is_whole() {
    let rig = Rig::start();
    let anew = |count: usize| format!("{ANEW}{count}");
    let reply = rig.send(ask(&anew(3))).await.json();
    assert_eq!(reply, json!({"key": anew(3), "value": ["new"]}));
    // Whose first frame has gone out does not.
    let streamed = rig.send(ask(&anew(20))).await.json();
    assert_eq!(streamed["value"].as_array().unwrap().len(), 20);
    let operations = json!([{"op": "get_value", "key": anew(3)}, {"op": "get_value", "key": anew(20)}]);
    let body = with_user(json!({ "operations": operations })).to_string();
    let reply = rig.send(request(Method::POST, "/batch", body.into())).await.json();
    for result in reply["results"].as_array().unwrap() {
        assert_eq!(result["value"], json!(["new"]), "{result}");
    }
}

#[tokio::test]
async fn one_large_value_of_one_fragment_is_cut_into_frames() {
    let rig = Rig::start();
    let value = "\u{1}ж".repeat(400_000);
    rig.store.put("123", "k", &[&value]);
    let reply = rig.send(ask("k")).await;
    assert_eq!(reply.json(), json!({"key": "k", "value": [value]}));
    let mut body = rig.respond(ask("k")).await.into_body();
    while let Some(frame) = body.frame().await {
        assert!(frame.unwrap().into_data().unwrap().len() <= 2 * ANSWER_FRAME_BYTES);
    }
}

/// What lies between the reader and a client that takes nothing.
async fn pulled_bytes_while_the_client_waits(rig: &Rig) -> usize {
    settle().await;
    let pulled = rig.store.pulled.load(SeqCst);
    settle().await;
    assert_eq!(rig.store.pulled.load(SeqCst), pulled, "it goes on reading");
    pulled * FRAGMENT_BYTES
}

#[tokio::test]
async fn no_more_is_read_than_the_client_takes() {
    let rig = Rig::in_memory(FrontConfig::default());
    let mut stream = rig.connect().await;
    let body = with_user(json!({"key": format!("{LONG}5000")})).to_string();
    let head = format!(
        "POST /get_value HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let pulled = pulled_bytes_while_the_client_waits(&rig).await;
    assert!(
        pulled <= PIPE_BYTES + HEAD_BYTES_MAX + 4 * ANSWER_FRAME_BYTES,
        "{pulled} bytes"
    );
    let answer = read_all(stream).await;
    assert!(answer.len() > 5000 * FRAGMENT_BYTES && answer.ends_with("\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn no_more_is_read_than_the_client_takes_over_http2() {
    let rig = Rig::in_memory(FrontConfig::default());
    let response = rig.respond_http2(ask(&format!("{LONG}5000"))).await;
    let pulled = pulled_bytes_while_the_client_waits(&rig).await;
    // hyper's client allows 2 MiB to be on the way.
    let on_the_way = 2 * 1024 * 1024 + H2_SEND_BYTES_MAX + H2_STREAM_WINDOW_BYTES as usize;
    assert!(pulled <= on_the_way + 4 * ANSWER_FRAME_BYTES, "{pulled} bytes");
    assert_eq!(whole(response).await.json()["value"].as_array().unwrap().len(), 5000);
}

#[tokio::test]
async fn an_error_in_the_middle_breaks_the_answer_off() {
    let rig = Rig::start();
    let key = format!("{LONG}broken:100");
    for response in [rig.respond(ask(&key)).await, rig.respond_http2(ask(&key)).await] {
        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.is_err());
    }
    let raw = with_user(json!({"key": key})).to_string();
    let head = format!(
        "POST /get_value HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        raw.len()
    );
    let answer = rig.raw(format!("{head}{raw}")).await;
    assert!(answer.contains("xxx") && !answer.ends_with("0\r\n\r\n"));
    assert_eq!(rig.metric("kv_http_aborted_answers_total").await, 3);
    // An error before the first frame is an ordinary one.
    let reply = rig.send(ask(&format!("{LONG}broken:2"))).await;
    assert_eq!(reply.status, 500);
    assert!(matches!(reply.json()["detail"], Value::String(_)));
}
