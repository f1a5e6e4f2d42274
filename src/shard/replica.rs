//! The shard as one of several replicas: ops that others stamped, the clock that it tells them, and what all of them know.
//!
//! Invariants:
//! - an op is appended at most once: what the clock covers is not taken again;
//! - the clock that is told holds only what is durable here or known to be dropped, and changes in one step with what readers see: who
//!   finds two replicas' clocks of a slot equal may take what one of them shows for what both hold.

use std::collections::BTreeSet;

use super::write::{GroupNumber, WriteRefused};
use super::{Shard, ShardReader};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Body, Dot, KeyedOp};
use crate::core::slot::{KeyHash, SlotId};
use crate::core::stamp::HybridTime;
use crate::store::export::{HeldDots, OpScan, held_dots};
use crate::store::log::record_bytes;
use crate::store::memtable::SharedMemtable;
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::store::segment::ReadError;
use crate::store::source::KeySource;
use crate::types::{Key, UserId, WallMs};

use super::published::Damaged;

/// What became of ops from elsewhere.
pub enum Applied {
    /// All of them are durable once this group is, or already.
    InGroup(Option<GroupNumber>),
    /// The log has no room right now for these, the first of which is not taken yet: apply them again when a job was done.
    NeedsSpace(Vec<KeyedOp>),
}

impl Shard {
    /// Takes ops that were stamped elsewhere; those that the clock covers already are passed over.
    pub fn apply(&mut self, ops: Vec<KeyedOp>, now: WallMs) -> Result<Applied, WriteRefused> {
        if self.failed.is_some() {
            return Err(WriteRefused::Stopped);
        }
        // They come in the order of keys, and so are noted all at once.
        let mut taken = BTreeSet::new();
        let applied = self.apply_to(&mut taken, ops, now);
        self.covered.insert_all(&Vec::from_iter(taken));
        applied
    }

    fn apply_to(&mut self, taken: &mut BTreeSet<Dot>, ops: Vec<KeyedOp>, now: WallMs) -> Result<Applied, WriteRefused> {
        let mut ops = ops.into_iter();
        while let Some(mut keyed) = ops.next() {
            // It is remembered by this node's clock, and that may be ahead of the other one's.
            if let Body::Spent { cleared_at } = &mut keyed.op.body {
                *cleared_at = now.max(*cleared_at);
            }
            let dot = keyed.op.dot;
            let is_known = self.covered.contains(dot.slot, dot.origin, dot.seq) || taken.contains(&dot);
            if !self.place.slots.contains(&dot.slot.0) || is_known {
                continue;
            }
            let bytes = record_bytes(keyed.user.as_str(), keyed.key.as_str(), &keyed.op) as u64;
            // What frees space, or takes none to speak of, is let through on a full disk.
            let small = matches!(keyed.op.body, Body::Clear(_) | Body::Spent { .. });
            if !self.make_room(bytes, small)? {
                return Ok(Applied::NeedsSpace(std::iter::once(keyed).chain(ops).collect()));
            }
            let hash = KeyHash::of(&keyed.user, &keyed.key);
            self.put(hash, &keyed.user, &keyed.key, &keyed.op, now);
            taken.insert(dot);
            self.open_parts.applied(&keyed.user, &keyed.key, &keyed.op.body);
        }
        Ok(Applied::InGroup(self.newest_group()))
    }

    /// The group that has to be durable for all that was put so far to be.
    fn newest_group(&self) -> Option<GroupNumber> {
        if self.open_dots.is_empty() {
            return self.commit_under_way.map(GroupNumber);
        }
        Some(GroupNumber(self.groups))
    }

    /// Lets readers see what was committed, and tells of it.
    pub(super) fn show_durable(&mut self) {
        let mut dots = std::mem::take(&mut self.closed_dots);
        dots.sort_unstable();
        let durable_groups = self.durable_groups;
        self.published.tell_durable(|clocks| {
            if let Some(active) = &self.active {
                let durable = durable_groups.saturating_sub(active.first_group);
                active.memtable.write().set_durable(durable as usize);
            }
            clocks.insert_all(&dots);
        });
        self.find_among(&dots);
    }

    /// The same as `find_lost`, where nothing but these became durable. Asked after each commit, be that of one op, for as long as anything is
    /// lost: it must not look at all the clocks of the shard.
    fn find_among(&mut self, dots: &[Dot]) {
        let mut found = SlotClocks::default();
        for dot in dots {
            if self.lost.contains(dot.slot, dot.origin, dot.seq) {
                found.insert(dot.slot, dot.origin, dot.seq);
            }
        }
        if !found.is_empty() {
            self.lost = self.lost.minus(&found);
            self.publish();
        }
    }

