//! The group commit: while one write and sync is under way, further ops gather; the next one takes them all.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use super::write::GroupNumber;
use crate::planted::{Bug, planted};
use crate::store::disk::DiskFile;
use crate::store::log;

/// Writes one group and syncs it.
pub struct CommitJob {
    pub(super) group: GroupNumber,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) header: Option<[u8; log::HEADER_BYTES]>,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

impl CommitJob {
    pub fn group(&self) -> GroupNumber {
        self.group
    }

    /// Blocks on the disk. Durable on Ok.
    pub fn run(&self) -> io::Result<()> {
        if let Some(header) = &self.header {
            self.file.write_all_at(header, 0)?;
        }
        self.file.write_all_at(&self.bytes, self.offset)?;
        match self.file.sync_data() {
            Err(_) if planted(Bug::SyncRetried) => self.file.sync_data(),
            synced => synced,
        }
    }
}

impl Shard {
    /// Whether there is a group to write, and none is under way.
    pub fn has_commit(&self) -> bool {
        self.logs.may_commit() && self.failed.is_none()
    }

    /// The next group to write, if there is one and none is under way.
    pub fn next_commit(&mut self) -> Option<CommitJob> {
        if self.failed.is_some() {
            return None;
        }
        let job = self.logs.close_group()?;
        self.dots.close_group();
        Some(job)
    }

    /// Takes the result of a commit. Everything in groups up to the number it gives is durable.
    ///
    /// After an error the state of the log is unknown, and a retry would prove nothing: the shard stops.
    pub fn committed(&mut self, result: io::Result<()>) -> Option<GroupNumber> {
        let group = self.logs.commit_ended(result.is_ok())?;
        match result {
            Ok(()) => {
                self.show_durable();
                self.stats.commits += 1;
                Some(group)
            }
            Err(error) => {
                self.fail(format!("a write to the log failed: {error}"));
                None
            }
        }
    }
}
