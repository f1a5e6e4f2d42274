//! Where records are kept: as the lists of the system user, in the store itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::clock::Clock;
use crate::core::op::Text;
use crate::env::BoxFuture;
use crate::node::{Fragment, KeyPage, Node, OpError, Terms, ValueReader};
use crate::types::{Consistency, Key, UserId};

use super::record::KEY_PREFIX;

/// Longer than any record can be. What is longer is cut, and so refused as damaged instead of filling memory.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Records that are read of one name, from its first on, and as many before its last. What lies between are passwords that were changed
/// since.
const READ_VALUES_MAX: u64 = 500;
/// How long a quorum of the others may take to answer.
const READ_TIME_MAX: Duration = Duration::from_secs(2);

/// Whose records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    Quorum,
    /// What this node alone holds of them.
    Own,
}

/// What users need of the store.
pub(super) trait RecordStore: Send + Sync + 'static {
    /// The values under a key of the system user; of a long list, those at both ends.
    fn records<'a>(&'a self, key: &'a Key, sight: Sight) -> BoxFuture<'a, Result<Vec<String>, OpError>>;
    /// Adds a value under a key of the system user. Durable on Ok.
    fn append<'a>(&'a self, key: &'a Key, record: String) -> BoxFuture<'a, Result<(), OpError>>;
    /// The system user's keys of records.
    fn list_records<'a>(&'a self, after: Option<&'a str>, limit: usize) -> BoxFuture<'a, Result<KeyPage, OpError>>;
    /// A user's keys that hold anything, unfinished parts too, on so many of the replicas.
    fn list_all_keys<'a>(
        &'a self,
        user: &'a UserId,
        after: Option<&'a str>,
        limit: usize,
        level: Consistency,
    ) -> BoxFuture<'a, Result<KeyPage, OpError>>;
    /// What the user's key may hold now, for `clear_seen`. Whatever is sent after this is none of it.
    fn seen<'a>(&'a self, user: &'a UserId, key: &'a Key) -> BoxFuture<'a, Result<Clock, OpError>>;
    /// Removes from a user's key what was seen there, and nothing that came since. Durable on Ok.
    fn clear_seen<'a>(&'a self, user: &'a UserId, key: &'a Key, seen: Clock) -> BoxFuture<'a, Result<(), OpError>>;
}

impl RecordStore for Node {
    fn records<'a>(&'a self, key: &'a Key, sight: Sight) -> BoxFuture<'a, Result<Vec<String>, OpError>> {
        Box::pin(async move {
            let consistency = match sight {
                Sight::Quorum => Terms::usual().consistency,
                Sight::Own => Consistency::One,
            };
            // A login waits for it.
            let deadline = Instant::now() + READ_TIME_MAX;
            read_records(self, key, Terms { consistency, deadline }).await
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
        level: Consistency,
    ) -> BoxFuture<'a, Result<KeyPage, OpError>> {
        let terms = Terms {
            consistency: level,
            ..Terms::usual()
        };
        Box::pin(Node::list_all_keys(self, user, after, limit, terms))
    }

    fn seen<'a>(&'a self, user: &'a UserId, key: &'a Key) -> BoxFuture<'a, Result<Clock, OpError>> {
        Box::pin(Node::seen(self, user, key, Terms::usual()))
    }

    fn clear_seen<'a>(&'a self, user: &'a UserId, key: &'a Key, seen: Clock) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(Node::clear_seen(self, user, key, seen, Terms::usual()))
    }
}

async fn read_records(node: &Node, key: &Key, terms: Terms) -> Result<Vec<String>, OpError> {
    let system = UserId::system();
    let read = async |offset| values(node.get(&system, key, offset, READ_VALUES_MAX, terms).await?).await;
    let mut records = read(0).await?;
    if records.len() as u64 == READ_VALUES_MAX {
        let count = node.count(&system, key, terms).await?;
        records.extend(read(READ_VALUES_MAX.max(count.saturating_sub(READ_VALUES_MAX))).await?);
    }
    Ok(records)
}

async fn values(mut reader: ValueReader) -> Result<Vec<String>, OpError> {
    let mut values = Values::default();
    loop {
        let fragments = reader.next(RECORD_BYTES_MAX).await?;
        if fragments.is_empty() {
            return Ok(values.finished);
        }
        for fragment in &fragments {
            values.push(fragment);
        }
    }
}

#[derive(Default)]
struct Values {
    unfinished: String,
    finished: Vec<String>,
}

impl Values {
    fn push(&mut self, fragment: &Fragment) {
        if self.unfinished.len() <= RECORD_BYTES_MAX {
            let text: &str = fragment.text.as_ref();
            let room = text.floor_char_boundary(RECORD_BYTES_MAX + 1 - self.unfinished.len());
            self.unfinished.push_str(text.get(..room).unwrap_or_default());
        }
        if fragment.ends_value {
            self.finished.push(std::mem::take(&mut self.unfinished));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(fragments: &[(&str, bool)]) -> Vec<String> {
        let mut values = Values::default();
        for &(text, ends_value) in fragments {
            values.push(&Fragment {
                text: text.into(),
                ends_value,
            });
        }
        values.finished
    }

    #[test]
    fn finished_values_are_put_together_from_their_fragments() {
        assert!(finished(&[("unfinished", false)]).is_empty());
        let fragments = [("old", true), ("ne", false), ("w", true), ("unfinished", false)];
        assert_eq!(finished(&fragments), ["old", "new"]);
    }

    #[test]
    fn a_value_too_long_for_a_record_is_cut() {
        let long = "ü".repeat(RECORD_BYTES_MAX);
        let values = finished(&[(&long, false), (&long, true), ("short", true)]);
        assert!(values[0].len() <= RECORD_BYTES_MAX + 1);
        assert_eq!(values[1], "short");
    }
}
