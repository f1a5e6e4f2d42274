//! What is told of the operations of a batch.

use std::sync::{Mutex, PoisonError};

use super::{BatchResult, ClientError};
use crate::api::Operation;

pub(super) fn result(result: serde_json::Value) -> BatchResult {
    let status = result
        .get("status_code")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(200);
    if status == 200 {
        return Ok(result);
    }
    let status = u16::try_from(status).unwrap_or(500);
    Err(ClientError::from_result(status, result))
}

/// The results that one try gave: what it did not do, another one, of which this is what came, may have done.
pub(super) fn beside(
    results: Vec<BatchResult>,
    operations: &[Operation<'_>],
    elsewhere: Mutex<Option<ClientError>>,
) -> Vec<BatchResult> {
    let elsewhere = elsewhere.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Some(elsewhere) = elsewhere else {
        return results;
    };
    let told = |(operation, result): (&Operation<'_>, BatchResult)| match operation {
        Operation::GetValue { .. } => result,
        Operation::AddValue { .. } | Operation::ClearKey { .. } => result.map_err(|error| error.beside(&elsewhere)),
    };
    operations.iter().zip(results).map(told).collect()
}
