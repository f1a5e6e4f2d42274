//! What one client, known or not, can keep from all others.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::limits::{add_of, post};
use super::rig::{Rig, read_all, with_user};
use super::slow::impatient;
use crate::env::Stream;
use crate::http::FrontConfig;

const LONG_BODY_BYTES: usize = 512 * 1024;

/// Sends all but the last byte of a long body.
async fn nearly_all_of_a_body(rig: &Rig) -> Box<dyn Stream> {
    let mut stream = rig.connect().await;
    let headers = format!("content-length: {LONG_BODY_BYTES}\r\n");
    let body = add_of(LONG_BODY_BYTES);
    let (body, _last) = body.split_at(LONG_BODY_BYTES - 1);
    let request = post("/add_value", &headers, body.as_bytes());
    stream.write_all(&request).await.unwrap();
    super::rig::settle().await;
    stream
}

#[tokio::test(start_paused = true)]
async fn long_bodies_that_do_not_end_stop_no_short_ones_and_are_soon_cut() {
    let config = FrontConfig {
        body_bytes_in_flight_max: 2 * LONG_BODY_BYTES,
        ..impatient()
    };
    let grace = config.body_grace;
    let rig = Rig::in_memory(config);
    let streams = [nearly_all_of_a_body(&rig).await, nearly_all_of_a_body(&rig).await];
    let begun = Instant::now();
    assert_eq!(rig.front.body_bytes.free(), 2);
    let get = with_user(json!({"key": "k"}));
    assert_eq!(rig.post("/get_value", &get).await.status, 200);
    for stream in streams {
        let answer = read_all(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    // At the least rate, what they sent is worth 32 seconds.
    assert!(begun.elapsed() < 3 * grace, "{:?}", begun.elapsed());
    assert_eq!(rig.front.body_bytes.free(), rig.front.config.body_bytes_in_flight_max);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_never_come_keep_neither_places_nor_bytes_from_others() {
    let add = with_user(json!({"key": "k", "value": "v"}));
    let room = add.to_string().len();
    let rig = Rig::in_memory(FrontConfig {
        requests_in_flight_max: 1,
        body_bytes_in_flight_max: room,
        short_body_bytes_in_flight_max: room,
        ..impatient()
    });
    let mut silent = Vec::new();
    for _ in 0..5 {
        let mut stream = rig.connect().await;
        let head = post("/add_value", &format!("content-length: {room}\r\n"), b"");
        stream.write_all(&head).await.unwrap();
        silent.push(stream);
    }
    super::rig::settle().await;
    assert_eq!(rig.post("/add_value", &add).await.status, 200);
    for stream in silent {
        let answer = read_all(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_at_the_least_rate_is_taken() {
    let rig = Rig::in_memory(FrontConfig {
        body_grace: Duration::from_secs(1),
        ..FrontConfig::default()
    });
    let mut stream = rig.connect().await;
    let headers = format!("connection: close\r\ncontent-length: {LONG_BODY_BYTES}\r\n");
    let request = post("/add_value", &headers, add_of(LONG_BODY_BYTES).as_bytes());
    for piece in request.chunks(rig.front.config.body_bytes_per_s_min as usize / 10) {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer = read_all(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn short_bodies_beyond_their_permits_take_those_of_long_ones() {
    let rig = Rig::in_memory(FrontConfig {
        short_body_bytes_in_flight_max: 10,
        ..FrontConfig::default()
    });
    let add = with_user(json!({"key": "k", "value": "v"}));
    assert_eq!(rig.post("/add_value", &add).await.status, 200);
    assert_eq!(rig.front.short_body_bytes.free(), 10);
    let free = rig.front.body_bytes.free();
    assert_eq!(free, rig.front.config.body_bytes_in_flight_max);
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_batch_of_counts_is_held_under_its_own_length() {
    let rig = Rig::in_memory(FrontConfig::default());
    let (key, counts) = ("k".repeat(1000), 2_000);
    let count = json!({"op": "get_value", "key": key, "count_only": true});
    let body = with_user(json!({"operations": vec![count; counts]})).to_string();
    let headers = format!("content-length: {}\r\n", body.len());
    let mut stream = rig.connect().await;
    let before = rig.front.free_answer_bytes();
    stream
        .write_all(&post("/batch", &headers, body.as_bytes()))
        .await
        .unwrap();
    super::rig::settle().await;
    let held = before - rig.front.free_answer_bytes();
    assert!(held > counts * key.len(), "{held}");
}
