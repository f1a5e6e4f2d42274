//! What the client makes of each answer, and of none.

use super::*;

#[tokio::test(start_paused = true)]
async fn when_no_node_is_there_the_error_names_them_all() {
    let urls = [dead_url(), dead_url()];
    let client = Client::builder()
        .urls(&urls)
        .net(Arc::new(MemoryNet))
        .user("demo")
        .password("p")
        .retries(1)
        .build()
        .unwrap();
    let error = client.get_value("key").await.unwrap_err();
    let ClientError::Unreachable { tried } = error else {
        panic!("{error}");
    };
    assert_eq!(
        tried.iter().map(|failure| failure.url.clone()).collect::<Vec<_>>(),
        urls
    );
    assert!(
        tried.iter().all(|failure| failure.reason.contains("refused")),
        "{tried:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_know_a_call_is_named_and_has_not_carried_it_out() {
    let node = FakeNode::in_memory();
    for (status, answer) in [
        (404, json!({"detail": "Not Found"})),
        (404, json!("<html>")),
        (405, json!({"detail": "Method Not Allowed"})),
    ] {
        node.fail_next(Fault::Answer(status, answer.clone()));
        let in_doubt = AtomicBool::new(false);
        let added = node.client().add_one_told("key", "x", true, "id", &in_doubt).await;
        let error = added.unwrap_err();
        assert!(matches!(error, ClientError::NoSuchCall { .. }), "{answer}: {error}");
        assert!(
            error.to_string().contains(&node.url) && error.to_string().contains("/add_value"),
            "{error}"
        );
        assert!(!in_doubt.into_inner(), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_answer_has_its_error() {
    let node = FakeNode::in_memory();
    let client = node.builder().retries(0).build().unwrap();
    let field = json!([{"loc": ["body", "key"], "msg": "too long", "type": "string_too_long"}]);
    for (status, detail, expected) in [
        (401, json!("no"), "no"),
        (403, json!("not an admin"), "not an admin"),
        (
            404,
            json!("there is no user \"x\""),
            "there is no user \"x\" (status 404)",
        ),
        (413, json!("limit 8 MiB"), "limit 8 MiB"),
        (422, field, "the request was refused: key: too long"),
        (500, json!("bug"), "the node failed: bug (status 500)"),
        (503, json!("full"), "full"),
        (507, json!("disk full"), "disk full"),
    ] {
        node.fail_next(Fault::Answer(status, json!({ "detail": detail })));
        let error = client.add_value("key", "x").await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        let right = match status {
            401 => matches!(error, ClientError::Credentials { .. }),
            403 => matches!(error, ClientError::Forbidden { .. }),
            404 => matches!(error, ClientError::Refused { status: 404, .. }),
            413 => matches!(error, ClientError::TooLarge { .. }),
            422 => matches!(error, ClientError::BadRequest { ref fields } if fields.len() == 1),
            500 => matches!(error, ClientError::Server { status: 500, .. }),
            503 => matches!(
                error,
                ClientError::Unavailable {
                    retry_after: Some(Duration::ZERO),
                    ..
                }
            ),
            _ => matches!(error, ClientError::DiskFull { .. }),
        };
        assert!(right, "{status}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_says_to_programs_is_heard() {
    let node = FakeNode::in_memory();
    let client = node.builder().retries(0).build().unwrap();
    for (in_doubt, code) in [(true, OutageCode::DeadlineExceeded), (false, OutageCode::NotReady)] {
        // In words that say nothing of it.
        let body = json!({"detail": "not now", "code": code, "may_have_taken_effect": in_doubt});
        node.fail_next(Fault::Answer(503, body));
        let error = client.add_value("key", "x").await.unwrap_err();
        assert_eq!(error.is_in_doubt(), in_doubt, "{error}");
        let told = matches!(error, ClientError::Unavailable { code: Some(told), .. } if told == code);
        assert!(told, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_of_this_api_is_an_error() {
    let node = FakeNode::in_memory();
    node.fail_next(Fault::Answer(200, json!("hello")));
    let error = node.client().add_value("key", "x").await.unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer { .. }), "{error}");
    node.fail_next(Fault::Answer(200, json!({"key": "key", "value": [1]})));
    let error = node.client().get_value("key").await.unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn values_whose_answer_breaks_off_are_asked_for_again_but_a_stream_fails() {
    let node = FakeNode::in_memory();
    let client = node.client();
    client.add_value("key", "some value").await.unwrap();
    node.fail_next(Fault::CutAnswer(25));
    assert_eq!(client.get_value("key").await.unwrap(), ["some value"]);
    node.fail_next(Fault::CutAnswer(25));
    let mut stream = client.get_value_stream("key", Page::default()).await.unwrap();
    let error = stream.next_value().await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_silent_is_given_up() {
    let node = FakeNode::in_memory();
    node.fail_next(Fault::Silence);
    let client = node
        .builder()
        .timeout(Duration::from_millis(50))
        .retries(0)
        .build()
        .unwrap();
    let error = client.get_value("key").await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
}
