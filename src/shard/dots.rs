//! The dots of a shard: which it holds, which it knows to be dropped, and which it has lost.
//!
//! Invariants:
//! - what is covered is not taken again: a dot is covered by the end of the call that put its op into a group, be that durable or not;
//! - what is dropped is covered, and stays among the dropped until a file here says so of it;
//! - what is durable here, or dropped, is not lost;
//! - a note is wanted soon only while something is dropped that no file says so of.

use super::segments::Segments;
use crate::core::clock::SlotClocks;
use crate::core::op::Dot;
use crate::core::slot::SlotId;
use crate::core::stamp::OriginId;
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::store::segment::Segment;

pub(super) struct Dots {
    /// Held or known to be dropped, those that are not durable yet too.
    covered: SlotClocks,
    /// Those of them that are dropped, and of which no file here says so.
    dropped: SlotClocks,
    /// Whether a file is to say soon which are dropped, and not only once nobody writes.
    note_wanted: bool,
    /// The dots of the open group, and of the one that is being committed.
    open: Vec<Dot>,
    committing: Vec<Dot>,
    /// Dots that were on this disk and are not any more.
    lost: SlotClocks,
}

impl Dots {
    /// The dots that were found on the disk.
    pub fn found(covered: SlotClocks, lost: SlotClocks) -> Self {
        Self {
            covered,
            dropped: SlotClocks::default(),
            note_wanted: false,
            open: Vec::new(),
            committing: Vec::new(),
            lost,
        }
    }

    pub fn covered(&self) -> &SlotClocks {
        &self.covered
    }

    pub fn dropped(&self) -> &SlotClocks {
        &self.dropped
    }

    pub fn lost(&self) -> &SlotClocks {
        &self.lost
    }

    /// The dots of the open group.
    pub fn open(&self) -> &[Dot] {
        &self.open
    }

    pub fn is_covered(&self, dot: Dot) -> bool {
        self.covered.contains(dot.slot, dot.origin, dot.seq)
    }

    /// Those of `dots` that are neither here nor in the open group, nor known to be dropped.
    pub fn lacking(&self, dots: &SlotClocks) -> SlotClocks {
        dots.minus(&self.covered)
    }

    /// The last sequence of the origin in the slot that was ever here; 0 if there is none.
    pub fn last_of(&self, slot: SlotId, origin: OriginId) -> u64 {
        let last = |clocks: &SlotClocks| clocks.get(slot).and_then(|clock| clock.get(origin)?.last());
        last(&self.covered).max(last(&self.lost)).unwrap_or(0)
    }

    /// What is durable here or known to be dropped; of losses that nobody can name, nothing.
    pub fn durable(&self) -> SlotClocks {
        // All in one go: each time, the clocks of all slots are copied.
        let mut untold = SlotClocks::default();
        for dot in self.open.iter().chain(&self.committing) {
            untold.insert(dot.slot, dot.origin, dot.seq);
        }
        for (slot, _) in self.covered.slots() {
            untold.insert_range(slot, UNKNOWN_ORIGIN, 1, u64::MAX);
        }
        self.covered.minus(&untold)
    }

    /// An op was put into the open group. It is to be covered before the call ends that put it there.
    pub fn put(&mut self, dot: Dot) {
        self.open.push(dot);
    }

    pub fn cover(&mut self, dot: Dot) {
        self.covered.insert(dot.slot, dot.origin, dot.seq);
    }

    /// Covers many, which are sorted.
    pub fn cover_all(&mut self, dots: &[Dot]) {
        self.covered.insert_all(dots);
    }

    /// The open group is being committed; another one is open.
    pub fn close_group(&mut self) {
        self.committing = std::mem::take(&mut self.open);
    }

    /// The group that was being committed is durable. Gives its dots, in order.
    pub fn committed(&mut self) -> Vec<Dot> {
        let mut dots = std::mem::take(&mut self.committing);
        dots.sort_unstable();
        dots
    }

    /// What became durable is not lost any more; returns whether any of it was. Called after each commit, even of one op, for as long as
    /// anything is lost, so it must not go through all the clocks of the shard.
    pub fn find_among(&mut self, dots: &[Dot]) -> bool {
        let mut found = SlotClocks::default();
        for dot in dots {
            if self.lost.contains(dot.slot, dot.origin, dot.seq) {
                found.insert(dot.slot, dot.origin, dot.seq);
            }
        }
        if found.is_empty() {
            return false;
        }
        self.lost = self.lost.minus(&found);
        true
    }

    /// Like `find_among`, but goes through all that is durable.
    pub fn find(&mut self, durable: &SlotClocks) -> bool {
        let lost = self.lost.minus(durable);
        let is_found = lost != self.lost;
        self.lost = lost;
        is_found
    }

    /// These are known to be dropped. The caller says to readers that they are durable, and then that they are found (`find`).
    pub fn drop_all(&mut self, dots: &SlotClocks) {
        self.covered.join(dots);
        self.dropped.join(dots);
    }

    /// Gives up these as far as they are lost: they are dropped. Gives those that were.
    pub fn give_up(&mut self, lost: &SlotClocks) -> SlotClocks {
        let given_up = self.lost.meet(lost);
        if !given_up.is_empty() {
            self.lost = self.lost.minus(&given_up);
            self.drop_all(&given_up);
        }
        given_up
    }

    /// All that is lost is dropped, as a file here says.
    pub fn accept_loss(&mut self) {
        self.covered.join(&std::mem::take(&mut self.lost));
    }

    pub fn lose(&mut self, dots: &SlotClocks) {
        self.lost.join(dots);
    }

    /// What the new segment says is lost, and was not before; without what was given up since its merge began: that is dropped, or another
    /// footer says so.
    pub fn newly_lost(&self, new: &Segment, others: &Segments) -> SlotClocks {
        let known = others.all().iter().map(|segment| segment.covered());
        let lost = known.fold(new.lost().minus(&self.dropped), |lost, covered| lost.minus(covered));
        lost.minus(&self.lost)
    }

    /// After a salvage less is covered than before: what files and memtables hold, and what is dropped. Gives what is covered no more.
    pub fn recount(&mut self, held: SlotClocks) -> SlotClocks {
        let before = std::mem::replace(&mut self.covered, held);
        self.covered.join(&self.dropped);
        before.minus(&self.covered)
    }

    /// A file now says of these that they are held or dropped.
    pub fn note(&mut self, said: &SlotClocks) {
        self.dropped = self.dropped.minus(said);
        self.note_wanted &= !self.dropped.is_empty();
    }

    /// Has a file say soon what is dropped, if there is anything that none says.
    pub fn want_note(&mut self) -> bool {
        self.note_wanted = !self.dropped.is_empty();
        self.note_wanted
    }

    pub fn is_note_wanted(&self) -> bool {
        self.note_wanted
    }
}