    /// What was lost and is here again is not lost any more.
    fn find_lost(&mut self) {
        let durable = self.reader().durable_clocks();
        let lost = self.lost.minus(&durable);
        if lost != self.lost {
            self.lost = lost;
            self.publish();
        }
    }

    /// Tells the clock anew, after it changed otherwise than by a commit.
    pub(super) fn publish_clock(&mut self) {
        // All in one go: each time, the clocks of all slots are copied.
        let mut untold = SlotClocks::default();
        for dot in self.open_dots.iter().chain(&self.closed_dots) {
            untold.insert(dot.slot, dot.origin, dot.seq);
        }
        for (slot, _) in self.covered.slots() {
            untold.insert_range(slot, UNKNOWN_ORIGIN, 1, u64::MAX);
        }
        let durable = self.covered.minus(&untold);
        self.published.tell_durable(|clocks| *clocks = durable);
        self.published.tell_time(self.clock.last());
    }

    /// Takes these dots for known: a peer that covers them sent all of them that it still holds, so the others were cleared, and what
    /// cleared them is durable here.
    pub fn know_dropped(&mut self, dots: &SlotClocks) {
        let mut news = dots.minus(&self.covered);
        news.retain_slots(|slot| self.place.slots.contains(&slot.0));
        if news.is_empty() {
            return;
        }
        self.covered.join(&news);
        self.dropped.join(&news);
        self.let_clears_go_in(&news);
        self.published.tell_durable(|clocks| clocks.join(&news));
        self.find_lost();
    }

    /// Of these dots, those that are neither here nor in the open group, nor known to be dropped.
    pub fn lacking(&self, dots: &SlotClocks) -> SlotClocks {
        dots.minus(&self.covered)
    }

    /// Whether files say of all dropped dots that they are. Where they do not, they soon do.
    pub fn dropped_are_noted(&mut self) -> bool {
        let are_noted = self.dropped.is_empty();
        if !are_noted {
            self.notes_soon = true;
            self.upkeep_due = true;
            self.want_note();
        }
        are_noted
    }

    /// The footer of the next sealed log, be that empty, says which dots are dropped; a segment written anew for that might be a large one. At
    /// once where they were given up as lost, for until then each start finds them lost again, and where somebody waits for it.
    pub(super) fn want_note(&mut self) {
        self.wanted_takeover |= self.notes_soon && !self.dropped.is_empty() && self.frozen.is_empty();
    }

    /// Gives up these lost dots: all other replicas have sent what they have of these slots since they were lost.
    pub fn heal(&mut self, lost: &SlotClocks) {
        let healed = self.lost.meet(lost);
        if healed.is_empty() {
            return;
        }
        self.lost = self.lost.minus(&healed);
        tracing::info!(
            shard = self.place.shard,
            slots = healed.slots().count(),
            "damaged slots are whole again"
        );
        self.covered.join(&healed);
        self.dropped.join(&healed);
        self.dropped_are_noted();
        self.let_clears_go_in(&healed);
        self.publish_clock();
        self.publish();
    }

    /// What every other replica's clock covers, as far as this node has heard; and when it last had all that they had. Clears that all know
    /// of are not kept any longer, and neither are request ids that nobody can bring back.
    pub fn set_stable(&mut self, mut stable: SlotClocks, heard: Option<WallMs>) {
        self.heard = heard;
        stable.retain_slots(|slot| self.place.slots.contains(&slot.0));
        if self.stable.as_ref() != Some(&stable) {
            let before = self.stable.replace(stable);
            self.let_clears_go(before.as_ref());
            self.upkeep_due = true;
        }
    }

    /// Clears that had to be kept may go now where what all know of is not what it was `before`. Where it is, a merge would only keep them
    /// again: slots of a node that is away stand still, while others in the same shard go on.
    pub(super) fn let_clears_go(&mut self, before: Option<&SlotClocks>) {
        let known = |stable: Option<&SlotClocks>, slot| stable.and_then(|stable| stable.get(slot)).cloned();
        let stable = self.stable.as_ref();
        self.clears_left
            .retain(|slot, _| known(before, *slot) == known(stable, *slot));
    }

    /// The same where this replica itself has come to know of these dots.
    fn let_clears_go_in(&mut self, news: &SlotClocks) {
        self.clears_left.retain(|slot, _| news.get(*slot).is_none());
        self.upkeep_due = true;
    }

