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
    group: GroupNumber,
    file: Arc<dyn DiskFile>,
    header: Option<[u8; log::HEADER_BYTES]>,
    offset: u64,
    bytes: Bytes,
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
        let gathered = self
            .active
            .as_ref()
            .is_some_and(|active| active.memtable.read().has_open_group());
        gathered && self.commit_under_way.is_none() && self.failed.is_none()
    }

    /// The next group to write, if there is one and none is under way.
    pub fn next_commit(&mut self) -> Option<CommitJob> {
        if self.commit_under_way.is_some() || self.failed.is_some() {
            return None;
        }
        let active = self.active.as_mut()?;
        let group = active.memtable.write().close_group()?;
        let number = self.groups;
        self.groups += 1;
        self.commit_under_way = Some(number);
        self.closed_dots = std::mem::take(&mut self.open_dots);
        Some(CommitJob {
            group: GroupNumber(number),
            file: active.file.file.clone(),
            header: active.header.take(),
            offset: group.offset,
            bytes: group.bytes,
        })
    }

    /// Takes the result of a commit. Everything in groups up to the number it gives is durable.
    ///
    /// After an error the state of the log is unknown, and a retry would prove nothing: the shard stops.
    pub fn committed(&mut self, result: io::Result<()>) -> Option<GroupNumber> {
        let number = self.commit_under_way.take()?;
        match result {
            Ok(()) => {
                self.durable_groups = number + 1;
                self.show_durable();
                self.stats.commits += 1;
                Some(GroupNumber(number))
            }
            Err(error) => {
                self.fail(format!("a write to the log failed: {error}"));
                None
            }
        }
    }
}
