//! Nodes that answer what no node says that is well.

use super::*;

/// What no node says that is well.
fn wrong_answers() -> Vec<Fault> {
    let detail = json!({"detail": "d"});
    let refusals = [301, 404, 405, 500, 502, 504, 507].map(|status| Fault::Answer(status, detail.clone()));
    let others = [json!("<html>"), json!({"ok": true}), json!([1])].map(|answer| Fault::Answer(200, answer));
    refusals.into_iter().chain(others).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_wrongly_is_passed_over() {
    for wrong in wrong_answers() {
        let (failing, good) = (FakeNode::in_memory(), FakeNode::in_memory());
        failing.fail_always(wrong.clone());
        let client = client_of(&[&failing.url, &good.url]);
        let nodes = &client.inner.transport.nodes;
        client.add_value("key", "x").await.unwrap();
        assert_eq!(nodes.preferred(), 1, "{wrong:?}");
        nodes.prefer(0);
        assert_eq!(client.get_value("key").await.unwrap(), ["x"], "{wrong:?}");
        nodes.prefer(0);
        assert_eq!(client.count("key").await.unwrap(), 1, "{wrong:?}");
        nodes.prefer(0);
        let get = Operation::GetValue {
            key: "key".into(),
            offset: None,
            limit: None,
            count_only: false,
            terms: crate::api::OperationTerms::default(),
        };
        client.batch(&mut [get]).await.unwrap();
        assert_eq!(failing.sent("path").len(), 4, "{wrong:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_answer_wrongly_each_is_asked_once_and_the_first_is_told() {
    for wrong in wrong_answers() {
        let nodes = [FakeNode::in_memory(), FakeNode::in_memory(), FakeNode::in_memory()];
        nodes[0].fail_always(Fault::Answer(500, json!({"detail": "the first"})));
        nodes[1].fail_always(wrong.clone());
        nodes[2].fail_always(wrong);
        let client = client_of(&[&nodes[0].url, &nodes[1].url, &nodes[2].url]);
        let error = client.add_value("key", "x").await.unwrap_err();
        assert!(error.to_string().contains("the first"), "{error}");
        assert_eq!(nodes.each_ref().map(|node| node.sent("path").len()), [1, 1, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_wrongly_does_not_keep_the_others_from_being_asked_again() {
    let (wrong, busy) = (FakeNode::in_memory(), FakeNode::in_memory());
    wrong.fail_always(Fault::Answer(404, json!("no such page")));
    busy.fail_next(Fault::Overloaded);
    let client = client_of(&[&wrong.url, &busy.url]);
    client.add_value("key", "x").await.unwrap();
    assert_eq!((wrong.sent("path").len(), busy.sent("path").len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_any_node_would_give_is_asked_of_one_only() {
    for status in [401, 403, 409, 413, 422] {
        let nodes = [FakeNode::in_memory(), FakeNode::in_memory()];
        nodes[0].fail_next(Fault::Answer(status, json!({"detail": "no"})));
        let client = client_of(&[&nodes[0].url, &nodes[1].url]);
        client.add_value("key", "x").await.unwrap_err();
        assert!(nodes[1].sent("path").is_empty(), "{status}");
    }
    // A change of users is tried at another node only where that cannot do harm.
    let nodes = [FakeNode::in_memory(), FakeNode::in_memory()];
    nodes[0].fail_next(Fault::Answer(500, json!({"detail": "no"})));
    let client = client_of(&[&nodes[0].url, &nodes[1].url]);
    client.users_add("eve", "p", false).await.unwrap_err();
    assert!(nodes[1].sent("path").is_empty());
}
