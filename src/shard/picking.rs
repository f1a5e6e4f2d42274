//! Which segments are worth merging.

use std::sync::Arc;

use super::Shard;
use crate::store::segment::Segment;
use crate::types::WallMs;

/// When idle, segments are merged into the largest once they make up this part of it: 1 in so many.
const IDLE_PART: u64 = 4;
/// A merge that did not fit is tried again when it is expected to take less, by this part: 1 in so many.
const RETRY_PART: u64 = 8;
/// What a merge takes beyond what it had written when the disk was full, its footer for one: this part of that, 1 in so many.
const UNWRITTEN_PART: u64 = 4;
/// Between two merges of everything for the sake of request ids alone.
const FORGET_AGAIN_MS: u64 = 10 * 60 * 1000;
/// Most segments merged at once.
const MERGE_INPUTS_MAX: usize = 16;

/// A merge that the disk had not the space for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge {
    /// Bytes that it was expected to take; or that one before it, which did not fit either, was expected to take, if that is less.
    pub expected: u64,
    /// What there has to be for it, bytes: no less, and more where it was seen to take more.
    pub needed: u64,
}

impl TooLarge {
    /// What is cleared may free less than it is estimated to: believing the estimate alone, a look at the disk would find space enough for a
    /// merge that failed just now.
    pub fn of_failed(expected: u64, written: u64) -> Self {
        Self {
            expected,
            needed: expected.max(written + written / UNWRITTEN_PART),
        }
    }

    /// There was not the space for these either: of a merge that was expected to take less than it does, and a smaller one that was tried instead,
    /// the first would otherwise look as if it fitted again.
    pub fn after(self, before: Option<Self>) -> Self {
        Self {
            expected: before.map_or(self.expected, |before| before.expected.min(self.expected)),
            ..self
        }
    }
}

impl Shard {
    /// Segments that are worth merging.
    pub(super) fn pick(&self, now: WallMs) -> Option<Vec<Arc<Segment>>> {
        if self.merges.is_paused() || self.segments.count() == 0 {
            return None;
        }
        let mut by_size = self.segments.all().to_vec();
        // Those that wait for space to be salvaged would stop any other merge, and must not hold it up.
        by_size.retain(|segment| !self.segments.is_damaged(segment.number()));
        // What is left of the sound ones after a reclaim is one, which would be written again and again.
        if by_size.len() < self.segments.count().min(2) {
            return None;
        }
        by_size.sort_by_key(|segment| (segment.file_bytes(), segment.number()));
        if self.reclaim_is_worth_it(now) {
            return self.that_fit(by_size);
        }
        let tier = self.full_tier(&by_size).or_else(|| self.idle_merge(&by_size, now))?;
        self.that_fit(tier)
    }

    /// A damaged segment that the disk may have the space to write anew.
    pub(super) fn pick_damaged(&self) -> Option<Arc<Segment>> {
        let segments = self.segments.all().iter();
        let mut damaged = segments.filter(|segment| self.segments.is_damaged(segment.number()));
        damaged.find(|segment| self.may_fit([*segment])).cloned()
    }

    /// Whether the merge of these is expected to take clearly less than one that did not fit.
    fn may_fit<'a>(&self, inputs: impl IntoIterator<Item = &'a Arc<Segment>>) -> bool {
        self.disk
            .merge_too_large()
            .is_none_or(|merge| self.bytes_needed(inputs) < merge.expected - merge.expected / RETRY_PART)
    }

    /// As many of these, smallest first, as the disk may have space to merge: half of what did not fit. What the merge frees lets more fit.
    fn that_fit(&self, mut by_size: Vec<Arc<Segment>>) -> Option<Vec<Arc<Segment>>> {
        // Clears that came since may have made it smaller; not each one is worth a try.
        let Some(too_large) = self.disk.merge_too_large().filter(|_| !self.may_fit(&by_size)) else {
            return Some(by_size);
        };
        let mut bytes = 0;
        let fits = by_size.iter().take_while(|segment| {
            bytes += segment.file_bytes();
            bytes <= too_large.needed / 2
        });
        let count = fits.count();
        by_size.truncate(count);
        // One alone would be written again and again.
        (count >= 2).then_some(by_size)
    }

    /// About how much space the merge of these takes while its inputs are still there.
    pub(super) fn bytes_needed<'a>(&self, inputs: impl IntoIterator<Item = &'a Arc<Segment>>) -> u64 {
        let (mut count, mut bytes) = (0, 0);
        for segment in inputs {
            count += 1;
            bytes += segment.file_bytes();
        }
        match count == self.segments.count() {
            true => bytes.saturating_sub(self.clears.bytes()),
            // What is cleared may lie in the others.
            false => bytes,
        }
    }

    /// The lowest tier of segments of about one size that has as many as are merged at a time.
    fn full_tier(&self, by_size: &[Arc<Segment>]) -> Option<Vec<Arc<Segment>>> {
        let mut start = 0;
        while start < by_size.len() {
            let bound = by_size[start].file_bytes().max(self.config.log_bytes / 8) * self.config.fan_out as u64;
            let count = by_size[start..]
                .iter()
                .take_while(|segment| segment.file_bytes() <= bound)
                .count();
            if count >= self.config.fan_out {
                return Some(by_size[start..start + count.min(MERGE_INPUTS_MAX)].to_vec());
            }
            start += count.max(1);
        }
        None
    }

    /// When nobody writes: all into one, unless that means to write a large segment again for the sake of little.
    fn idle_merge(&self, by_size: &[Arc<Segment>], now: WallMs) -> Option<Vec<Arc<Segment>>> {
        if !self.is_idle(now) || by_size.len() < 2 {
            return None;
        }
        let (largest, rest) = by_size.split_last()?;
        let rest_bytes: u64 = rest.iter().map(|segment| segment.file_bytes()).sum();
        if rest_bytes >= largest.file_bytes() / IDLE_PART {
            return Some(by_size.to_vec());
        }
        (rest.len() >= 2).then(|| rest.to_vec())
    }

    /// Whether most of what some segment holds are request ids that need not be remembered any more.
    pub(super) fn forgettable_requests(&self, now: WallMs) -> bool {
        // Those that a merge of everything had to leave, another one would leave too.
        let since_merge = now.0.saturating_sub(self.clears.merged_all_at().0);
        let Some(heard) = self.others.heard(now).filter(|_| since_merge >= FORGET_AGAIN_MS) else {
            return false;
        };
        self.segments.all().iter().any(|segment| {
            let stats = segment.stats();
            let old = stats
                .oldest_spent
                .is_some_and(|oldest| heard.0.saturating_sub(oldest.0) > crate::store::compact::REQUEST_ID_KEPT_MS);
            old && stats.spent * 2 > stats.ops
        })
    }
}
