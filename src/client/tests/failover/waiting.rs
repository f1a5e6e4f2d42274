//! What is told of nodes that do not answer, while a call waits and at its end.

use std::sync::Arc;

use super::*;

/// Two of three nodes are gone, one of them without a word; the third says that it is too few.
async fn one_of_three(retries: u32, deadline: Duration, notice: impl Fn(&Waiting) + Send + Sync + 'static) -> Client {
    let (frozen, left) = (FakeNode::in_memory(), FakeNode::in_memory());
    frozen.fail_always(Fault::Silence);
    let detail = "2 replicas are needed and 1 answered: nothing was changed";
    left.fail_always(Fault::Answer(503, json!({ "detail": detail })));
    let builder = builder_of(&[&frozen.url, &left.url, &dead_url()]).retries(retries);
    let builder = builder.deadline(deadline).on_wait(Duration::from_secs(1), notice);
    builder.build().unwrap()
}

#[tokio::test(start_paused = true)]
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
        client.batch(&mut [get]).await.map(|_| ()),
    ];
    for (read, error) in errors.into_iter().enumerate() {
        let error = error.unwrap_err();
        assert!(matches!(error, ClientError::Unavailable { .. }), "{read}: {error}");
        assert!(error.to_string().contains("1 answered"), "{read}: {error}");
        assert!(
            !error.is_in_doubt() && !error.to_string().contains("effect"),
            "{read}: {error}"
        );
    }
    let error = client.add_value("key", "x").await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert!(
        error.to_string().contains("1 answered") && error.is_in_doubt(),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_once_what_for() {
    let heard = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let notice = move |waiting: &Waiting| hears.lock().push(waiting.clone());
    let client = one_of_three(100, Duration::from_millis(1_500), notice).await;
    client.get_value("key").await.unwrap_err();
    let told = std::mem::take(&mut *heard.lock());
    assert_eq!(told.len(), 1, "{told:?}");
    let why = &told[0].why;
    assert!(
        why.starts_with("2 replicas are needed and 1 answered; no answer from http://"),
        "{why}"
    );
    assert_eq!(told[0].deadline, Duration::from_millis(1_500));
    // Also in a pause between two tries.
    let busy = FakeNode::in_memory();
    busy.fail_always(Fault::Overloaded);
    let hears = Arc::clone(&heard);
    let notice = move |waiting: &Waiting| hears.lock().push(waiting.clone());
    let patient = busy.builder().deadline(Duration::from_millis(600)).retries(100);
    let patient = patient.on_wait(Duration::from_millis(300), notice).build().unwrap();
    patient.get_value("key").await.unwrap_err();
    let told = heard.lock();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].why, "the mailbox is full");
}

#[tokio::test(start_paused = true)]
async fn who_is_answered_soon_is_told_nothing() {
    let node = FakeNode::in_memory();
    let notice = |waiting: &Waiting| panic!("{waiting:?}");
    let client = node.builder().on_wait(Duration::from_secs(1), notice).build().unwrap();
    client.add_value("key", "x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_nobody_ever_listened_it_is_given_up_early_but_not_where_somebody_did() {
    let for_ever = Duration::from_secs(86_400);
    let endless = |urls: &[&str]| {
        let builder = builder_of(urls).retries(u32::MAX).retries_to_connect(1);
        builder.deadline(for_ever).build().unwrap()
    };
    let (nobody, took) = timed(endless(&[&dead_url()]).get_value("key")).await;
    let error = nobody.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(took < STALL_MAX, "{took:?}");
    let node = FakeNode::in_memory();
    (0..3).for_each(|_| node.fail_next(Fault::Overloaded));
    let both = endless(&[&node.url, &dead_url()]);
    both.add_value("key", "x").await.unwrap();
    assert_eq!(node.list("key"), ["x"]);
}
