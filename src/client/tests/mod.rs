//! The client against a node, over a network and by a clock that nothing but the test moves.

use std::time::Duration;

use serde_json::{Value, json};

use super::fake_node::memory::MemoryNet;
use super::fake_node::{FakeNode, Fault};
use super::*;
use crate::api::{Operation, OperationTerms, OutageCode};

mod answers;
mod batches;
mod failover;

/// An address at which nothing listens.
fn dead_url() -> String {
    let (address, _) = MemoryNet::bind();
    format!("http://{address}")
}

#[tokio::test]
async fn over_real_sockets_it_is_the_same() {
    let node = FakeNode::start();
    // A port that was given back is not given out again at once.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let client = Client::builder().url(format!("http://{gone}")).url(&node.url);
    let client = client.user("demo").password("secret").build().unwrap();
    client.add_value("key", "one").await.unwrap();
    node.fail_next(Fault::BreakAfter);
    client.add_value("key", "two").await.unwrap();
    assert_eq!(client.get_value("key").await.unwrap(), ["one", "two"]);
    assert_eq!(client.inner.transport.nodes.preferred(), 1);
    let nobody = Client::builder()
        .url(format!("http://{gone}"))
        .user("demo")
        .password("p");
    let error = nobody.retries(0).build().unwrap().get_value("key").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_added_can_be_got_and_cleared() {
    let node = FakeNode::in_memory();
    let client = node.client();
    client.add_value("key", "one").await.unwrap();
    client.add_value_part("key", "t").await.unwrap();
    client.add_value_part("key", "w").await.unwrap();
    assert_eq!(client.get_value("key").await.unwrap(), ["one"]);
    client.add_value("key", "o").await.unwrap();
    assert_eq!(client.get_value("key").await.unwrap(), ["one", "two"]);
    let page = Page {
        offset: 1,
        limit: Some(1),
    };
    assert_eq!(client.get_value_page("key", page).await.unwrap(), ["two"]);
    assert_eq!(client.count("key").await.unwrap(), 2);
    client.clear_key("key").await.unwrap();
    assert!(client.get_value("key").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn keys_and_users_are_listed() {
    let node = FakeNode::in_memory();
    let client = node.client();
    for key in ["a", "b", "c"] {
        client.add_value(key, "x").await.unwrap();
    }
    let page = client.list_keys(None, None, None).await.unwrap();
    assert_eq!(
        (page.keys, page.after),
        (vec!["a".to_owned(), "b".to_owned()], Some("b".to_owned()))
    );
    let page = client.list_keys(Some("c"), Some("b"), Some(5)).await.unwrap();
    assert_eq!((page.keys, page.after), (vec!["c".to_owned()], None));
    assert!(client.users_list().await.unwrap()[0].admin);
}

#[tokio::test(start_paused = true)]
async fn the_password_is_sent_as_its_lower_case_sha256() {
    assert_eq!(
        password_hash("secret"),
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    );
    let node = FakeNode::in_memory();
    let client = node.builder().password("wrong").build().unwrap();
    let error = client.get_value("key").await.unwrap_err();
    assert!(matches!(error, ClientError::Credentials { .. }), "{error}");
    assert_eq!(node.sent("path").len(), 1, "a refusal is not asked for twice");
}

#[tokio::test(start_paused = true)]
async fn an_add_whose_answer_is_lost_is_sent_again_under_the_same_id_and_counts_once() {
    let node = FakeNode::in_memory();
    node.fail_next(Fault::BreakAfter);
    node.fail_next(Fault::Overloaded);
    node.client().add_value("key", "x").await.unwrap();
    assert_eq!(node.list("key"), ["x"]);
    let ids = node.sent("request_id");
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn two_adds_of_the_same_value_are_two_values() {
    let node = FakeNode::in_memory();
    let client = node.client();
    client.add_value("key", "x").await.unwrap();
    client.add_value("key", "x").await.unwrap();
    client.add("key", "y", true, "mine").await.unwrap();
    client.add("key", "y", true, "mine").await.unwrap();
    assert_eq!(node.list("key"), ["x", "x", "y"]);
}

#[tokio::test(start_paused = true)]
async fn when_a_node_is_down_the_next_address_is_used_and_kept() {
    let node = FakeNode::in_memory();
    let urls = [dead_url(), node.url.clone()];
    let client = Client::builder()
        .urls(urls)
        .net(Arc::new(MemoryNet))
        .user("demo")
        .password("secret")
        .build()
        .unwrap();
    client.add_value("key", "x").await.unwrap();
    assert_eq!(client.inner.transport.nodes.preferred(), 1);
    client.add_value("key", "y").await.unwrap();
    assert_eq!(node.list("key"), ["x", "y"]);
}

#[tokio::test(start_paused = true)]
async fn when_an_answer_is_lost_the_next_node_is_asked_under_the_same_id() {
    let (first, second) = (FakeNode::in_memory(), FakeNode::in_memory());
    first.fail_next(Fault::BreakAfter);
    let client = first.builder().url(&second.url).build().unwrap();
    client.add_value("key", "x").await.unwrap();
    assert_eq!(first.sent("request_id"), second.sent("request_id"));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_users_is_sent_again_and_its_own_effect_is_known() {
    let node = FakeNode::in_memory();
    node.fail_next(Fault::BreakAfter);
    node.client().users_add("eve", "p", false).await.unwrap();
    assert_eq!(node.sent("name")[..2], [json!("eve"), json!("eve")]);
    node.client().users_passwd("eve", "q").await.unwrap();
    assert_eq!(node.sent("password_hash").last(), Some(&json!(password_hash("q"))));
    node.client().users_remove("eve").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_cluster_is_asked_and_changed_again_when_an_answer_is_lost() {
    let node = FakeNode::in_memory();
    node.fail_next(Fault::BreakAfter);
    assert_eq!(node.client().cluster_status().await.unwrap().replication, 3);
    node.client().cluster_remove("aa").await.unwrap();
    node.fail_next(Fault::BreakAfter);
    node.client().cluster_replace("bb", "cc").await.unwrap();
    let paths = [
        "/cluster/status",
        "/cluster/status",
        "/cluster/remove",
        "/cluster/replace",
        "/cluster/replace",
    ];
    assert_eq!(node.sent("path"), paths.map(|path| json!(path)));
    assert_eq!(
        (&node.sent("node")[2], &node.sent("new")[3]),
        (&json!("aa"), &json!("cc"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_value_goes_in_parts_with_ids_of_their_own() {
    let node = FakeNode::in_memory();
    let value = "\u{1f600}".repeat(PART_BYTES_MAX / 2);
    node.client().add_value("key", &value).await.unwrap();
    assert_eq!(node.list("key"), [value]);
    let ids = node.sent("request_id");
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[1].as_str().unwrap(), part_request_id(ids[0].as_str().unwrap(), 1));
    assert_eq!(node.sent("finish_value"), [json!(false), json!(true)]);
}

#[tokio::test(start_paused = true)]
async fn the_ids_of_parts_are_short_enough_and_none_that_another_add_would_have() {
    let node = FakeNode::in_memory();
    let client = node.client();
    let long = "x".repeat(PART_BYTES_MAX + 1);
    let longest_id = "i".repeat(crate::types::REQUEST_ID_BYTES_MAX);
    client.add("key", &long, true, &longest_id).await.unwrap();
    for id in node.sent("request_id") {
        assert!(id.as_str().unwrap().len() <= longest_id.len(), "{id}");
    }
    client.add("key", &long, true, "2024").await.unwrap();
    client.add("key", "small", true, "2024/1").await.unwrap();
    assert_eq!(node.list("key"), [long.as_str(), &long, "small"]);
    assert_eq!(part_request_id("2024", 0), "2024");
    assert_ne!(part_request_id("2024", 1), part_request_id("2024", 2));
    assert_ne!(part_request_id("2024", 1), part_request_id("2025", 1));
}

#[tokio::test(start_paused = true)]
async fn a_consistency_is_sent_with_every_call_of_that_client_and_with_no_other() {
    let node = FakeNode::in_memory();
    let client = node.client();
    let sure = client.with_consistency(Consistency::All);
    sure.add_value("key", "value").await.unwrap();
    sure.get_value("key").await.unwrap();
    sure.list_keys(None, None, None).await.unwrap();
    sure.batch(&mut []).await.unwrap();
    sure.clear_key("key").await.unwrap();
    client.count("key").await.unwrap();
    let sent = node.sent("consistency");
    assert_eq!(
        sent,
        [
            json!("all"),
            json!("all"),
            json!("all"),
            json!("all"),
            json!("all"),
            json!(null)
        ]
    );
}

#[test]
fn a_client_without_address_user_or_password_is_not_built() {
    let error = Client::builder()
        .user("u")
        .password("p")
        .build()
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("address"), "{error}");
    let error = Client::builder()
        .url("http://a")
        .password("p")
        .build()
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("user"), "{error}");
    let error = Client::builder()
        .url("http://a")
        .user("u")
        .build()
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("password"), "{error}");
}
