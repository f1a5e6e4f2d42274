//! Lines on which one message takes longer than a silence may last.

use std::time::Duration;

use tokio::time::Instant;

use super::calls::is_count;
use super::memory_net::MemoryNet;
use super::rig::{Rig, ask, bytes, seconds, text};
use crate::node::peers::CallError;
use crate::wire::{MESSAGE_BYTES_MAX, Response};

#[tokio::test(start_paused = true)]
async fn the_largest_message_travels_on_a_slow_line() {
    const BYTES_PER_S: u32 = 20 << 10;
    let rig = Rig::on(MemoryNet::slow(BYTES_PER_S)).await;
    let begun = Instant::now();
    let text = MESSAGE_BYTES_MAX - 100;
    let call = rig.peer().call(bytes(text)).unwrap();
    assert!(is_count(call.await, text as u64));
    assert!(begun.elapsed().as_secs() >= text as u64 / u64::from(BYTES_PER_S));
    assert_eq!(rig.peer().figures().connects, 1);
}

/// Whether the answer is a text of so many bytes.
fn is_text(response: Result<Response, CallError>, bytes: usize) -> bool {
    matches!(response, Ok(Response::Status(text)) if text.len() == bytes)
}

#[tokio::test(start_paused = true)]
async fn the_largest_answer_travels_on_a_slow_line() {
    let rig = Rig::on(MemoryNet::slow(20 << 10)).await;
    let bytes = MESSAGE_BYTES_MAX - 100;
    let answer = rig.peer().call(text(bytes)).unwrap().await;
    assert!(is_text(answer, bytes));
    assert_eq!(rig.peer().figures().connects, 1);
}

#[tokio::test(start_paused = true)]
async fn more_answers_than_may_wait_travel_on_a_slow_line() {
    let rig = Rig::on(MemoryNet::slow(1 << 20)).await;
    let bytes = MESSAGE_BYTES_MAX - 100;
    let calls: Vec<_> = (0..5).map(|_| rig.peer().call(text(bytes)).unwrap()).collect();
    for call in calls {
        assert!(is_text(call.await, bytes));
    }
    assert_eq!(rig.peer().figures().connects, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_lies_in_buffers_for_long_is_not_silence() {
    // The node that answers sees nothing of it go, and the answers to keep-alives lie behind it.
    let rig = Rig::on(MemoryNet::slow(2 << 10)).await;
    let bytes = 50 << 10;
    let begun = Instant::now();
    let answer = rig.peer().call(text(bytes)).unwrap().await;
    assert!(is_text(answer, bytes) && begun.elapsed() > Duration::from_secs(20));
    seconds(5).await;
    assert_eq!(rig.peer().figures().connects, 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_turn_passes_it_on_while_there_is_no_room_for_answers() {
    let rig = Rig::on(MemoryNet::slow(16 << 10)).await;
    let peer = rig.peer();
    let asked = peer.call(ask()).unwrap();
    seconds(1).await;
    // Some are on their way, and the others are more than may wait.
    let texts: Vec<_> = (0..6)
        .map(|_| peer.call(text(MESSAGE_BYTES_MAX - 100)).unwrap())
        .collect();
    seconds(1).await;
    let turns = &rig.two.service.turns;
    turns.add_permits(1);
    let turn = tokio::time::timeout(Duration::from_secs(1), turns.acquire()).await;
    assert!(turn.is_ok(), "it is passed on");
    drop((asked, texts));
}
