//! What a shard does on a full disk: it lets go what it kept for that moment, takes clears, and looks for space.

use super::Shard;
use super::cleanup::Cleanup;
use super::space::{CLEAR_RESERVE_BYTES, SpaceTask};
use crate::store::log;

/// Space per shard that is let go when the disk is full, bytes.
pub(super) const RESERVE_BYTES: u64 = 1 << 20;
/// With less room than this left in the log, a full disk is asked for another small log, so that clears go on: a few clears.
const CLEAR_ROOM_BYTES: u64 = 16 * 1024;

/// The file that holds that space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserve {
    /// To be made. It may still be there, if it could not be removed, or not be there any more.
    Gone,
    /// Of a former life: how much is in it is to be looked at.
    Unseen,
    Whole,
}

impl Reserve {
    /// By its name alone.
    pub fn found(is_there: bool) -> Self {
        match is_there {
            true => Self::Unseen,
            false => Self::Gone,
        }
    }
}

impl Shard {
    /// Once a tick: a look at the space, and if there is still too little, a log that is just large enough for clears, where one is needed for
    /// these, or so that the one in use can be sealed.
    pub(super) fn task_on_full_disk(&mut self) -> Option<SpaceTask> {
        if std::mem::take(&mut self.probe_due) {
            return Some(SpaceTask::Probe);
        }
        let used_up = self
            .active
            .as_ref()
            .is_none_or(|active| active.memtable.read().end() + CLEAR_ROOM_BYTES > active.file.filled);
        let is_wanted = used_up || (self.wanted_takeover && self.notes_soon);
        if !std::mem::take(&mut self.clear_room_due) || !is_wanted || self.prepared.is_some() {
            return None;
        }
        Some(self.next_log(log::HEADER_BYTES as u64 + CLEAR_RESERVE_BYTES))
    }

    /// A reserve to make whole. Not while it may be about to be removed, from when the disk was full.
    pub(super) fn reserve_task(&mut self) -> Option<SpaceTask> {
        if self.reserve == Reserve::Whole || self.cleanup_under_way {
            return None;
        }
        // Until the job has ended it is nothing to let go.
        self.reserve = Reserve::Gone;
        Some(SpaceTask::Reserve)
    }

    pub(super) fn reserve_made(&mut self) {
        self.reserve = Reserve::Whole;
        if self.disk_full {
            self.let_reserve_go();
        }
    }

    fn let_reserve_go(&mut self) {
        if std::mem::replace(&mut self.reserve, Reserve::Gone) != Reserve::Gone {
            self.cleanup.push(Cleanup::RemoveReserve);
        }
    }

    /// The disk turned out to be full: adds are refused, and what is kept for this moment is let go.
    pub(super) fn space_missing(&mut self, what: &str) {
        if !self.disk_full {
            tracing::error!(
                shard = self.place.shard,
                what,
                "the disk is full: adds are refused until space returns"
            );
        }
        self.disk_full = true;
        self.let_reserve_go();
        self.let_spares_go();
    }

    /// Logs that nobody waits for take up space that others may need.
    pub(super) fn let_spares_go(&mut self) {
        let spares = std::mem::take(&mut self.spares);
        self.cleanup.extend(spares.into_iter().map(Cleanup::RemoveLog));
    }

    /// Adds are taken again once there is room for all that a shard does at once: the reserve, a new log, and a merge of one.
    pub(super) fn space_probed(&mut self, free_bytes: u64) {
        if self.merge_too_large.is_some_and(|merge| free_bytes >= merge.needed) {
            self.merge_too_large = None;
            self.upkeep_due = true;
        }
        if self.disk_full && free_bytes >= RESERVE_BYTES + 2 * self.config.log_bytes + self.config.fill_bytes {
            tracing::info!(
                shard = self.place.shard,
                free_bytes,
                "the disk has space again: adds are taken"
            );
            self.disk_full = false;
            // If it waited till now, it can stay.
            self.cleanup.retain(|task| *task != Cleanup::RemoveReserve);
        }
    }
}
