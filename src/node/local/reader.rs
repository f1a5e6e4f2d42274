//! Reading one key's list, piece by piece, where that may block.

use std::sync::Arc;

use super::{Inner, Local, report};
use crate::node::OpError;
use crate::store::reader::{Fragment, KeyReader};

/// A snapshot of one key's list, read piece by piece.
pub struct LocalReader {
    pub(super) node: Arc<Inner>,
    /// The shard that it reads from, which hears of damage.
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
        let Some(mut reader) = self.reader.take() else {
            return Err(OpError::ShuttingDown);
        };
        let batch = if reader.is_warm() {
            let batch = reader.next_batch(budget_bytes);
            self.reader = Some(reader);
            batch
        } else {
            let read = self.node.read_disk(move || {
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

impl Local {
    /// See `Inner::read_disk`.
    pub(in crate::node) async fn read_disk<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OpError> {
        self.inner.read_disk(read).await
    }
}

impl Inner {
    /// What `read` finds, where only so many read at a time: a disk is busy with them, and what they find, which may be a long text each, is in
    /// memory before anybody could refuse it. And a disk that hangs holds as many threads.
    pub(super) async fn read_disk<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OpError> {
        let turn = self.disk_reads.clone().acquire_owned().await;
        let turn = turn.map_err(|_closed| OpError::ShuttingDown)?;
        // Given back by who takes what was found, or, if nobody waits for it any more, with it.
        let (found, _turn) = self.env.run_blocking(move || (read(), turn)).await?;
        Ok(found)
    }
}
