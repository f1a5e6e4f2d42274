//! A full disk: the shard gives up its reserve, still takes clears, and looks for space.

use super::Shard;
use super::picking::TooLarge;
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
    /// Left by a former life: its size has to be looked at.
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

/// What a shard knows of the space on its disk.
///
/// Invariants:
/// - while the disk is full, no reserve is kept;
/// - what the disk once refused is tried once a tick, and not with every message.
pub(super) struct DiskSpace {
    full: bool,
    reserve: Reserve,
    /// The disk has not the space for this merge.
    merge_too_large: Option<TooLarge>,
    /// The disk was full, or too full for a merge, and it is time to look again.
    probe_due: bool,
    /// The disk was full, and it is time to try for room for clears.
    clear_room_due: bool,
    /// A merge may be tried although the disk is full.
    merge_due: bool,
}

impl DiskSpace {
    /// `reserved` if the file is there.
    pub fn found(reserved: bool) -> Self {
        Self {
            full: false,
            reserve: Reserve::found(reserved),
            merge_too_large: None,
            probe_due: false,
            clear_room_due: false,
            merge_due: false,
        }
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    #[cfg(test)]
    pub fn reserve(&self) -> Reserve {
        self.reserve
    }

    pub fn merge_too_large(&self) -> Option<TooLarge> {
        self.merge_too_large
    }

    pub fn tick(&mut self) {
        self.probe_due = self.full || self.merge_too_large.is_some();
        self.clear_room_due = self.full;
        self.merge_due = true;
    }

    /// Whether to look how much space there is; not again before the next tick.
    pub fn take_probe(&mut self) -> bool {
        (self.full || self.merge_too_large.is_some()) && std::mem::take(&mut self.probe_due)
    }

    /// Whether to try for room for clears; not again before the next tick.
    fn take_clear_room(&mut self) -> bool {
        std::mem::take(&mut self.clear_room_due)
    }

    /// Whether a merge may be tried; on a full disk, where a failed one waits for the next look at it, not again before the next tick.
    pub fn take_merge(&mut self) -> bool {
        !self.full || std::mem::take(&mut self.merge_due)
    }

    /// A merge found the disk full.
    pub fn merge_did_not_fit(&mut self, merge: TooLarge) {
        self.merge_too_large = Some(merge.after(self.merge_too_large));
    }

    /// With so many bytes free, whether a merge that did not fit is taken to fit now.
    pub fn merge_fits(&mut self, free_bytes: u64) -> bool {
        let fits = |merge: &mut TooLarge| free_bytes >= merge.needed;
        self.merge_too_large.take_if(fits).is_some()
    }

    /// Whether the reserve is to be let go, as it is there.
    pub fn take_reserve(&mut self) -> bool {
        std::mem::replace(&mut self.reserve, Reserve::Gone) != Reserve::Gone
    }

    /// Whether the reserve is to be made whole. Until the job has ended it is nothing to let go.
    fn begin_reserve(&mut self) -> bool {
        let is_due = self.reserve != Reserve::Whole;
        if is_due {
            self.reserve = Reserve::Gone;
        }
        is_due
    }
}

impl Shard {
    /// Once a tick: a look at the space, and if there is still too little, a log that is just large enough for clears, where one is needed for
    /// these, or so that the one in use can be sealed.
    pub(super) fn task_on_full_disk(&mut self) -> Option<SpaceTask> {
        if self.disk.take_probe() {
            return Some(SpaceTask::Probe);
        }
        let active = self.logs.active();
        let used_up = active.is_none_or(|active| !active.has_room(CLEAR_ROOM_BYTES));
        let is_wanted = used_up || (self.space.is_takeover_wanted() && self.dots.is_note_wanted());
        if !self.disk.take_clear_room() || !is_wanted || self.logs.has_next() {
            return None;
        }
        Some(self.next_log(log::HEADER_BYTES as u64 + CLEAR_RESERVE_BYTES))
    }

    /// A reserve to make whole. Not while it may be about to be removed, from when the disk was full.
    pub(super) fn reserve_task(&mut self) -> Option<SpaceTask> {
        let is_due = !self.files.is_cleaning_up() && self.disk.begin_reserve();
        is_due.then_some(SpaceTask::Reserve)
    }

    pub(super) fn reserve_made(&mut self) {
        self.disk.reserve = Reserve::Whole;
        if self.disk.full {
            self.let_reserve_go();
        }
    }

    fn let_reserve_go(&mut self) {
        if self.disk.take_reserve() {
            self.files.remove_reserve();
        }
    }

    /// The disk turned out to be full: adds are refused, and what is kept for this moment is let go.
    pub(super) fn space_missing(&mut self, what: &str) {
        if !self.disk.full {
            tracing::error!(
                shard = self.place.shard,
                what,
                "the disk is full: adds are refused until space returns"
            );
        }
        self.disk.full = true;
        self.let_reserve_go();
        self.files.let_spares_go();
    }

    /// Adds are taken again once there is room for all that a shard does at once: the reserve, a new log, and a merge of one.
    pub(super) fn space_probed(&mut self, free_bytes: u64) {
        if self.disk.merge_fits(free_bytes) {
            self.merges.make_due();
        }
        if self.disk.full && free_bytes >= RESERVE_BYTES + 2 * self.config.log_bytes + self.config.fill_bytes {
            tracing::info!(
                shard = self.place.shard,
                free_bytes,
                "the disk has space again: adds are taken"
            );
            self.disk.full = false;
            self.files.keep_reserve();
        }
    }
}
