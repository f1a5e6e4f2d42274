//! What is said of a call that failed: whether it may have taken effect.

use super::*;

#[tokio::test]
async fn that_nothing_was_sent_is_not_said_after_something_was() {
    let node = FakeNode::start();
    node.fail_always(Fault::BreakAfter);
    let client = builder_of(&[&node.url, &dead_url()]).retries(0).build().unwrap();
    let error = client.add_value("key", "x").await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
}

/// What a node says that could not find out whether a request took effect; [`Fault::Overloaded`] changed nothing.
fn doubtful() -> Fault {
    let detail = "2 replicas are needed and 1 answered; this request may have taken effect: a retry with the same request_id is safe";
    Fault::Answer(503, json!({ "detail": detail }))
}

#[tokio::test]
async fn that_nothing_was_changed_is_not_said_after_a_try_that_may_have_changed_something() {
    for first in [
        Fault::BreakAfter,
        doubtful(),
        Fault::Answer(500, json!({"detail": "whether it took effect is unknown"})),
    ] {
        let nodes = [FakeNode::start(), FakeNode::start()];
        nodes[0].fail_next(first.clone());
        nodes[0].fail_always(Fault::Overloaded);
        nodes[1].fail_always(Fault::Overloaded);
        let client = builder_of(&[&nodes[0].url, &nodes[1].url]).retries(1).build().unwrap();
        let in_doubt = AtomicBool::new(false);
        let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
        let error = added.unwrap_err();
        assert!(in_doubt.into_inner() && error.is_in_doubt(), "{first:?}: {error}");
        assert!(error.to_string().contains("took effect") || error.to_string().contains("taken effect"));
    }
    let node = FakeNode::start();
    node.fail_always(Fault::Overloaded);
    let client = node.builder().retries(1).build().unwrap();
    let in_doubt = AtomicBool::new(false);
    let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
    assert!(!in_doubt.into_inner() && !added.unwrap_err().is_in_doubt());
}

#[tokio::test]
async fn a_try_that_is_cut_off_may_have_taken_effect_whatever_the_one_before_it_was_told() {
    let node = FakeNode::start();
    node.fail_next(Fault::Overloaded);
    node.fail_always(Fault::Silence);
    let client = node.builder().deadline(Duration::from_millis(500)).build().unwrap();
    let in_doubt = AtomicBool::new(false);
    let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
    let error = added.unwrap_err();
    assert_eq!(node.sent("path").len(), 2);
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    assert!(in_doubt.into_inner());
}

#[tokio::test]
async fn who_was_never_there_is_not_removed_by_a_node_that_changed_nothing() {
    let remove_nobody = async |first: Fault| {
        let (failing, other) = (FakeNode::start(), FakeNode::start());
        failing.fail_next(first);
        client_of(&[&failing.url, &other.url]).users_remove("nobody").await
    };
    let refused = remove_nobody(Fault::Overloaded).await;
    assert!(is_refused(&refused, 404), "{refused:?}");
    remove_nobody(doubtful()).await.unwrap();
}