    /// When nothing was elsewhere that was not here, the last time that this is known of.
    pub(super) fn heard(&self, now: WallMs) -> Option<WallMs> {
        match &self.stable {
            Some(_) => self.heard,
            None => Some(now),
        }
    }

    /// What every replica's clock covers, this one's included.
    pub(super) fn stable(&self) -> SlotClocks {
        match &self.stable {
            Some(stable) => stable.meet(&self.covered),
            None => self.covered.clone(),
        }
    }
}

impl ShardReader {
    /// The highest time that any op had so far, durable or not, or that is to come before what is stamped here.
    pub fn highest_time(&self) -> HybridTime {
        self.told.highest_time()
    }

    /// What is stamped here from now on is later than this.
    pub fn come_after(&self, time: HybridTime) {
        self.told.tell_time(time);
    }

    /// Whether what this replica says of the slot counts: nothing of it is lost here.
    pub fn is_whole(&self, slot: SlotId) -> bool {
        self.readable.load().lost.get(slot).is_none()
    }

    /// Dots that were on this disk and are no more.
    pub fn lost(&self) -> SlotClocks {
        self.readable.load().lost.clone()
    }

    /// What clears wait for that could not go at the last merge of all.
    pub fn awaited(&self) -> SlotClocks {
        self.readable.load().awaited.clone()
    }

    pub fn durable_clock(&self, slot: SlotId) -> Clock {
        self.told.durable.read().get(slot).cloned().unwrap_or_default()
    }

    pub fn durable_clocks(&self) -> SlotClocks {
        self.told.durable.read().clone()
    }

    pub fn durable_digest(&self, slot: SlotId) -> u64 {
        self.told.durable.read().get(slot).map_or(0, Clock::digest)
    }

    /// The digest of each slot that is not empty.
    pub fn durable_digests(&self) -> Vec<(SlotId, u64)> {
        let durable = self.told.durable.read();
        durable.slots().map(|(slot, clock)| (slot, clock.digest())).collect()
    }

    /// A snapshot of one key, and what `told` makes of the very clock of its slot that it was taken at; none is the empty one.
    pub fn key_at<T>(
        &self,
        (slot, hash): (SlotId, KeyHash),
        user: &UserId,
        key: &Key,
        told: impl FnOnce(Option<&Clock>) -> T,
    ) -> Result<(KeySource, T), Damaged> {
        let durable = self.told.durable.read();
        let source = self.key(slot, hash, user, key)?;
        Ok((source, told(durable.get(slot))))
    }

    /// Of each slot, what was collected: clears that are not held any more, and all that they saw.
    pub fn collected(&self, slot: SlotId) -> Clock {
        let mut collected = Clock::default();
        for segment in &self.readable.load().segments {
            if let Some(clock) = segment.collected().get(slot) {
                collected.join(clock);
            }
        }
        collected
    }

    /// The ops with these dots that are durable here, and the clock that they are of: what it covers of the wanted and the scan does not
    /// give was cleared.
    pub fn scan(&self, wants: SlotClocks, now: WallMs) -> (OpScan, SlotClocks) {
        self.scan_with(wants, now, || {})
    }

    /// `meanwhile` runs where another thread may do anything.
    pub(super) fn scan_with(&self, wants: SlotClocks, now: WallMs, meanwhile: impl FnOnce()) -> (OpScan, SlotClocks) {
        // The clock first: what becomes durable in between is given and not told of.
        let covered = wants.meet(&self.durable_clocks());
        meanwhile();
        let readable = self.readable.load_full();
        // What was found to be lost in between is not given, and was not cleared either.
        let covered = covered.minus(&readable.lost);
        let memtables: Vec<SharedMemtable> = readable.memtables.clone();
        (OpScan::new(memtables, readable.segments.clone(), wants, now), covered)
    }

    /// The dots of all ops of the slot that are durable here. Blocks on the disk.
    pub fn held_dots(&self, slot: SlotId) -> Result<HeldDots, ReadError> {
        self.held_dots_with(slot, || {})
    }

    pub(super) fn held_dots_with(&self, slot: SlotId, meanwhile: impl FnOnce()) -> Result<HeldDots, ReadError> {
        // The clock first: an op that comes in between must not look as if it had been dropped.
        let mut known = self.durable_clock(slot);
        meanwhile();
        let readable = self.readable.load_full();
        // Nor must one that was lost in between.
        if let Some(lost) = readable.lost.get(slot) {
            known = known.minus(lost);
        }
        let mut held = held_dots(&readable.memtables, &readable.segments, slot)?;
        held.covered.join(&known);
        Ok(held)
    }
}
