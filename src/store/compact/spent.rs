//! When a `Spent` record goes: what is left of a cleared op with a request id.
//!
//! It does two things. For an hour and a minute, it tells a retry that the request was done. And it hides other copies of the request,
//! which a second try left behind and no clear saw: without it they would show, and a cleared value would be back. So it also stays
//! - as long as a replica may hold a copy that is not here: until, after that hour, all that the others had was here, and none of them can
//!   have missed the op itself;
//! - as long as a copy is here, that is, until the copy is cleared too; and as long as one may have been here, where damage took something
//!   of the slot.
//!
//! A request that was accepted again under a forgotten id is not a copy (see `fold`); only its time tells. So a
//! segment that forgets a request id records a time [`COPIES_APART_MS`](crate::core::fold::COPIES_APART_MS) past the
//! forgotten op, and every later stamp, by this node or by one that asks it first, is higher, whatever the wall clock
//! says. A replica that takes a dot as dropped because a peer dropped it takes over that peer's time too
//! (`node::cluster::catch_up::pull`).

use super::clears::KeyClears;
use super::{KeyName, Merge, MergeError, Source};
use crate::core::fold::taken_anew_from;
use crate::core::op::{Body, Op};
use crate::core::slot::KeyHash;
use crate::core::stamp::HybridTime;
use crate::planted::{Bug, planted};
use crate::store::filter::request_tag;
use crate::types::RequestId;

/// How long the request id of a cleared op is remembered at least (guarantee G6), with a minute to spare for the clock's steps.
pub const REQUEST_ID_KEPT_MS: u64 = 61 * 60 * 1000;

/// Requests that could be forgotten if there were no copy of them among the ops of the key; sorted.
#[derive(Default)]
pub(super) struct Copies(Vec<RequestId>);

/// The requests of a key that could be forgotten, in order, each with the time of its last op.
struct Due(Vec<(RequestId, HybridTime)>);

impl Due {
    fn of(mut due: Vec<(RequestId, HybridTime)>) -> Self {
        // The latest first, which is the one that stays.
        due.sort_unstable_by(|a, b| b.cmp(a));
        due.dedup_by_key(|(id, _)| *id);
        due.reverse();
        Self(due)
    }

    /// The request of which the op is a copy that would show.
    fn copied_by(&self, clears: &KeyClears, op: &Op) -> Option<RequestId> {
        let id = op.request_id?;
        let is_text = matches!(op.body, Body::Part(_) | Body::Value(_));
        if !is_text || clears.cleared.contains(op.dot.origin, op.dot.seq) {
            return None;
        }
        let at = self.0.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        (op.time < taken_anew_from(self.0[at].1)).then_some(id)
    }
}

impl Copies {
    fn of(mut ids: Vec<RequestId>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }
}

impl Merge {
    /// The request id of what is left of an op, where nothing outside of this replica is in the way of forgetting it.
    fn due(&self, op: &Op) -> Option<(RequestId, HybridTime)> {
        let (Body::Spent { cleared_at }, Some(id), Some(heard)) = (&op.body, op.request_id, self.context.heard) else {
            return None;
        };
        let since = (*cleared_at).max(op.time.wall());
        let age_ms = heard.min(self.context.now).0.saturating_sub(since.0);
        let stable = self.context.stable.get(op.dot.slot);
        let is_everywhere = stable.is_some_and(|stable| stable.contains(op.dot.origin, op.dot.seq));
        // Where damage is stepped over, there may be what cannot be read; and what it took of the slot comes back.
        let is_whole = !self.context.salvage && self.context.lost.get(op.dot.slot).is_none();
        (age_ms >= REQUEST_ID_KEPT_MS && is_everywhere && is_whole).then_some((id, op.time))
    }

    /// The copies among all ops of a key.
    pub(super) fn copies_of(&self, clears: &KeyClears, ops: &[Op]) -> Copies {
        let due = Due::of(ops.iter().filter_map(|op| self.due(op)).collect());
        if due.0.is_empty() {
            return Copies::default();
        }
        Copies::of(ops.iter().filter_map(|op| due.copied_by(clears, op)).collect())
    }

    /// The same for a key whose ops do not fit in memory. Of what is due, no more is held than the filter takes that is made of it.
    pub(super) fn copies_of_long_key(&self, name: &KeyName, clears: &KeyClears) -> Result<Copies, MergeError> {
        let has_spent = |source: &&Source| match source {
            Source::Memtable(_) => true,
            Source::Segment(segment) => segment.stats().spent > 0,
        };
        let mut due = Vec::new();
        self.see_key(name, self.sources.iter().filter(has_spent), |op| {
            due.extend(self.due(&op))
        })?;
        if due.is_empty() {
            return Ok(Copies::default());
        }
        let (due, mut copies) = (Due::of(due), Vec::new());
        self.see_key(name, self.sources.iter(), |op| {
            copies.extend(due.copied_by(clears, &op))
        })?;
        Ok(Copies::of(copies))
    }

    /// Whether what is left of an op goes.
    pub(super) fn is_forgotten(&self, (slot, user, key): &KeyName, copies: &Copies, op: &Op) -> bool {
        let Some((id, _)) = self.due(op).filter(|_| !planted(Bug::SpentKept)) else {
            return false;
        };
        let hash = KeyHash::of(user, key);
        let tag = request_tag(hash, id);
        let mut outside = self.context.outside.iter();
        let mut memtables = self.context.memtables.iter();
        copies.0.binary_search(&id).is_err()
            && !outside.any(|segment| segment.may_hold(*slot, tag))
            && !memtables.any(|memtable| memtable.read().group_of_request(user, key, id).is_some())
    }
}
