//! The shard as one of several replicas: ops that others stamped, the clock that it tells them, and what all of them know.
//!
//! Invariants:
//! - an op is appended at most once: what the clock covers is not taken again;
//! - the clock that others are told holds only what is durable here or known to be dropped, and changes in one step with what readers see:
//!   when two replicas' clocks of a slot are equal, what one of them shows is what both hold.

use std::collections::BTreeSet;

use super::write::{GroupNumber, WriteRefused};
use super::{Shard, ShardReader};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Body, Dot, KeyedOp};
use crate::core::slot::{KeyHash, SlotId};
use crate::core::stamp::HybridTime;
use crate::planted::{Bug, planted};
use crate::store::export::{HeldDots, OpScan, held_dots};
use crate::store::log::record_bytes;
use crate::store::memtable::SharedMemtable;
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

/// What is known of the other replicas of the shard's slots.
#[derive(Default)]
pub(super) struct Others {
    /// What every other replica's clock covers; absent where there is none.
    stable: Option<SlotClocks>,
    heard: Option<WallMs>,
}

impl Others {
    /// Before anything was heard of them, if there are any.
    pub fn new(are_there: bool) -> Self {
        Self {
            stable: are_there.then(SlotClocks::default),
            heard: None,
        }
    }

    /// What the clocks of all of them cover; absent where there is none.
    pub fn stable(&self) -> Option<&SlotClocks> {
        self.stable.as_ref()
    }

    /// What every replica's clock covers, this one's included.
    pub fn stable_with(&self, covered: &SlotClocks) -> SlotClocks {
        match &self.stable {
            Some(stable) => stable.meet(covered),
            None => covered.clone(),
        }
    }

    /// The last time at which, as far as is known, no other replica held anything that was missing here.
    pub fn heard(&self, now: WallMs) -> Option<WallMs> {
        match &self.stable {
            Some(_) => self.heard,
            None => Some(now),
        }
    }
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
        self.dots.cover_all(&Vec::from_iter(taken));
        applied
    }

    fn apply_to(&mut self, taken: &mut BTreeSet<Dot>, ops: Vec<KeyedOp>, now: WallMs) -> Result<Applied, WriteRefused> {
        let mut ops = ops.into_iter();
        while let Some(mut keyed) = ops.next() {
            // It is remembered by this node's clock, and that may be ahead of the other one's.
            if let Body::Spent { cleared_at } = &mut keyed.op.body {
                *cleared_at = match planted(Bug::SpentByOp) {
                    true => WallMs(0),
                    false => now.max(*cleared_at),
                };
            }
            let dot = keyed.op.dot;
            let is_known = self.dots.is_covered(dot) || taken.contains(&dot);
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
        match self.dots.open().is_empty() {
            true => self.logs.commit_under_way(),
            false => Some(self.logs.open_group()),
        }
    }

    /// Lets readers see what was committed, and tells of it.
    pub(super) fn show_durable(&mut self) {
        let dots = self.dots.committed();
        self.published.tell_durable(|clocks| {
            self.logs.show_durable();
            clocks.insert_all(&dots);
        });
        if self.dots.find_among(&dots) {
            self.publish();
        }
    }

    /// Publishes the clock after a change that was not a commit.
    pub(super) fn publish_clock(&mut self) {
        let durable = self.dots.durable();
        self.published.tell_durable(|clocks| *clocks = durable);
        self.published.tell_time(self.naming.highest_time());
    }

    /// Takes these dots for dropped: a peer that covers them has sent all of them that it still holds, so the others were cleared, and the
    /// clears that did it are durable here.
    pub fn know_dropped(&mut self, dots: &SlotClocks) {
        let mut news = self.dots.lacking(dots);
        news.retain_slots(|slot| self.place.slots.contains(&slot.0));
        if news.is_empty() {
            return;
        }
        self.dots.drop_all(&news);
        self.let_clears_go_in(&news);
        self.published.tell_durable(|clocks| clocks.join(&news));
        if self.dots.find(&self.reader().durable_clocks()) {
            self.publish();
        }
    }

    /// Those of `dots` that are neither here nor in the open group, nor known to be dropped.
    pub fn lacking(&self, dots: &SlotClocks) -> SlotClocks {
        self.dots.lacking(dots)
    }

    /// Whether files say of all dropped dots that they are. Where they do not, they soon do.
    pub fn dropped_are_noted(&mut self) -> bool {
        let is_wanted = self.dots.want_note();
        if is_wanted {
            self.merges.make_due();
            self.want_note();
        }
        !is_wanted
    }

    /// Has the footer of the next sealed log say which dots are dropped, even if that log is empty: to write a segment anew for it might
    /// mean a large one. At once if they were given up as lost, for until then each start finds them lost again; and if somebody waits for
    /// it.
    pub(super) fn want_note(&mut self) {
        if self.dots.is_note_wanted() && self.logs.frozen_count() == 0 {
            self.space.want_takeover();
        }
    }

    /// Gives up these lost dots: all other replicas have sent what they have of these slots since they were lost.
    pub fn heal(&mut self, lost: &SlotClocks) {
        let healed = self.dots.give_up(lost);
        if healed.is_empty() {
            return;
        }
        tracing::info!(
            shard = self.place.shard,
            slots = healed.slots().count(),
            "damaged slots are whole again"
        );
        self.dropped_are_noted();
        self.let_clears_go_in(&healed);
        self.publish_clock();
        self.publish();
    }

    /// What every other replica's clock covers, as far as this node has heard; and when it last had all that they had. Clears that all know
    /// of are not kept any longer, and neither are request ids that nobody can bring back.
    pub fn set_stable(&mut self, mut stable: SlotClocks, heard: Option<WallMs>) {
        stable.retain_slots(|slot| self.place.slots.contains(&slot.0));
        self.others.heard = heard;
        if self.others.stable.as_ref() != Some(&stable) {
            let before = self.others.stable.replace(stable);
            self.clears.let_go(before.as_ref(), self.others.stable());
            self.merges.make_due();
        }
    }

    /// Clears that had to be kept may go now where this replica itself has come to know of these dots.
    fn let_clears_go_in(&mut self, news: &SlotClocks) {
        self.clears.let_go_in(news);
        self.merges.make_due();
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

    /// A snapshot of one key, and what `told` makes of the slot's clock at that very moment (None stands for an empty clock).
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

    /// What was collected of the slot: clears that are not held any more, and all that they saw.
    pub fn collected(&self, slot: SlotId) -> Clock {
        let mut collected = Clock::default();
        for segment in &self.readable.load().segments {
            if let Some(clock) = segment.collected().get(slot) {
                collected.join(clock);
            }
        }
        collected
    }

    /// A scan of the ops with these dots that are durable here, and the clock at that moment: wanted dots that it covers and the scan does
    /// not give were cleared.
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
