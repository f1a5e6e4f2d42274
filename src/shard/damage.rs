//! Damaged segments, and what is lost with them.

use std::sync::Arc;

use super::{MergeError, Shard};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::SlotId;
use crate::store::segment::{Segment, SegmentMeta, SegmentWriter};

impl Shard {
    /// A read met damage in this segment: it will be rewritten without the damaged part.
    pub fn report_damage(&mut self, segment: u64) {
        if self.segments.iter().any(|held| held.number() == segment) {
            if self.damaged_segments.insert(segment) {
                tracing::error!(
                    shard = self.place.shard,
                    segment,
                    "a block of this segment fails its checksum: it is written anew with all that can be read, and the old file is kept"
                );
            }
            self.upkeep_due = true;
        }
    }

    /// What the new segment says is lost, without what was given up since its merge began: that is dropped, or another footer says so.
    pub(super) fn still_lost(&self, new: &Segment) -> SlotClocks {
        let known = self.segments.iter().map(|segment| segment.covered());
        known.fold(new.lost().minus(&self.dropped), |lost, covered| lost.minus(covered))
    }

    /// After a salvage the clock is smaller than before: it is derived from the footers anew.
    pub(super) fn recount_covered(&mut self) {
        let before = std::mem::replace(&mut self.covered, self.dropped.clone());
        for segment in &self.segments {
            self.covered.join(segment.covered());
        }
        let memtables: Vec<_> = self.memtables().cloned().collect();
        for memtable in memtables {
            self.covered.join(&memtable.read().covered());
        }
        self.published.tell_lost(&before.minus(&self.covered));
    }

    /// Where ops that this origin named are lost, it ends. A request whose op is lost here is taken anew, and the lost op comes back from another
    /// replica: whoever reads both relies on it that one origin takes no request id twice.
    pub(super) fn end_origin_if_among(&mut self, newly_lost: &SlotClocks) {
        let is_own = |(_, clock): (SlotId, &Clock)| clock.get(self.origin).is_some();
        if self.config.replicated && self.lost.meet(newly_lost).slots().any(is_own) {
            self.fail("damage took ops that it had named: it needs a new origin".to_owned());
        }
    }

    /// Reads all that is sealed, and reports what is damaged. Blocks on the disk.
    pub fn verify(&mut self) {
        let is_damaged = |segment: &&Arc<Segment>| !segment.verify().is_empty();
        let damaged: Vec<u64> = self
            .segments
            .iter()
            .filter(is_damaged)
            .map(|held| held.number())
            .collect();
        damaged.into_iter().for_each(|number| self.report_damage(number));
    }

    /// Takes everything that is lost for dropped, durably: reads of the damaged slots are answered again, without what was lost.
    /// Gives the number of lost ops (a loss that cannot be counted is one in every slot). Blocks on the disk.
    pub fn accept_loss(&mut self) -> Result<u64, MergeError> {
        let lost = self.lost.clone();
        if lost.is_empty() {
            return Ok(0);
        }
        let meta = SegmentMeta {
            shard: self.place.shard,
            number: self.next_number,
            replaces: self.obsolete.iter().copied().collect(),
        };
        self.next_number += 1;
        let writer = SegmentWriter::create(self.place.disk.clone(), &self.place.dir, meta)?;
        let segment = writer.finish(lost.clone(), SlotClocks::default(), &self.place.cache)?;
        self.segments.push(Arc::new(segment));
        self.covered.join(&lost);
        self.lost = SlotClocks::default();
        self.publish();
        self.publish_clock();
        Ok(lost.count())
    }
}
