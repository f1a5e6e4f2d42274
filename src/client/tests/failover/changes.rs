//! Changes of users and of members: where a second try knows what the first one did.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_change_of_users_goes_to_one_node_only() {
    let (slow, other) = (FakeNode::in_memory(), FakeNode::in_memory());
    slow.fail_next(Fault::Late(Duration::from_millis(600)));
    client_of(&[&slow.url, &other.url])
        .users_add("eve", "p", false)
        .await
        .unwrap();
    assert!(other.sent("path").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_users_is_not_sent_to_a_node_that_is_silent_before() {
    let (frozen, other) = (FakeNode::in_memory(), FakeNode::in_memory());
    frozen.fail_always(Fault::Silence);
    let client = builder_of(&[&frozen.url, &other.url]).timeout(Duration::from_millis(300));
    client.build().unwrap().users_add("eve", "p", false).await.unwrap();
    assert!(frozen.sent("path").is_empty());
    assert_eq!(other.sent("path"), [path::USERS_ADD]);
}

/// Two nodes of one cluster: what the first one did before its connection broke shows at the other.
async fn changed_at_the_second_try(
    before: &[(&str, &str)],
    after: &[(&str, &str)],
    change: impl AsyncFnOnce(Client) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let (broken, other) = (FakeNode::in_memory(), FakeNode::in_memory());
    let users = |users: &[(&str, &str)]| {
        let hashed = users
            .iter()
            .map(|(name, password)| ((*name).to_owned(), password_hash(password)));
        hashed.collect()
    };
    broken.with(|state| state.users = users(before));
    other.with(|state| state.users = users(after));
    broken.fail_next(Fault::BreakAfter);
    let changed = change(client_of(&[&broken.url, &other.url])).await;
    assert!(broken.sent("path").len() == 1 && !other.sent("path").is_empty());
    changed
}

#[tokio::test(start_paused = true)]
async fn a_change_of_users_goes_on_with_the_next_node_and_knows_its_own_effect() {
    let add = async |client: Client| client.users_add("eve", "p", false).await;
    let remove = async |client: Client| client.users_remove("eve").await;
    let passwd = async |client: Client| client.users_passwd(USER, "new").await;
    let own = USER;
    // What the first node did had come to the second one, or had not.
    changed_at_the_second_try(&[], &[("eve", "p")], add).await.unwrap();
    changed_at_the_second_try(&[], &[], add).await.unwrap();
    changed_at_the_second_try(&[("eve", "p")], &[], remove).await.unwrap();
    changed_at_the_second_try(&[("eve", "p")], &[("eve", "p")], remove)
        .await
        .unwrap();
    changed_at_the_second_try(&[], &[(own, "new")], passwd).await.unwrap();
    changed_at_the_second_try(&[], &[], passwd).await.unwrap();
    // Somebody else's user of that name is none of one's own, nor is one with another right.
    let refused = changed_at_the_second_try(&[], &[("eve", "other")], add).await;
    assert!(is_refused(&refused, 409), "{refused:?}");
    let admin = async |client: Client| client.users_add("eve", "p", true).await;
    let refused = changed_at_the_second_try(&[], &[("eve", "p")], admin).await;
    assert!(is_refused(&refused, 409), "{refused:?}");
    let refused = changed_at_the_second_try(&[], &[(own, "other")], passwd).await;
    assert!(matches!(refused, Err(ClientError::Credentials { .. })), "{refused:?}");
}

/// Two nodes of one cluster, the first of which fails in this way; what the second one says, and what it knows.
async fn replaced_at_the_second_try(
    fault: Fault,
    second: Fault,
    members: &[(&str, &'static str)],
) -> Result<(), ClientError> {
    let (failing, other) = (FakeNode::in_memory(), FakeNode::in_memory());
    failing.fail_next(fault);
    other.fail_next(second);
    other.with(|state| {
        let owned = members.iter().map(|(node, state)| ((*node).to_owned(), *state));
        state.members = owned.collect();
    });
    let client = builder_of(&[&failing.url, &other.url]).timeout(Duration::from_millis(300));
    let changed = client.build().unwrap().cluster_replace("01", "02").await;
    assert_eq!(other.sent("path")[0], crate::api::path::CLUSTER_REPLACE);
    changed
}

#[tokio::test(start_paused = true)]
async fn a_change_of_members_goes_on_with_the_next_node_and_knows_its_own_effect() {
    let refusal = || Fault::Answer(409, json!({"detail": "node 02 does not ask to be let in"}));
    for fault in [Fault::BreakAfter, Fault::Silence, Fault::Overloaded] {
        replaced_at_the_second_try(fault.clone(), Fault::None, &[])
            .await
            .unwrap();
        let done = [("01", "removed"), ("02", "up")];
        replaced_at_the_second_try(fault.clone(), refusal(), &done)
            .await
            .unwrap();
        for not_done in [
            [("01", "up"), ("02", "joining")],
            [("01", "removed"), ("02", "joining")],
        ] {
            let refused = replaced_at_the_second_try(fault.clone(), refusal(), &not_done).await;
            assert!(is_refused(&refused, 409), "{refused:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_first_try_is_what_it_says() {
    let node = FakeNode::in_memory();
    node.with(|state| state.users.insert("eve".to_owned(), password_hash("p")));
    let client = client_of(&[&node.url]);
    let refused = client.users_add("eve", "p", false).await;
    assert!(is_refused(&refused, 409), "{refused:?}");
    let refused = client.users_remove("nobody").await;
    assert!(is_refused(&refused, 404), "{refused:?}");
}
