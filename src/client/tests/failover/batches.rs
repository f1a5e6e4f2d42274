//! What is said of the operations of a batch of which another try may have done more.

use std::sync::Arc;

use tokio::sync::Notify;

use super::*;
use crate::api::OperationTerms;

fn add() -> Operation<'static> {
    Operation::AddValue {
        key: "key".into(),
        value: "x".into(),
        finish_value: true,
        request_id: None,
        terms: OperationTerms::default(),
    }
}

fn get() -> Operation<'static> {
    Operation::GetValue {
        key: "other".into(),
        offset: None,
        limit: None,
        count_only: false,
        terms: OperationTerms::default(),
    }
}

/// Whether the add of an add and a get, or, where that is refused, the get, may have taken effect, when the first node does this and the second one
/// refuses that.
async fn in_doubt(first: Fault, refused: usize) -> bool {
    let nodes = [FakeNode::in_memory(), FakeNode::in_memory()];
    nodes[0].fail_next(first);
    nodes[1].fail_next(Fault::RefuseInBatch(refused));
    let client = client_of(&[&nodes[0].url, &nodes[1].url]);
    let mut results = client.batch(&mut [add(), get()]).await.unwrap();
    assert_eq!(nodes[1].sent("path").len(), 1);
    let error = results.swap_remove(refused).unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    error.is_in_doubt()
}

#[tokio::test(start_paused = true)]
async fn what_another_try_of_a_batch_may_have_done_is_not_told_as_not_done() {
    assert!(in_doubt(Fault::BreakAfter, 0).await);
    // Its answer has not come when that of the other one comes.
    assert!(in_doubt(Fault::Held(Arc::new(Notify::new())), 0).await);
}

#[tokio::test(start_paused = true)]
async fn what_no_other_try_of_a_batch_can_have_done_is_told_without_doubt() {
    assert!(!in_doubt(Fault::Overloaded, 0).await);
    // A read has no effect.
    assert!(!in_doubt(Fault::BreakAfter, 1).await);
}
