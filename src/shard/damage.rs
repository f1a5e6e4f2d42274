//! Damaged segments, and what is lost with them.

use std::sync::Arc;

use super::{MergeError, Shard};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::SlotId;
use crate::store::segment::{Segment, SegmentMeta, SegmentWriter};

impl Shard {
    /// A read met damage in this segment: it will be rewritten without the damaged part.
    pub fn report_damage(&mut self, segment: u64) {
        if !self.segments.holds(segment) {
            return;
        }
        if self.segments.note_damaged(segment) {
            tracing::error!(
                shard = self.place.shard,
                segment,
                "a block of this segment fails its checksum: it is written anew with all that can be read, and the old file is kept"
            );
        }
        self.merges.make_due();
    }

    /// After a salvage the clock is smaller than before: it is derived from the footers anew.
    pub(super) fn recount_covered(&mut self) {
        let mut held = SlotClocks::default();
        for segment in self.segments.all() {
            held.join(segment.covered());
        }
        for memtable in self.logs.memtables() {
            held.join(&memtable.read().covered());
        }
        let gone = self.dots.recount(held);
        self.published.tell_lost(&gone);
    }

    pub(super) fn tell_of_losses(&self) {
        let lost = self.dots.lost();
        tracing::error!(
            shard = self.place.shard,
            lost_ops = lost.count(),
            slots = lost.slots().count(),
            "what this shard lacks after damage"
        );
    }

    /// Where ops that this origin named are lost, it ends. A request whose op is lost here is taken anew, and the lost op comes back from
    /// another replica: a read of both relies on it that one origin takes no request id twice.
    pub(super) fn end_origin_if_among(&mut self, newly_lost: &SlotClocks) {
        let origin = self.naming.origin();
        let is_own = |(_, clock): (SlotId, &Clock)| clock.get(origin).is_some();
        if self.config.replicated && self.dots.lost().meet(newly_lost).slots().any(is_own) {
            self.fail("damage took ops that it had named: it needs a new origin".to_owned());
        }
    }

    /// Reads all that is sealed, and reports what is damaged. Blocks on the disk.
    pub fn verify(&mut self) {
        let is_damaged = |segment: &&Arc<Segment>| !segment.verify().is_empty();
        let damaged = self.segments.all().iter().filter(is_damaged);
        let damaged: Vec<u64> = damaged.map(|held| held.number()).collect();
        damaged.into_iter().for_each(|number| self.report_damage(number));
    }

    /// Takes everything that is lost for dropped, durably: reads of the damaged slots are answered again, without what was lost.
    /// Gives the number of lost ops (a loss that cannot be counted is one in every slot). Blocks on the disk.
    pub fn accept_loss(&mut self) -> Result<u64, MergeError> {
        let lost = self.dots.lost().clone();
        if lost.is_empty() {
            return Ok(0);
        }
        let meta = SegmentMeta {
            shard: self.place.shard,
            number: self.files.next_number(),
            replaces: self.files.obsolete().collect(),
        };
        let count = lost.count();
        let writer = SegmentWriter::create(self.place.disk.clone(), &self.place.dir, meta)?;
        let segment = writer.finish(lost, SlotClocks::default(), &self.place.cache)?;
        self.segments.add(Arc::new(segment));
        self.dots.accept_loss();
        self.publish();
        self.publish_clock();
        Ok(count)
    }
}
