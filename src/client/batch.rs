//! Many operations in one request.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::api::{Batch, BatchResults, Operation, path};

use super::error::ClientError;
use super::repeat::Repeat;
use super::{Client, decode_answer, encode, entropy};

/// What became of one operation of a batch.
pub type BatchResult = Result<serde_json::Value, ClientError>;

impl Client {
    /// Carries out the operations and gives one result each, in their order: those on one key one after the other, and none after a write that
    /// failed; those on different keys side by side. Not atomic. Adds and clears without a request id get one, and keep it: those that failed can be
    /// given to another call as they are then, and count once.
    pub async fn batch(&self, operations: &mut [Operation<'_>]) -> Result<Vec<BatchResult>, ClientError> {
        for operation in &mut *operations {
            if let Operation::AddValue {
                request_id: request_id @ None,
                ..
            }
            | Operation::ClearKey {
                request_id: request_id @ None,
                ..
            } = operation
            {
                *request_id = Some(entropy::hex::<16>().into());
            }
        }
        let expected = operations.len();
        let only_reads = operations
            .iter()
            .all(|operation| matches!(operation, Operation::GetValue { .. }));
        let in_doubt = AtomicBool::new(false);
        let repeat = match only_reads {
            true => Repeat::READ,
            false => Repeat {
                in_doubt: Some(&in_doubt),
                ..Repeat::SAFE
            },
        };
        let body = encode(&Batch {
            operations: operations.iter().map(Operation::borrowed).collect(),
            consistency: self.consistency,
            deadline_ms: self.deadline_ms,
            user: Some(self.user()),
        })?;
        let decode = |url: &str, answer: &[u8]| {
            let BatchResults { results } = decode_answer(url, answer)?;
            if results.len() != expected {
                let what = format!("{} results for {expected} operations", results.len());
                let url = url.to_owned();
                return Err(ClientError::BadAnswer { url, what });
            }
            Ok(results.into_iter().map(batch_result).collect())
        };
        let mut results: Vec<BatchResult> = self.call(path::BATCH, body, repeat, decode).await?;
        // What one try was refused another one may have done.
        for (operation, result) in operations.iter().zip(&mut results) {
            let is_read = matches!(operation, Operation::GetValue { .. });
            if let (true, false, Err(error)) = (in_doubt.load(Ordering::Relaxed), is_read, result) {
                error.put_in_doubt();
            }
        }
        Ok(results)
    }
}

fn batch_result(result: serde_json::Value) -> BatchResult {
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
