//! The logs of a shard that are not sealed, their memtables, and the groups of ops that are written to them.
//!
//! Invariants:
//! - at most one commit is under way; a group is closed only after the one before it is durable;
//! - a log gives way to the next only when all its groups are durable: all that waits to be sealed is;
//! - a log is ready for use only when the secret that seals it stands in its file.

use std::collections::VecDeque;

use super::commit::CommitJob;
use super::space::LogFile;
use super::write::GroupNumber;
use crate::store::log::{self, LogHeader, LogSecret, Previous};
use crate::store::memtable::{Memtable, SharedMemtable};
use crate::store::recover::{Place, RecoveredLog};

pub(super) struct Logs {
    active: Option<Active>,
    /// Oldest first.
    frozen: VecDeque<Frozen>,
    /// The next log, ready to be used.
    next: Option<LogFile>,
    secret: LogSecret,
    /// It is durable in its file.
    secret_stored: bool,
    groups: Groups,
}

/// The log that is being written, and its memtable.
pub(super) struct Active {
    memtable: SharedMemtable,
    file: LogFile,
    /// Number of the memtable's first group.
    first_group: u64,
    /// Not written yet: goes out with the first group.
    header: Option<[u8; log::HEADER_BYTES]>,
}

/// A memtable that waits to be sealed; everything in it is durable in its log.
struct Frozen {
    memtable: SharedMemtable,
    /// Its log holds damage and is to be kept aside.
    damaged: bool,
    /// Parts of its log could not be read.
    unread: bool,
}

/// Counted over the shard's life in this process.
#[derive(Default)]
struct Groups {
    closed: u64,
    durable: u64,
    under_way: Option<u64>,
}

impl Frozen {
    fn found(log: RecoveredLog) -> Self {
        Self {
            memtable: log.memtable,
            damaged: log.damaged,
            unread: log.unread,
        }
    }
}

impl Active {
    pub fn memtable(&self) -> &SharedMemtable {
        &self.memtable
    }

    pub fn file(&self) -> &LogFile {
        &self.file
    }

    /// Where the next record goes, bytes.
    pub fn end(&self) -> u64 {
        self.memtable.read().end()
    }

    /// Whether so many bytes more fit into what is filled.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.end() + bytes <= self.file.filled
    }
}

impl Logs {
    /// Logs that were read back wait to be sealed.
    pub fn found(logs: Vec<RecoveredLog>, secret: LogSecret, secret_stored: bool) -> Self {
        Self {
            active: None,
            frozen: logs.into_iter().map(Frozen::found).collect(),
            next: None,
            secret,
            secret_stored,
            groups: Groups::default(),
        }
    }

    pub fn active(&self) -> Option<&Active> {
        self.active.as_ref()
    }

    /// Every memtable, oldest first.
    pub fn memtables(&self) -> impl DoubleEndedIterator<Item = &SharedMemtable> {
        self.frozen().chain(self.active.iter().map(|active| &active.memtable))
    }

    /// Those that wait to be sealed, oldest first.
    pub fn frozen(&self) -> impl DoubleEndedIterator<Item = &SharedMemtable> {
        self.frozen.iter().map(|frozen| &frozen.memtable)
    }

    /// The next one to be sealed.
    pub fn oldest_frozen(&self) -> Option<&SharedMemtable> {
        self.frozen.front().map(|frozen| &frozen.memtable)
    }

    /// Whether one waits of which parts could not be read.
    pub fn has_unread(&self) -> bool {
        self.frozen.iter().any(|frozen| frozen.unread)
    }

    pub fn frozen_count(&self) -> usize {
        self.frozen.len()
    }

    /// The oldest one is sealed. Gives its number, and whether it holds damage.
    pub fn sealed(&mut self) -> Option<(u64, bool)> {
        let frozen = self.frozen.pop_front()?;
        let number = frozen.memtable.read().number();
        Some((number, frozen.damaged))
    }

    /// The open group's.
    pub fn open_group(&self) -> GroupNumber {
        GroupNumber(self.groups.closed)
    }

    pub fn commit_under_way(&self) -> Option<GroupNumber> {
        self.groups.under_way.map(GroupNumber)
    }

    /// The group that is the `index`th of the active log, if it is not durable yet.
    pub fn not_durable(&self, index: usize) -> Option<GroupNumber> {
        let group = self.active.as_ref()?.first_group + index as u64;
        (group >= self.groups.durable).then_some(GroupNumber(group))
    }

    fn has_open_group(&self) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| active.memtable.read().has_open_group())
    }

    /// Whether a group is there to be committed now.
    pub fn may_commit(&self) -> bool {
        self.groups.under_way.is_none() && self.has_open_group()
    }

    /// Closes the open group, and hands it out to be committed.
    pub fn close_group(&mut self) -> Option<CommitJob> {
        if self.groups.under_way.is_some() {
            return None;
        }
        let active = self.active.as_mut()?;
        let group = active.memtable.write().close_group()?;
        let number = self.groups.closed;
        self.groups.closed += 1;
        self.groups.under_way = Some(number);
        Some(CommitJob {
            group: GroupNumber(number),
            file: active.file.file.clone(),
            header: active.header.take(),
            offset: group.offset,
            bytes: group.bytes,
        })
    }

    /// The commit that is under way has ended, if one is. To be followed by `show_durable` if its group is durable; else the shard stops.
    pub fn commit_ended(&mut self, is_durable: bool) -> Option<GroupNumber> {
        let number = self.groups.under_way.take()?;
        if is_durable {
            self.groups.durable = number + 1;
        }
        Some(GroupNumber(number))
    }

    /// Shows readers all that is durable.
    pub fn show_durable(&self) {
        if let Some(active) = &self.active {
            let durable = self.groups.durable.saturating_sub(active.first_group);
            active.memtable.write().set_durable(durable as usize);
        }
    }

    /// The file of the active log was filled further.
    pub fn filled(&mut self, log: &LogFile) {
        if let Some(active) = &mut self.active
            && active.file.number == log.number
        {
            active.file.filled = log.filled;
        }
    }

    /// To be made durable before a log that it seals is used.
    pub fn unstored_secret(&self) -> Option<LogSecret> {
        (!self.secret_stored).then_some(self.secret)
    }

    /// A log was made ready, and the secret before it.
    pub fn prepared(&mut self, log: LogFile) {
        self.secret_stored = true;
        self.next = Some(log);
    }

    pub fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Freezes the active memtable and starts the next log; false if that cannot be now.
    pub fn give_way(&mut self, place: &Place) -> bool {
        if self.groups.under_way.is_some() || self.has_open_group() {
            return false;
        }
        let Some(file) = self.next.take() else {
            return false;
        };
        if let Some(active) = self.active.take() {
            self.frozen.push_back(Frozen {
                memtable: active.memtable,
                damaged: false,
                unread: false,
            });
        }
        let header = LogHeader {
            shard: place.shard,
            number: file.number,
            previous: self.previous(),
            secret: Some(self.secret),
        };
        self.active = Some(Active {
            memtable: Memtable::new(header.key(), place.names()).share(),
            file,
            first_group: self.groups.closed,
            header: Some(header.encode()),
        });
        true
    }

    /// What a new log says of the one before it. After a restart too: the last log of before is durable up to its end, as it was read back.
    fn previous(&self) -> Previous {
        self.frozen.back().map_or(Previous::default(), |frozen| {
            let memtable = frozen.memtable.read();
            Previous {
                number: memtable.number(),
                end: memtable.end(),
            }
        })
    }
}
