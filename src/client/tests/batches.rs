//! Batches.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_batch_gives_one_result_for_each_operation() {
    let node = FakeNode::in_memory();
    let add = |key: &'static str| Operation::AddValue {
        key: key.into(),
        value: "x".into(),
        finish_value: true,
        request_id: None,
        terms: OperationTerms::default(),
    };
    let get = Operation::GetValue {
        key: "a".into(),
        offset: None,
        limit: None,
        count_only: false,
        terms: OperationTerms::default(),
    };
    node.fail_next(Fault::RefuseInBatch(1));
    let results = node.client().batch(&mut [add("a"), add("b"), get]).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap()["status"], json!("OK"));
    assert!(matches!(results[1], Err(ClientError::Unavailable { .. })));
    assert_eq!(results[2].as_ref().unwrap()["value"], json!(["x"]));
    node.fail_next(Fault::Answer(200, json!({"results": []})));
    let error = node.client().batch(&mut [add("a")]).await.unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_failed_of_a_batch_is_sent_again_under_the_same_id_and_so_is_a_clear() {
    let node = FakeNode::in_memory();
    let client = node.client();
    let add = Operation::AddValue {
        key: "a".into(),
        value: "x".into(),
        finish_value: true,
        request_id: None,
        terms: OperationTerms::default(),
    };
    let clear = Operation::ClearKey {
        key: "b".into(),
        request_id: None,
        terms: OperationTerms::default(),
    };
    let mut operations = [add.clone(), clear, add];
    // The second one may have been done for all that the caller knows.
    node.fail_next(Fault::RefuseInBatch(1));
    let results = client.batch(&mut operations).await.unwrap();
    let is_error: Vec<bool> = results.iter().map(Result::is_err).collect();
    assert_eq!(is_error, [false, true, false]);
    client.batch(&mut operations[1..2]).await.unwrap();
    client.batch(&mut operations).await.unwrap();
    let ids: Vec<Vec<Value>> = node
        .sent("operations")
        .iter()
        .map(|sent| {
            sent.as_array()
                .unwrap()
                .iter()
                .map(|op| op["request_id"].clone())
                .collect()
        })
        .collect();
    assert!(ids[0].iter().all(Value::is_string) && ids[0][0] != ids[0][2]);
    assert_eq!((&ids[1][..], &ids[2]), (&ids[0][1..2], &ids[0]));

    client.add_value("c", "before").await.unwrap();
    client.clear("c", "id").await.unwrap();
    client.add_value("c", "since").await.unwrap();
    client.clear("c", "id").await.unwrap();
    assert_eq!(node.list("c"), ["since"]);
}
