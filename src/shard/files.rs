//! The files of a shard: their numbers, and those that are not needed any more.
//!
//! Invariants:
//! - no number is given twice;
//! - a file whose content lives on elsewhere is obsolete, and so named as replaced by every new segment, until its removal is durable, or it is
//!   used again under another name;
//! - what was removed when a sync failed stays obsolete as long as the shard is open: a later sync that succeeds proves little, and the name may
//!   come back with the next loss of power;
//! - spares are obsolete, and nothing else is done with them until they are taken.

use std::collections::BTreeSet;

use super::cleanup::{CleanedUp, Cleanup};
use crate::store::recover::Recovered;

/// Sealed logs kept for use again; more are removed.
const SPARES_MAX: usize = 2;

pub(super) struct Files {
    next_number: u64,
    /// Logs whose content is sealed; their space is used again.
    spares: Vec<u64>,
    /// Files whose content lives on elsewhere, until their removal is durable.
    obsolete: BTreeSet<u64>,
    /// Those of them that stay there, because a sync of their removal failed.
    doubted: BTreeSet<u64>,
    /// To remove or set aside.
    cleanup: Vec<Cleanup>,
    /// Those of which this failed: tried again at the next tick.
    cleanup_failed: Vec<Cleanup>,
    cleanup_under_way: bool,
}

impl Files {
    pub fn found(found: &Recovered) -> Self {
        let removed = found.obsolete.iter().copied().map(Cleanup::RemoveSegment);
        let set_aside = found.set_aside.iter().copied().map(Cleanup::QuarantineSegment);
        let obsolete = [&found.obsolete, &found.set_aside, &found.spares];
        Self {
            next_number: found.next_number,
            spares: found.spares.clone(),
            obsolete: obsolete.into_iter().flatten().copied().collect(),
            doubted: BTreeSet::new(),
            cleanup: removed.chain(set_aside).collect(),
            cleanup_failed: Vec::new(),
            cleanup_under_way: false,
        }
    }

    /// A number for a new file.
    pub fn next_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// What a new segment is to name as replaced.
    pub fn obsolete(&self) -> impl Iterator<Item = u64> {
        self.obsolete.iter().copied()
    }

    /// Keeps a sealed log for use again, or lets it go.
    pub fn retire_log(&mut self, number: u64, damaged: bool, disk_full: bool) {
        self.obsolete.insert(number);
        if damaged {
            self.cleanup.push(Cleanup::QuarantineLog(number));
        } else if self.spares.len() < SPARES_MAX && !disk_full {
            self.spares.push(number);
        } else {
            self.cleanup.push(Cleanup::RemoveLog(number));
        }
    }

    /// Lets a segment go that was merged away, or sets it aside.
    pub fn retire_segment(&mut self, number: u64, damaged: bool) {
        self.obsolete.insert(number);
        self.cleanup.push(match damaged {
            true => Cleanup::QuarantineSegment(number),
            false => Cleanup::RemoveSegment(number),
        });
    }

    /// A log to be used again. To be followed by `spare_used`, or by `remove_logs` if it failed.
    pub fn take_spare(&mut self) -> Option<u64> {
        self.spares.pop()
    }

    /// The spare has another name, durably.
    pub fn spare_used(&mut self, number: u64) {
        self.is_gone(number);
    }

    /// These are not needed, if they are there.
    pub fn remove_logs(&mut self, numbers: Vec<u64>) {
        self.cleanup.extend(numbers.into_iter().map(Cleanup::RemoveLog));
    }

    /// Logs that nobody waits for take up space that others may need.
    pub fn let_spares_go(&mut self) {
        let spares = std::mem::take(&mut self.spares);
        self.remove_logs(spares);
    }

    #[cfg(test)]
    pub fn spares(&self) -> &[u64] {
        &self.spares
    }

    pub fn remove_reserve(&mut self) {
        self.cleanup.push(Cleanup::RemoveReserve);
    }

    /// If its removal waited till now, it can stay.
    pub fn keep_reserve(&mut self) {
        self.cleanup.retain(|task| *task != Cleanup::RemoveReserve);
    }

    pub fn is_cleaning_up(&self) -> bool {
        self.cleanup_under_way
    }

    /// What is to be done to files, if there is anything and nothing is under way. To be followed by `cleaned_up`.
    pub fn begin_cleanup(&mut self) -> Option<Vec<Cleanup>> {
        if self.cleanup_under_way || self.cleanup.is_empty() {
            return None;
        }
        self.cleanup_under_way = true;
        Some(std::mem::take(&mut self.cleanup))
    }

    pub fn cleaned_up(&mut self, cleaned: CleanedUp) {
        self.cleanup_under_way = false;
        self.doubted.extend(cleaned.doubted);
        cleaned.gone.into_iter().for_each(|number| self.is_gone(number));
        // Not before the next tick: what failed now would fail at once again.
        self.cleanup_failed.extend(cleaned.failed);
    }

    /// The file is not there any more, and for all that is known it will not be again.
    fn is_gone(&mut self, number: u64) {
        if !self.doubted.contains(&number) {
            self.obsolete.remove(&number);
        }
    }

    pub fn clean_up_again(&mut self, disk_full: bool) {
        let mut failed = std::mem::take(&mut self.cleanup_failed);
        // With space on the disk again, the reserve is to stay where it is.
        failed.retain(|task| *task != Cleanup::RemoveReserve || disk_full);
        self.cleanup.append(&mut failed);
    }
}
