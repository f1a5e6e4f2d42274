//! The handle of a running node.

use crate::core::op::Text;
use crate::types::{Key, RequestId, UserId};

use super::OpError;

/// What became of an add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is durable now.
    Appended,
    /// The same request id had already been taken, and that is durable; nothing was added.
    Repeated,
}

/// A piece of a value. A value is one or more fragments, the last of which says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    pub text: Text,
    pub ends_value: bool,
}

/// One page of a user's keys, in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPage {
    pub keys: Vec<Key>,
    /// Whether further keys follow the last one.
    pub more: bool,
}

/// Cheap to clone; all clones speak to the same node.
#[derive(Clone)]
pub struct Node {}

impl Node {
    /// Appends `text` to the value being assembled, and finishes it when `finish`. Durable on Ok.
    pub async fn add(
        &self,
        user: &UserId,
        key: &Key,
        text: Text,
        finish: bool,
        request_id: Option<RequestId>,
    ) -> Result<Added, OpError> {
        let _ = (user, key, text, finish, request_id);
        Err(OpError::ShuttingDown)
    }

    /// Empties the key, unfinished parts too. Durable on Ok.
    pub async fn clear(&self, user: &UserId, key: &Key) -> Result<(), OpError> {
        let _ = (user, key);
        Err(OpError::ShuttingDown)
    }

    /// The values `offset..offset + limit` of the key's list as a stream; nothing beyond them is read into memory.
    pub async fn get(&self, user: &UserId, key: &Key, offset: u64, limit: u64) -> Result<ValueReader, OpError> {
        let _ = (user, key, offset, limit);
        Err(OpError::ShuttingDown)
    }

    /// How many values the key's list has.
    pub async fn count(&self, user: &UserId, key: &Key) -> Result<u64, OpError> {
        let _ = (user, key);
        Err(OpError::ShuttingDown)
    }

    /// The user's keys that start with `prefix` and come after `after`, at most `limit`: those with at least one finished value.
    pub async fn list_keys(
        &self,
        user: &UserId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, OpError> {
        let _ = (user, prefix, after, limit);
        Err(OpError::ShuttingDown)
    }

    /// The user's keys that come after `after` and hold anything, if only unfinished parts; at most `limit`. A key that was
    /// cleared, and not added to since, holds nothing.
    pub async fn list_all_keys(&self, user: &UserId, after: Option<&str>, limit: usize) -> Result<KeyPage, OpError> {
        let _ = (user, after, limit);
        Err(OpError::ShuttingDown)
    }

    /// Whether every shard serves.
    pub fn is_ready(&self) -> bool {
        false
    }
}

/// A snapshot of one key's list, read piece by piece.
pub struct ValueReader {}

impl ValueReader {
    /// The next fragments, together about `budget_bytes` of text (always at least one fragment); empty at the end.
    pub async fn next(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        let _ = budget_bytes;
        Ok(Vec::new())
    }
}
