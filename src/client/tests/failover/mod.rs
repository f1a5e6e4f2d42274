//! Several nodes of which some fail: calls succeed, soon, and count once.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::client::fake_node::{PASSWORD, USER};

mod batches;
mod changes;
mod doubt;
mod waiting;
mod wrong_answers;

/// The stall that is allowed with a node that is frozen.
const STALL_MAX: Duration = Duration::from_secs(1);

fn client_of(urls: &[&str]) -> Client {
    builder_of(urls).build().unwrap()
}

fn builder_of(urls: &[&str]) -> ClientBuilder {
    Client::builder()
        .urls(urls.iter().copied())
        .net(Arc::new(MemoryNet))
        .user(USER)
        .password(PASSWORD)
}

/// The names of all requests that were sent, wherever.
fn request_ids(nodes: &[&FakeNode]) -> BTreeSet<String> {
    let sent = nodes.iter().flat_map(|node| node.sent("request_id"));
    sent.map(|id| id.as_str().expect("a request id").to_owned()).collect()
}

/// Its answer, and how long that took.
async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let answer = call.await;
    (answer, start.elapsed())
}

fn is_refused(answer: &Result<(), ClientError>, with: u16) -> bool {
    matches!(answer, Err(ClientError::Refused { status, .. }) if *status == with)
}

#[tokio::test(start_paused = true)]
async fn a_frozen_node_costs_one_short_stall_and_is_left_alone_then() {
    let (frozen, other) = (FakeNode::in_memory(), FakeNode::in_memory());
    frozen.fail_always(Fault::Silence);
    let client = client_of(&[&frozen.url, &other.url]);
    let (added, took) = timed(client.add_value("key", "x")).await;
    added.unwrap();
    assert!(took < STALL_MAX, "{took:?}");
    for value in ["y", "z"] {
        client.add_value("key", value).await.unwrap();
    }
    client.clear_key("other").await.unwrap();
    assert_eq!(client.get_value("key").await.unwrap(), ["x", "y", "z"]);
    assert_eq!(frozen.sent("path"), [json!(path::ADD_VALUE)]);
    assert_eq!(frozen.sent("request_id")[0], other.sent("request_id")[0]);
}

