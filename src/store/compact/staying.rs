//! What of an op stays when its key is merged.

use super::clears::KeyClears;
use super::spent::Copies;
use super::{KeyName, Merge};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::fold::taken_anew_from;
use crate::core::op::{Body, Dot, Op};
use crate::core::slot::KeyHash;
use crate::planted::{Bug, planted};
use crate::store::filter::key_tag;

impl Merge {
    /// The op, or what has to stay in its place, if anything has.
    pub(super) fn what_stays(&mut self, name: &KeyName, (clears, copies): (&KeyClears, &Copies), op: Op) -> Option<Op> {
        let cleared = clears.cleared.contains(op.dot.origin, op.dot.seq);
        match &op.body {
            Body::Part(_) | Body::Value(_) if !cleared => Some(op),
            Body::Part(_) | Body::Value(_) => self.left_of(clears, op),
            Body::Spent { .. } if self.is_forgotten(name, copies, &op) => {
                // Another replica may still remember it; only by the time can that one tell a new request from a copy.
                self.writer.note_time(taken_anew_from(op.time));
                None
            }
            Body::Spent { .. } => Some(op),
            // The other one stands for it, and for all that it saw.
            Body::Clear(seen) if clears.includes(&op.dot, seen) => self.left_of(clears, op),
            Body::Clear(seen) if self.is_collected(name, &op.dot, seen) => {
                let mut collected = SlotClocks::default();
                collected.join_slot(op.dot.slot, seen);
                collected.insert(op.dot.slot, op.dot.origin, op.dot.seq);
                self.writer.add_collected(&collected);
                self.left_of(clears, op)
            }
            Body::Clear(seen) => {
                self.awaited.join_slot(op.dot.slot, seen);
                *self.clears_kept.entry(op.dot.slot).or_default() += 1;
                Some(op)
            }
        }
    }

    /// What stays of an op that is dropped: its request id, if it has one.
    fn left_of(&self, clears: &KeyClears, op: Op) -> Option<Op> {
        op.request_id.filter(|_| !planted(Bug::SpentForgotten))?;
        let cleared_at = clears.last_time.max(op.time).wall().max(self.context.now);
        let body = Body::Spent { cleared_at };
        Some(Op { body, ..op })
    }

    /// Whether the clear has nothing left to do, here and everywhere.
    ///
    /// Elsewhere: every replica holds it or has dropped it, and none takes an op again that it covers, for all their clocks cover that op.
    /// A replica whose clock was set back (an old disk, damage) does not cover what others say was collected, and reconciles.
    ///
    /// Here: an op that it covers can lie
    /// - in an input: then it is dropped, in this very merge;
    /// - in a segment outside: its filter is asked;
    /// - in a memtable. Ops of other origins come in any order, so one that the clear covers may have come after the clear was sealed, and
    ///   its memtable may be sealed after this merge: then it would show, with nothing to hide it. So memtables are searched, including
    ///   their ops that are not durable yet.
    ///
    /// No such op can arrive while the merge runs: this replica's own clock covered all of them when it began (`stable`), and it does not
    /// take what its clock covers. A damaged input may hold one that cannot be read, so a salvage collects nothing.
    fn is_collected(&self, name: &KeyName, dot: &Dot, seen: &Clock) -> bool {
        let (slot, user, key) = name;
        let known = self
            .context
            .stable
            .get(*slot)
            .is_some_and(|stable| stable.contains(dot.origin, dot.seq) && stable.covers(seen));
        if !known || self.context.salvage || planted(Bug::ClearsKept) {
            return false;
        }
        let hash = KeyHash::of(user, key);
        let mut memtables = self.context.memtables.iter();
        let mut outside = self.context.outside.iter();
        !outside.any(|segment| segment.may_hold(*slot, key_tag(hash)))
            && !memtables.any(|memtable| memtable.read().holds_any(user, key, seen))
    }
}
