//! Reading one key's list, piece by piece, where that may block.

use std::sync::Arc;

use super::{Inner, report};
use crate::node::OpError;
use crate::node::turns::in_turn;
use crate::store::reader::{Fragment, KeyReader};

/// A snapshot of one key's list, read piece by piece.
pub struct LocalReader {
    pub(super) node: Arc<Inner>,
    /// The shard that it reads from; damage is reported to it.
    pub(super) door: usize,
    /// Absent after an error, and while a read of it was abandoned.
    pub(super) reader: Option<KeyReader>,
}

impl LocalReader {
    /// Whether the next fragments come without waiting for the disk.
    pub fn is_warm(&mut self) -> bool {
        self.reader.as_mut().is_none_or(KeyReader::is_warm)
    }

    /// The next fragments, together about `budget_bytes` of text (always at least one fragment); empty at the end.
    pub async fn next(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        let batch = if let Some(reader) = &mut self.reader
            && reader.is_warm()
        {
            reader.next_batch(budget_bytes)
        } else {
            let Some(mut reader) = self.reader.take() else {
                return Err(OpError::ShuttingDown);
            };
            let read = in_turn(&self.node.turns.reads, &self.node.env, move || {
                let batch = reader.next_batch(budget_bytes);
                (reader, batch)
            });
            let (reader, batch) = read.await?;
            self.reader = Some(reader);
            batch
        };
        batch.map_err(|error| {
            self.reader = None;
            report(self.node.doors[self.door].serving().as_deref(), error)
        })
    }
}