#[tokio::test(start_paused = true)]
async fn one_good_node_behind_a_dead_and_a_frozen_one_is_found_in_time() {
    let (frozen, good) = (FakeNode::in_memory(), FakeNode::in_memory());
    frozen.fail_always(Fault::Silence);
    let client = client_of(&[&dead_url(), &frozen.url, &good.url]);
    let (added, took) = timed(client.add_value("key", "x")).await;
    added.unwrap();
    assert!(took < STALL_MAX, "{took:?}");
    assert_eq!(good.list("key"), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn who_answers_that_it_cannot_now_is_asked_again_while_another_one_is_silent() {
    let (frozen, other) = (FakeNode::in_memory(), FakeNode::in_memory());
    frozen.fail_always(Fault::Silence);
    let client = builder_of(&[&frozen.url, &other.url]).retries(0).build().unwrap();
    for _ in 0..2 {
        other.fail_next(Fault::Overloaded);
    }
    let (added, took) = timed(client.add_value("key", "x")).await;
    added.unwrap();
    assert_eq!(other.list("key"), ["x"]);
    assert_eq!(other.sent("path").len(), 3);
    assert!(took < 10 * STALL_MAX, "it waits for the silent one: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_at_one_node_or_at_all_every_add_is_one() {
    let (first, second) = (FakeNode::in_memory(), FakeNode::in_memory());
    let client = client_of(&[&first.url, &second.url]);
    let faults = [
        Fault::BreakAfter,
        Fault::Overloaded,
        Fault::CutAnswer(5),
        Fault::Silence,
    ];
    for fault in &faults {
        client.inner.transport.nodes.prefer(0);
        first.fail_next(fault.clone());
        let (added, took) = timed(client.add_value("key", "x")).await;
        added.unwrap();
        assert!(took < STALL_MAX, "{fault:?} {took:?}");
    }
    assert_eq!((first.list("key").len(), second.list("key").len()), (2, 4));
    assert_eq!(request_ids(&[&first, &second]).len(), 4);
    for fault in &faults[..3] {
        for node in [&first, &second] {
            node.fail_next(fault.clone());
        }
        client.add_value("key", "x").await.unwrap();
        let left = [&first, &second].map(|node| node.with(|state| state.faults.len()));
        assert_eq!(left, [0, 0]);
    }
    assert_eq!(request_ids(&[&first, &second]).len(), 7);
}

#[tokio::test(start_paused = true)]
async fn many_adds_under_way_to_a_node_that_freezes_all_go_to_the_next() {
    const ADDS: usize = 64;
    let (frozen, other) = (FakeNode::in_memory(), FakeNode::in_memory());
    let client = client_of(&[&frozen.url, &other.url]);
    client.add_value("key", "before").await.unwrap();
    frozen.fail_always(Fault::Silence);
    let adds = (0..ADDS).map(|index| {
        let client = client.clone();
        async move { timed(client.add_value("key", &index.to_string())).await }
    });
    for (added, took) in futures_util::future::join_all(adds).await {
        added.unwrap();
        assert!(took < STALL_MAX, "{took:?}");
    }
    assert_eq!(other.list("key").len(), ADDS);
    assert_eq!(request_ids(&[&frozen, &other]).len(), ADDS + 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_is_passed_over_at_once_and_asked_last_for_a_while() {
    let (full, other) = (FakeNode::in_memory(), FakeNode::in_memory());
    full.fail_always(Fault::Overloaded);
    let client = client_of(&[&full.url, &other.url]);
    let (added, took) = timed(client.add_value("key", "x")).await;
    added.unwrap();
    assert!(took < Duration::from_millis(200), "{took:?}");
    // The preferred one fails for once: the one that refused is still asked after it.
    other.fail_next(Fault::Overloaded);
    full.with(|state| state.always = None);
    client.add_value("key", "y").await.unwrap();
    assert_eq!(
        (full.list("key"), other.list("key")),
        (vec!["y".to_owned()], vec!["x".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn who_did_not_get_the_body_in_time_did_nothing_and_is_asked_again() {
    let too_slow = || Fault::Answer(408, json!({"detail": "the body did not arrive in time"}));
    let (first, second) = (FakeNode::in_memory(), FakeNode::in_memory());
    first.fail_next(too_slow());
    client_of(&[&first.url]).add_value("key", "x").await.unwrap();
    assert_eq!((first.sent("path").len(), first.list("key")), (2, vec!["x".to_owned()]));
    first.fail_always(too_slow());
    client_of(&[&first.url, &second.url])
        .add_value("key", "y")
        .await
        .unwrap();
    assert_eq!(second.list("key"), ["y"]);
    let client = builder_of(&[&first.url]).retries(1).build().unwrap();
    let error = client.clear_key("key").await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert!(!error.is_in_doubt() && error.to_string().contains("in time"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_that_answers_others_meanwhile_is_given_longer() {
    let (slow, other) = (FakeNode::in_memory(), FakeNode::in_memory());
    let client = client_of(&[&slow.url, &other.url]);
    slow.fail_next(Fault::Late(Duration::from_millis(600)));
    let late = client.add_value("key", "late");
    let lively = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            client.count("key").await.unwrap();
        }
    };
    let (added, ()) = tokio::join!(late, lively);
    added.unwrap();
    assert!(other.sent("path").is_empty());
    assert_eq!(slow.list("key"), ["late"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_of_two_answers_counts_and_a_late_one_harms_nothing() {
    let (slow, quick) = (FakeNode::in_memory(), FakeNode::in_memory());
    slow.fail_next(Fault::Late(Duration::from_millis(400)));
    quick.fail_next(Fault::Late(Duration::from_millis(400)));
    let client = client_of(&[&slow.url, &quick.url]);
    client.add_value("key", "x").await.unwrap();
    assert_eq!(slow.list("key"), ["x"]);
    assert_eq!(client.inner.transport.nodes.preferred(), 0);
    assert_eq!(request_ids(&[&slow, &quick]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_reset_in_its_middle_is_asked_of_the_next_node() {
    let (first, second) = (FakeNode::in_memory(), FakeNode::in_memory());
    let client = client_of(&[&first.url, &second.url]);
    second.with(|state| state.lists.insert("key".to_owned(), vec!["some value".to_owned()]));
    for _ in 0..2 {
        first.fail_next(Fault::CutAnswer(0));
        let mut stream = client.get_value_stream("key", Page::default()).await.unwrap();
        assert_eq!(stream.next_value().await.unwrap().unwrap(), "some value");
        client.inner.transport.nodes.prefer(0);
    }
    first.fail_next(Fault::CutAnswer(25));
    assert_eq!(client.get_value("key").await.unwrap(), ["some value"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_and_the_nodes_know_it() {
    let nodes = [FakeNode::in_memory(), FakeNode::in_memory()];
    let client = client_of(&[&nodes[0].url, &nodes[1].url]);
    client.add_value("key", "x").await.unwrap();
    for node in &nodes {
        node.fail_always(Fault::Silence);
    }
    let hurried = client.with_deadline(Duration::from_millis(500));
    let (refused, took) = timed(hurried.add_value("key", "y")).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    assert!(error.to_string().contains("0.5 s"), "{error}");
    assert!(took >= Duration::from_millis(490) && took < STALL_MAX, "{took:?}");
    assert_eq!(nodes[0].sent("deadline_ms"), [Value::Null, json!(500)]);
    assert_eq!(nodes[1].sent("deadline_ms"), [json!(500)]);
    // Pauses end with it too.
    for node in &nodes {
        node.fail_always(Fault::Overloaded);
    }
    let patient = builder_of(&[&nodes[0].url])
        .retries(1000)
        .deadline(Duration::from_millis(300));
    let (refused, took) = timed(patient.build().unwrap().count("key")).await;
    assert!(matches!(refused, Err(ClientError::Unavailable { .. })), "{refused:?}");
    assert!(took < STALL_MAX, "{took:?}");
}
