//! Several nodes of which some fail: calls succeed, soon, and count once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::fake_node::{FakeNode, Fault};
use super::*;

/// The stall that is allowed with a node that is frozen.
const STALL_MAX: Duration = Duration::from_secs(1);

/// An address at which nothing listens.
fn dead_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn client_of(urls: &[&str]) -> Client {
    builder_of(urls).build().unwrap()
}

fn builder_of(urls: &[&str]) -> ClientBuilder {
    Client::builder()
        .urls(urls.iter().copied())
        .user(super::fake_node::USER)
        .password(super::fake_node::PASSWORD)
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

#[tokio::test]
async fn a_frozen_node_costs_one_short_stall_and_is_left_alone_then() {
    let (frozen, other) = (FakeNode::start(), FakeNode::start());
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

#[tokio::test]
async fn one_good_node_behind_a_dead_and_a_frozen_one_is_found_in_time() {
    let (frozen, good) = (FakeNode::start(), FakeNode::start());
    frozen.fail_always(Fault::Silence);
    let client = client_of(&[&dead_url(), &frozen.url, &good.url]);
    let (added, took) = timed(client.add_value("key", "x")).await;
    added.unwrap();
    assert!(took < STALL_MAX, "{took:?}");
    assert_eq!(good.list("key"), ["x"]);
}

#[tokio::test]
async fn who_answers_that_it_cannot_now_is_asked_again_while_another_one_is_silent() {
    let (frozen, other) = (FakeNode::start(), FakeNode::start());
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

#[tokio::test]
async fn whatever_fails_at_one_node_or_at_all_every_add_is_one() {
    let (first, second) = (FakeNode::start(), FakeNode::start());
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

#[tokio::test]
async fn many_adds_under_way_to_a_node_that_freezes_all_go_to_the_next() {
    const ADDS: usize = 64;
    let (frozen, other) = (FakeNode::start(), FakeNode::start());
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

#[tokio::test]
async fn a_node_that_refuses_is_passed_over_at_once_and_asked_last_for_a_while() {
    let (full, other) = (FakeNode::start(), FakeNode::start());
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

#[tokio::test]
async fn a_slow_node_that_answers_others_meanwhile_is_given_longer() {
    let (slow, other) = (FakeNode::start(), FakeNode::start());
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

#[tokio::test]
async fn the_first_of_two_answers_counts_and_a_late_one_harms_nothing() {
    let (slow, quick) = (FakeNode::start(), FakeNode::start());
    slow.fail_next(Fault::Late(Duration::from_millis(400)));
    quick.fail_next(Fault::Late(Duration::from_millis(400)));
    let client = client_of(&[&slow.url, &quick.url]);
    client.add_value("key", "x").await.unwrap();
    assert_eq!(slow.list("key"), ["x"]);
    assert_eq!(client.inner.transport.nodes.preferred(), 0);
    assert_eq!(request_ids(&[&slow, &quick]).len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_reset_in_its_middle_is_asked_of_the_next_node() {
    let (first, second) = (FakeNode::start(), FakeNode::start());
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

#[tokio::test]
async fn a_change_of_users_goes_to_one_node_only() {
    let (slow, other) = (FakeNode::start(), FakeNode::start());
    slow.fail_next(Fault::Late(Duration::from_millis(600)));
    client_of(&[&slow.url, &other.url])
        .users_add("eve", "p", false)
        .await
        .unwrap();
    assert!(other.sent("path").is_empty());
}

/// Two nodes of one cluster: what the first one did before its connection broke shows at the other.
async fn changed_at_the_second_try(
    before: &[(&str, &str)],
    after: &[(&str, &str)],
    change: impl AsyncFnOnce(Client) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let (broken, other) = (FakeNode::start(), FakeNode::start());
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

#[tokio::test]
async fn a_change_of_users_goes_on_with_the_next_node_and_knows_its_own_effect() {
    let add = async |client: Client| client.users_add("eve", "p", false).await;
    let remove = async |client: Client| client.users_remove("eve").await;
    let passwd = async |client: Client| client.users_passwd(super::fake_node::USER, "new").await;
    let own = super::fake_node::USER;
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
    assert!(
        matches!(refused, Err(ClientError::Refused { status: 409, .. })),
        "{refused:?}"
    );
    let admin = async |client: Client| client.users_add("eve", "p", true).await;
    let refused = changed_at_the_second_try(&[], &[("eve", "p")], admin).await;
    assert!(
        matches!(refused, Err(ClientError::Refused { status: 409, .. })),
        "{refused:?}"
    );
    let refused = changed_at_the_second_try(&[], &[(own, "other")], passwd).await;
    assert!(matches!(refused, Err(ClientError::Credentials { .. })), "{refused:?}");
}

/// Two nodes of one cluster, the first of which fails in this way; what the second one says, and what it knows.
async fn replaced_at_the_second_try(
    fault: Fault,
    second: Fault,
    members: &[(&str, &'static str)],
) -> Result<(), ClientError> {
    let (failing, other) = (FakeNode::start(), FakeNode::start());
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

#[tokio::test]
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
            assert!(
                matches!(refused, Err(ClientError::Refused { status: 409, .. })),
                "{refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_refusal_of_the_first_try_is_what_it_says() {
    let node = FakeNode::start();
    node.with(|state| state.users.insert("eve".to_owned(), password_hash("p")));
    let client = client_of(&[&node.url]);
    let refused = client.users_add("eve", "p", false).await;
    assert!(
        matches!(refused, Err(ClientError::Refused { status: 409, .. })),
        "{refused:?}"
    );
    let refused = client.users_remove("nobody").await;
    assert!(
        matches!(refused, Err(ClientError::Refused { status: 404, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_the_nodes_know_it() {
    let nodes = [FakeNode::start(), FakeNode::start()];
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
    assert!(matches!(refused, Err(ClientError::Overloaded { .. })), "{refused:?}");
    assert!(took < STALL_MAX, "{took:?}");
}

/// What no node says that is well.
fn wrong_answers() -> Vec<Fault> {
    let detail = json!({"detail": "d"});
    let refusals = [301, 404, 405, 500, 502, 504, 507].map(|status| Fault::Answer(status, detail.clone()));
    let others = [json!("<html>"), json!({"ok": true}), json!([1])].map(|answer| Fault::Answer(200, answer));
    refusals.into_iter().chain(others).collect()
}

#[tokio::test]
async fn a_node_that_answers_wrongly_is_passed_over() {
    for wrong in wrong_answers() {
        let (failing, good) = (FakeNode::start(), FakeNode::start());
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
        client.batch(vec![get]).await.unwrap();
        assert_eq!(failing.sent("path").len(), 4, "{wrong:?}");
    }
}

#[tokio::test]
async fn when_all_answer_wrongly_each_is_asked_once_and_the_first_is_told() {
    for wrong in wrong_answers() {
        let nodes = [FakeNode::start(), FakeNode::start(), FakeNode::start()];
        nodes[0].fail_always(Fault::Answer(500, json!({"detail": "the first"})));
        nodes[1].fail_always(wrong.clone());
        nodes[2].fail_always(wrong);
        let client = client_of(&[&nodes[0].url, &nodes[1].url, &nodes[2].url]);
        let error = client.add_value("key", "x").await.unwrap_err();
        assert!(error.to_string().contains("the first"), "{error}");
        assert_eq!(nodes.each_ref().map(|node| node.sent("path").len()), [1, 1, 1]);
    }
}

#[tokio::test]
async fn a_node_that_answers_wrongly_does_not_keep_the_others_from_being_asked_again() {
    let (wrong, busy) = (FakeNode::start(), FakeNode::start());
    wrong.fail_always(Fault::Answer(404, json!("no such page")));
    busy.fail_next(Fault::Overloaded);
    let client = client_of(&[&wrong.url, &busy.url]);
    client.add_value("key", "x").await.unwrap();
    assert_eq!((wrong.sent("path").len(), busy.sent("path").len()), (1, 2));
}

#[tokio::test]
async fn a_refusal_that_any_node_would_give_is_asked_of_one_only() {
    for status in [401, 403, 409, 413, 422] {
        let nodes = [FakeNode::start(), FakeNode::start()];
        nodes[0].fail_next(Fault::Answer(status, json!({"detail": "no"})));
        let client = client_of(&[&nodes[0].url, &nodes[1].url]);
        client.add_value("key", "x").await.unwrap_err();
        assert!(nodes[1].sent("path").is_empty(), "{status}");
    }
    // A change of users is tried at another node only where that cannot do harm.
    let nodes = [FakeNode::start(), FakeNode::start()];
    nodes[0].fail_next(Fault::Answer(500, json!({"detail": "no"})));
    let client = client_of(&[&nodes[0].url, &nodes[1].url]);
    client.users_add("eve", "p", false).await.unwrap_err();
    assert!(nodes[1].sent("path").is_empty());
}

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
    assert!(matches!(error, ClientError::Overloaded { .. }), "{error}");
    assert!(error.is_in_doubt() && in_doubt.into_inner(), "{error}");
}

/// Two of three nodes are gone, one of them without a word; the third says that it is too few.
async fn one_of_three(retries: u32, deadline: Duration, notice: impl Fn(&Waiting) + Send + Sync + 'static) -> Client {
    let (frozen, left) = (FakeNode::start(), FakeNode::start());
    frozen.fail_always(Fault::Silence);
    let detail = "2 replicas are needed and 1 answered: nothing was changed";
    left.fail_always(Fault::Answer(503, json!({ "detail": detail })));
    let builder = builder_of(&[&frozen.url, &left.url, &dead_url()]).retries(retries);
    let builder = builder.deadline(deadline).on_wait(Duration::from_secs(1), notice);
    builder.build().unwrap()
}

#[tokio::test]
async fn what_the_last_node_says_is_told_and_a_read_has_no_effect_that_could_be_in_doubt() {
    let client = one_of_three(100, Duration::from_millis(1_500), |_| {}).await;
    let get = Operation::GetValue {
        key: "key".into(),
        offset: None,
        limit: None,
        count_only: false,
        terms: crate::api::OperationTerms::default(),
    };
    let errors = [
        client.get_value("key").await.map(|_| ()),
        client.count("key").await.map(|_| ()),
        client.list_keys(None, None, None).await.map(|_| ()),
        client.users_list().await.map(|_| ()),
        client.cluster_status().await.map(|_| ()),
        client.batch(vec![get]).await.map(|_| ()),
    ];
    for (read, error) in errors.into_iter().enumerate() {
        let error = error.unwrap_err();
        assert!(matches!(error, ClientError::Overloaded { .. }), "{read}: {error}");
        assert!(error.to_string().contains("1 answered"), "{read}: {error}");
        assert!(
            !error.is_in_doubt() && !error.to_string().contains("effect"),
            "{read}: {error}"
        );
    }
    let error = client.add_value("key", "x").await.unwrap_err();
    assert!(matches!(error, ClientError::Overloaded { .. }), "{error}");
    assert!(
        error.to_string().contains("1 answered") && error.is_in_doubt(),
        "{error}"
    );
}

#[tokio::test]
async fn who_waits_is_told_once_what_for() {
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let notice = move |waiting: &Waiting| hears.lock().unwrap().push(waiting.clone());
    let client = one_of_three(100, Duration::from_millis(1_500), notice).await;
    client.get_value("key").await.unwrap_err();
    let told = std::mem::take(&mut *heard.lock().unwrap());
    assert_eq!(told.len(), 1, "{told:?}");
    let why = &told[0].why;
    assert!(
        why.starts_with("2 replicas are needed and 1 answered; no answer from http://"),
        "{why}"
    );
    assert_eq!(told[0].deadline, Duration::from_millis(1_500));
    // Also in a pause between two tries.
    let busy = FakeNode::start();
    busy.fail_always(Fault::Overloaded);
    let hears = Arc::clone(&heard);
    let notice = move |waiting: &Waiting| hears.lock().unwrap().push(waiting.clone());
    let patient = busy.builder().deadline(Duration::from_millis(600)).retries(100);
    let patient = patient.on_wait(Duration::from_millis(300), notice).build().unwrap();
    patient.get_value("key").await.unwrap_err();
    let told = heard.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].why, "the mailbox is full");
}

#[tokio::test]
async fn who_is_answered_soon_is_told_nothing() {
    let node = FakeNode::start();
    let notice = |waiting: &Waiting| panic!("{waiting:?}");
    let client = node.builder().on_wait(Duration::from_secs(1), notice).build().unwrap();
    client.add_value("key", "x").await.unwrap();
}

#[tokio::test]
async fn who_was_never_there_is_not_removed_by_a_node_that_changed_nothing() {
    let remove_nobody = async |first: Fault| {
        let (failing, other) = (FakeNode::start(), FakeNode::start());
        failing.fail_next(first);
        client_of(&[&failing.url, &other.url]).users_remove("nobody").await
    };
    let refused = remove_nobody(Fault::Overloaded).await;
    assert!(
        matches!(refused, Err(ClientError::Refused { status: 404, .. })),
        "{refused:?}"
    );
    remove_nobody(doubtful()).await.unwrap();
}
