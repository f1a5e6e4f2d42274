//! Where records are kept: as the lists of the system user, in the store itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::op::Text;
use crate::env::BoxFuture;
use crate::node::{Fragment, KeyPage, Node, OpError, Terms, ValueReader};
use crate::types::{Consistency, Key, UserId};

use super::record::KEY_PREFIX;

/// Longer than any record can be. What is longer is cut, and so refused as damaged instead of filling memory.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Values read at most after the count was taken: those are changes made in between, of which there are hardly any.
const READ_VALUES_MAX: u64 = 1000;
/// How long a quorum of the others may take to answer.
const READ_TIME_MAX: Duration = Duration::from_secs(2);
/// Times that a list may shrink between its count and its reading; more cannot be by chance.
const READ_ATTEMPTS_MAX: usize = 4;

/// What users need of the store.
pub(super) trait RecordStore: Send + Sync + 'static {
    /// The last value under a key of the system user.
    fn last<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<String>, OpError>>;
    /// Adds a value under a key of the system user. Durable on Ok.
    fn append<'a>(&'a self, key: &'a Key, record: String) -> BoxFuture<'a, Result<(), OpError>>;
    /// The system user's keys of records.
    fn list_records<'a>(&'a self, after: Option<&'a str>, limit: usize) -> BoxFuture<'a, Result<KeyPage, OpError>>;
    /// A user's keys that hold anything, unfinished parts too.
    fn list_all_keys<'a>(
        &'a self,
        user: &'a UserId,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<KeyPage, OpError>>;
    /// Empties a user's key. Durable on Ok.
    fn clear<'a>(&'a self, user: &'a UserId, key: &'a Key) -> BoxFuture<'a, Result<(), OpError>>;
}

impl RecordStore for Node {
    fn last<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<String>, OpError>> {
        Box::pin(async move {
            let system = UserId::system();
            for _ in 0..READ_ATTEMPTS_MAX {
                let mut terms = quick();
                let count = match self.count(&system, key, terms).await {
                    // Cut off from the others, a node still lets those in whom it knows; whom it does not know, they may.
                    Err(cut_off @ (OpError::Quorum { .. } | OpError::Deadline { .. })) => {
                        terms.consistency = Consistency::One;
                        terms.deadline = quick().deadline;
                        match self.count(&system, key, terms).await? {
                            0 => return Err(cut_off),
                            count => count,
                        }
                    }
                    counted => counted?,
                };
                let Some(last) = count.checked_sub(1) else {
                    return Ok(None);
                };
                let reader = self.get(&system, key, last, READ_VALUES_MAX, terms).await?;
                // None: the list was cleared after it was counted.
                if let Some(record) = last_value(reader).await? {
                    return Ok(Some(record));
                }
            }
            Err(OpError::ShardUnavailable { maybe_applied: false })
        })
    }

    fn append<'a>(&'a self, key: &'a Key, record: String) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(async move {
            self.add(&UserId::system(), key, Text::from(record), true, None, Terms::usual())
                .await?;
            Ok(())
        })
    }

    fn list_records<'a>(&'a self, after: Option<&'a str>, limit: usize) -> BoxFuture<'a, Result<KeyPage, OpError>> {
        Box::pin(async move {
            self.list_keys(&UserId::system(), KEY_PREFIX, after, limit, Terms::usual())
                .await
        })
    }

    fn list_all_keys<'a>(
        &'a self,
        user: &'a UserId,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<KeyPage, OpError>> {
        Box::pin(Node::list_all_keys(self, user, after, limit, Terms::usual()))
    }

    fn clear<'a>(&'a self, user: &'a UserId, key: &'a Key) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(Node::clear(self, user, key, None, Terms::usual()))
    }
}

/// A login waits for it.
fn quick() -> Terms {
    Terms {
        deadline: Instant::now() + READ_TIME_MAX,
        ..Terms::usual()
    }
}

async fn last_value(mut reader: ValueReader) -> Result<Option<String>, OpError> {
    let mut values = LastValue::default();
    loop {
        let fragments = reader.next(RECORD_BYTES_MAX).await?;
        if fragments.is_empty() {
            return Ok(values.last);
        }
        for fragment in &fragments {
            values.push(fragment);
        }
    }
}

#[derive(Default)]
struct LastValue {
    unfinished: String,
    last: Option<String>,
}

impl LastValue {
    fn push(&mut self, fragment: &Fragment) {
        if self.unfinished.len() <= RECORD_BYTES_MAX {
            let text: &str = fragment.text.as_ref();
            let room = text.floor_char_boundary(RECORD_BYTES_MAX + 1 - self.unfinished.len());
            self.unfinished.push_str(text.get(..room).unwrap_or_default());
        }
        if fragment.ends_value {
            self.last = Some(std::mem::take(&mut self.unfinished));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(fragments: &[(&str, bool)]) -> Option<String> {
        let mut values = LastValue::default();
        for &(text, ends_value) in fragments {
            values.push(&Fragment {
                text: text.into(),
                ends_value,
            });
        }
        values.last
    }

    #[test]
    fn the_last_finished_value_is_put_together_from_its_fragments() {
        assert_eq!(last(&[]), None);
        assert_eq!(last(&[("unfinished", false)]), None);
        let fragments = [("old", true), ("ne", false), ("w", true)];
        assert_eq!(last(&fragments).as_deref(), Some("new"));
    }

    #[test]
    fn a_value_too_long_for_a_record_is_cut() {
        let long = "ü".repeat(RECORD_BYTES_MAX);
        let cut = last(&[(&long, false), (&long, true)]).expect("a finished value");
        assert!(cut.len() <= RECORD_BYTES_MAX + 1);
        assert_eq!(last(&[(&long, true), ("short", true)]).as_deref(), Some("short"));
    }
}
