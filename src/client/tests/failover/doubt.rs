//! What is said of a call that failed: whether it may have taken effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;

use super::*;
use crate::client::fake_node::memory::SILENT;

#[tokio::test(start_paused = true)]
async fn that_nothing_was_sent_is_not_said_after_something_was() {
    let node = FakeNode::in_memory();
    node.fail_always(Fault::BreakAfter);
    let client = builder_of(&[&node.url, &dead_url()]).retries(0).build().unwrap();
    let error = client.add_value("key", "x").await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn where_no_connection_came_about_in_time_nothing_was_sent() {
    let nobody = format!("http://{SILENT}");
    let impatient = |urls: &[&str]| builder_of(urls).timeout(Duration::from_millis(250)).retries(1);
    let client = impatient(&[&nobody]).build().unwrap();
    let in_doubt = AtomicBool::new(false);
    let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
    let error = added.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(!in_doubt.into_inner() && !error.is_in_doubt(), "{error}");
    assert!(error.to_string().contains("no connection within 0.25 s"), "{error}");
    // Not even a change of users, which is not sent twice after a silence, is in doubt.
    let (changed, took) = timed(client.users_remove("user")).await;
    assert!(matches!(changed, Err(ClientError::Unreachable { .. })), "{changed:?}");
    assert!(took >= Duration::from_millis(500), "it is tried once only: {took:?}");
    // Nor is what another node refuses then.
    let refusing = FakeNode::in_memory();
    refusing.fail_always(Fault::Answer(401, json!({"detail": "refused"})));
    let client = impatient(&[&nobody, &refusing.url]).build().unwrap();
    let error = client.add_value("key", "x").await.unwrap_err();
    assert!(matches!(error, ClientError::Credentials { .. }), "{error}");
    assert!(!error.is_in_doubt(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn where_the_time_is_over_while_connections_are_made_nothing_was_sent() {
    let nobody = format!("http://{SILENT}");
    let overloaded = FakeNode::in_memory();
    overloaded.fail_always(Fault::Overloaded);
    let brief = |urls: &[&str]| builder_of(urls).deadline(Duration::from_millis(250));
    let in_doubt = AtomicBool::new(false);
    let client = brief(&[&nobody]).build().unwrap();
    let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
    let error = added.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("no connection within 0.25 s"), "{error}");
    // What another node said says more.
    let client = brief(&[&nobody, &overloaded.url]).build().unwrap();
    let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
    let error = added.unwrap_err();
    assert!(!in_doubt.load(Ordering::Relaxed) && !error.is_in_doubt(), "{error}");
    // Nor is anything in doubt when one answers before there is a connection to the other.
    let quick = FakeNode::in_memory();
    let client = client_of(&[&nobody, &quick.url]);
    let (added, took) = timed(client.add_one_told("key", "x", true, "id", &in_doubt)).await;
    added.unwrap();
    assert!(took >= Duration::from_millis(300) && !in_doubt.into_inner(), "{took:?}");
}

/// What a node says that could not find out whether a request took effect; [`Fault::Overloaded`] changed nothing.
fn doubtful() -> Fault {
    let detail = "2 replicas are needed and 1 answered; this request may have taken effect: a retry with the same request_id is safe";
    Fault::Answer(503, json!({ "detail": detail }))
}

#[tokio::test(start_paused = true)]
async fn that_nothing_was_changed_is_not_said_after_a_try_that_may_have_changed_something() {
    for first in [
        Fault::BreakAfter,
        doubtful(),
        Fault::Answer(500, json!({"detail": "whether it took effect is unknown"})),
    ] {
        let nodes = [FakeNode::in_memory(), FakeNode::in_memory()];
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
    let node = FakeNode::in_memory();
    node.fail_always(Fault::Overloaded);
    let client = node.builder().retries(1).build().unwrap();
    let in_doubt = AtomicBool::new(false);
    let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
    assert!(!in_doubt.into_inner() && !added.unwrap_err().is_in_doubt());
}

#[tokio::test(start_paused = true)]
async fn a_try_that_is_cut_off_may_have_taken_effect_whatever_the_one_before_it_was_told() {
    let node = FakeNode::in_memory();
    node.fail_next(Fault::Overloaded);
    node.fail_always(Fault::Silence);
    let client = node.builder().deadline(Duration::from_millis(500)).build().unwrap();
    let in_doubt = AtomicBool::new(false);
    let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
    let error = added.unwrap_err();
    assert_eq!(node.sent("path").len(), 2);
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert!(error.is_in_doubt() && in_doubt.into_inner(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_was_never_there_is_not_removed_by_a_node_that_changed_nothing() {
    let remove_nobody = async |first: Fault| {
        let (failing, other) = (FakeNode::in_memory(), FakeNode::in_memory());
        failing.fail_next(first);
        client_of(&[&failing.url, &other.url]).users_remove("nobody").await
    };
    let refused = remove_nobody(Fault::Overloaded).await;
    assert!(is_refused(&refused, 404), "{refused:?}");
    remove_nobody(doubtful()).await.unwrap();
}

fn refusals() -> [Fault; 3] {
    [401, 403, 413].map(|status| Fault::Answer(status, json!({"detail": "refused"})))
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_one_node_waits_for_the_node_that_is_still_at_work() {
    for refusal in refusals() {
        let (slow, refusing) = (FakeNode::in_memory(), FakeNode::in_memory());
        let let_go = Arc::new(Notify::new());
        slow.fail_next(Fault::Held(let_go.clone()));
        refusing.fail_always(refusal.clone());
        let client = client_of(&[&slow.url, &refusing.url]);
        let let_go_when_refused = async {
            while refusing.sent("path").is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Long enough for the refusal to arrive first; the outcome is the same when it does not.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let_go.notify_one();
        };
        let (added, ()) = tokio::join!(client.add_value("key", "x"), let_go_when_refused);
        added.unwrap_or_else(|error| panic!("{refusal:?}: {error}"));
        assert_eq!(slow.list("key"), ["x"]);
        // It is no reason to ask anybody again.
        assert_eq!((slow.sent("path").len(), refusing.sent("path").len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_in_doubt_when_another_try_never_ended() {
    for refusal in refusals() {
        let (slow, refusing) = (FakeNode::in_memory(), FakeNode::in_memory());
        slow.fail_next(Fault::Held(Arc::default()));
        refusing.fail_always(refusal.clone());
        let builder = builder_of(&[&slow.url, &refusing.url]);
        let client = builder.deadline(Duration::from_secs(1)).build().unwrap();
        let in_doubt = AtomicBool::new(false);
        let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
        let error = added.unwrap_err();
        assert!(in_doubt.into_inner() && error.is_in_doubt(), "{refusal:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_refused_has_no_effect_to_wait_for() {
    let (silent, refusing) = (FakeNode::in_memory(), FakeNode::in_memory());
    silent.fail_always(Fault::Silence);
    refusing.fail_always(Fault::Answer(401, json!({"detail": "refused"})));
    // Were it waited for, the silent node would take for ever.
    let builder = builder_of(&[&silent.url, &refusing.url]).timeout(Duration::from_secs(86_400));
    let client = builder.deadline(Duration::from_secs(86_400)).build().unwrap();
    let (refused, took) = timed(client.count("key")).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, ClientError::Credentials { .. }), "{error}");
    assert!(!error.is_in_doubt());
    assert!(took < STALL_MAX, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_no_node_did_is_refused_without_doubt() {
    let (late, refusing) = (FakeNode::in_memory(), FakeNode::in_memory());
    let refusal = || Fault::Answer(401, json!({"detail": "refused"}));
    late.fail_always(refusal());
    refusing.fail_always(refusal());
    let in_doubt = AtomicBool::new(false);
    let client = client_of(&[&late.url, &refusing.url]);
    let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
    assert!(!in_doubt.into_inner() && !added.unwrap_err().is_in_doubt());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_answer_is_in_doubt_when_another_try_may_have_taken_effect() {
    let full = Fault::Answer(507, json!({"detail": "the disk is full"}));
    let failed = Fault::Answer(500, json!({"detail": "whether it took effect is unknown"}));
    let refused = Fault::Answer(401, json!({"detail": "refused"}));
    for faults in [
        [full.clone(), failed.clone()],
        [failed.clone(), full.clone()],
        [failed, refused.clone()],
        [Fault::BreakAfter, refused],
        // The node that nobody listens at is asked after both.
        [full, Fault::BreakAfter],
    ] {
        let nodes = [FakeNode::in_memory(), FakeNode::in_memory()];
        for (node, fault) in nodes.iter().zip(&faults) {
            node.fail_always(fault.clone());
        }
        let builder = builder_of(&[&nodes[0].url, &nodes[1].url, &dead_url()]);
        let client = builder.retries(0).build().unwrap();
        let in_doubt = AtomicBool::new(false);
        let added = client.add_one_told("key", "x", true, "id", &in_doubt).await;
        let error = added.unwrap_err();
        assert!(in_doubt.into_inner() && error.is_in_doubt(), "{faults:?}: {error}");
    }
}

/// What two operations come to, when the node that answers refuses the first of them and the one before that fails in this way.
async fn batch_at_the_second_try(first: Fault) -> Vec<BatchResult> {
    let (failing, refusing) = (FakeNode::in_memory(), FakeNode::in_memory());
    failing.fail_next(first);
    refusing.fail_next(Fault::RefuseInBatch(0));
    let terms = crate::api::OperationTerms::default;
    let mut operations = [
        Operation::AddValue {
            key: "a".into(),
            value: "x".into(),
            finish_value: true,
            request_id: None,
            terms: terms(),
        },
        Operation::ClearKey {
            key: "b".into(),
            request_id: None,
            terms: terms(),
        },
    ];
    let client = client_of(&[&failing.url, &refusing.url]);
    client.batch(&mut operations).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_in_a_batch_is_in_doubt_when_another_try_may_have_done_it() {
    for first in [Fault::BreakAfter, doubtful(), Fault::Silence] {
        let results = batch_at_the_second_try(first.clone()).await;
        let error = results[0].as_ref().unwrap_err();
        assert!(matches!(error, ClientError::Unavailable { .. }), "{first:?}: {error}");
        assert!(error.is_in_doubt(), "{first:?}: {error}");
        assert!(results[1].is_ok(), "{first:?}");
    }
    let results = batch_at_the_second_try(Fault::Overloaded).await;
    assert!(!results[0].as_ref().unwrap_err().is_in_doubt());
}
