//! Merges and seals: what is under way, and whose turn it is.
//!
//! Invariants:
//! - at most one merge and one seal are under way, and neither begins during a seal: nothing merges what a seal is just making;
//! - what a merge takes is known until it has ended, so that a failed one leaves everything as it was.

use super::reclaim::Cleared;
use crate::core::clock::SlotClocks;

/// What a segment is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To hold what the oldest frozen memtable holds.
    Seal,
    /// To hold what others hold.
    Merge,
    /// To hold what can be read of a damaged one.
    Salvage,
}

/// What a merge, or a seal, under way is made of.
pub(super) struct Running {
    pub purpose: Purpose,
    /// The number of the segment that it writes.
    pub number: u64,
    /// The segments that are its inputs.
    pub segments: Vec<u64>,
    /// Space that it was expected to take.
    pub bytes_needed: u64,
    /// All segments are its inputs.
    pub takes_all: bool,
    /// Clears that it was to apply, counted again if it fails.
    pub cleared: Cleared,
    /// What every other replica's clock covered when it began.
    pub stable: Option<SlotClocks>,
}

pub(super) struct Merges {
    merge: Option<Running>,
    seal: Option<Running>,
    /// Something changed since it was last found that there is nothing to merge.
    due: bool,
    /// One failed: not before the next tick.
    paused: bool,
    /// A seal found the disk full: other merges, which may free space, have their turn first.
    seal_waits: bool,
}

impl Merges {
    /// As when a shard was just opened.
    pub fn due() -> Self {
        Self {
            merge: None,
            seal: None,
            due: true,
            paused: false,
            seal_waits: false,
        }
    }

    /// Something changed.
    pub fn make_due(&mut self) {
        self.due = true;
    }

    /// There is nothing to merge, until something changes.
    pub fn none_is_due(&mut self) {
        self.due = false;
    }

    /// What failed now would fail at once again.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    pub fn tick(&mut self) {
        self.due = true;
        self.paused = false;
    }

    /// Whether one is due and none is in its way.
    pub fn may_begin(&self, has_frozen: bool) -> bool {
        // Asked after every message: the answer must cost nothing while nothing changed.
        let is_due = self.due && !self.paused && self.seal.is_none();
        is_due && (self.merge.is_none() || (has_frozen && !self.seal_waits))
    }

    /// Whether a seal comes first. If not now, it does next time.
    pub fn take_turn_of_seal(&mut self) -> bool {
        !std::mem::take(&mut self.seal_waits)
    }

    /// Whether other merges have their turn before a seal.
    pub fn let_seal_wait(&mut self, waits: bool) {
        self.seal_waits = waits;
    }

    pub fn begin(&mut self, running: Running) {
        let under_way = match running.purpose {
            Purpose::Seal => &mut self.seal,
            Purpose::Merge | Purpose::Salvage => &mut self.merge,
        };
        debug_assert!(under_way.is_none(), "one at a time");
        *under_way = Some(running);
    }

    /// The one with this number has ended; nothing if it is not under way.
    pub fn end(&mut self, number: u64) -> Option<Running> {
        let is_it = |running: &mut Running| running.number == number;
        let sealed = self.seal.take_if(is_it);
        let ended = sealed.or_else(|| self.merge.take_if(is_it))?;
        self.due = true;
        Some(ended)
    }

    pub fn is_sealing(&self) -> bool {
        self.seal.is_some()
    }

    pub fn is_merging(&self) -> bool {
        self.merge.is_some()
    }
}
