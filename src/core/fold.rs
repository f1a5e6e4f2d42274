//! The fold of a key's ops into its view.
//!
//! The ops of a key may be far larger than memory, so the fold reads them as a stream, more than once: one or more *surveys*
//! learn what is visible and where the last finished value ends; then the ops are read again, in stamp order, and
//! [`Visibility::shows`] picks the pieces of the view.
//!
//! Which ops show:
//! - no `Clear` of the key covers the op's dot;
//! - of the ops with one request id, only the one with the lowest stamp shows. If a clear removed one of them, no
//!   copy stamped less than [`COPIES_APART_MS`] after it shows either: whoever cleared one copy cleared the request.
//!   A later copy is a new request, taken where the id had been forgotten (some replicas may forget sooner than
//!   others);
//! - it is not later than the last `Value` that shows: parts after that are not finished.
//!
//! Memory: one clock for all clears, and one entry per request id only when several origins wrote the key
//! (a single origin never takes a request id twice).

use std::collections::BTreeMap;

use super::clock::Clock;
use super::op::{Body, Dot, Op};
use super::stamp::{HybridTime, OriginId, Stamp};
use crate::planted::{Bug, planted};
use crate::types::{RequestId, WallMs};

/// So far apart may the copies of one request be: whoever tries it again stamps it later than what the earlier try asked others with (`wire::Ask`). A
/// request id that was cleared is remembered for longer, and who forgets it stamps later than this from then on (`store::compact`), whatever its wall clock says.
pub const COPIES_APART_MS: u64 = 60 * 60 * 1000;

/// The lowest time of an op with the same request id that is not hidden when the one with this time was cleared.
pub fn taken_anew_from(cleared: HybridTime) -> HybridTime {
    HybridTime(
        cleared
            .0
            .saturating_add(HybridTime::from_wall(WallMs(COPIES_APART_MS)).0),
    )
}

/// What the last survey learnt: enough to say of any op of the key whether it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visibility {
    cleared: Clock,
    /// Nothing where the request was cleared, and not taken anew.
    first_of_request: BTreeMap<RequestId, Option<Stamp>>,
    end: Option<Stamp>,
}

impl Visibility {
    /// Whether `op` is a piece of a finished value of the view.
    pub fn shows(&self, op: &Op) -> bool {
        self.end.is_some_and(|end| op.stamp() <= end) && self.stands(op)
    }

    /// Whether `op` is text that was neither cleared nor repeated; it may be a part that is not finished yet.
    pub fn stands(&self, op: &Op) -> bool {
        matches!(op.body, Body::Part(_) | Body::Value(_))
            && !is_cleared(&self.cleared, op.dot, op.time)
            && !self.repeated(op)
    }

    /// Whether the view has at least one value.
    pub fn has_values(&self) -> bool {
        self.end.is_some()
    }

    /// The stamp of the op that finishes the last value of the view.
    pub fn end(&self) -> Option<Stamp> {
        self.end
    }

    fn repeated(&self, op: &Op) -> bool {
        let counts_not = |first: &Option<Stamp>| *first != Some(op.stamp());
        !self.first_of_request.is_empty()
            && !planted(Bug::RetryTakenAnew)
            && op
                .request_id
                .is_some_and(|id| self.first_of_request.get(&id).is_some_and(counts_not))
    }
}

/// The planted bug's name for times, in place of dots.
const ANY_ORIGIN: OriginId = OriginId(u64::MAX);

fn is_cleared(cleared: &Clock, dot: Dot, time: HybridTime) -> bool {
    cleared.contains(dot.origin, dot.seq) || (planted(Bug::ClearByTime) && cleared.contains(ANY_ORIGIN, time.0))
}

/// What the next pass over the ops has to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// The clears; and the end, if no clear covers it.
    Clears,
    /// Which op of each request id came first.
    Requests,
    /// The end, now that all else is known.
    End,
}

/// One pass over all ops of a key, in any order.
#[derive(Debug)]
pub struct Survey {
    goal: Goal,
    known: Visibility,
    last_value: Option<(Stamp, Dot)>,
    origin: Option<OriginId>,
    several_origins: bool,
    requests: Requests,
}

/// The ops with request ids, as they were seen so far.
#[derive(Debug, Default)]
struct Requests {
    /// Of each id that of one op, the first one where there are several.
    first: BTreeMap<RequestId, Stamp>,
    /// All others.
    copies: BTreeMap<RequestId, Vec<Stamp>>,
    /// The latest one that was cleared.
    cleared: BTreeMap<RequestId, HybridTime>,
}

impl Requests {
    fn see(&mut self, id: RequestId, stamp: Stamp) {
        let first = self.first.entry(id).or_insert(stamp);
        if *first != stamp {
            let later = stamp.max(*first);
            *first = stamp.min(*first);
            self.copies.entry(id).or_default().push(later);
        }
    }

    /// The op that counts of each request.
    fn counting(self) -> BTreeMap<RequestId, Option<Stamp>> {
        let mut counting: BTreeMap<_, _> = self.first.iter().map(|(id, first)| (*id, Some(*first))).collect();
        for (id, cleared) in self.cleared {
            let copies = self.copies.get(&id).into_iter().flatten().chain(self.first.get(&id));
            let anew = copies.filter(|stamp| stamp.time >= taken_anew_from(cleared));
            counting.insert(id, anew.min().copied());
        }
        counting
    }
}

/// After a pass.
#[derive(Debug)]
pub enum Surveyed {
    Done(Visibility),
    /// Every op has to be shown to this survey once more.
    Again(Survey),
}

impl Default for Survey {
    fn default() -> Self {
        Self::with_goal(Goal::Clears, Visibility::default())
    }
}

impl Survey {
    fn with_goal(goal: Goal, known: Visibility) -> Self {
        Self {
            goal,
            known,
            last_value: None,
            origin: None,
            several_origins: false,
            requests: Requests::default(),
        }
    }

    pub fn see(&mut self, op: &Op) {
        match self.goal {
            Goal::Clears => self.see_first(op),
            Goal::Requests => self.see_request(op),
            Goal::End if self.known.stands(op) => self.see_value(op),
            Goal::End => {}
        }
    }

    fn see_first(&mut self, op: &Op) {
        if let Body::Clear(context) = &op.body {
            self.known.cleared.join(context);
            if planted(Bug::ClearByTime) {
                self.known.cleared.insert_range(ANY_ORIGIN, 1, op.time.0);
            }
            return;
        }
        self.several_origins |= *self.origin.get_or_insert(op.dot.origin) != op.dot.origin;
        self.see_value(op);
    }

    fn see_value(&mut self, op: &Op) {
        if matches!(op.body, Body::Value(_)) {
            self.last_value = self.last_value.max(Some((op.stamp(), op.dot)));
        }
    }

    fn see_request(&mut self, op: &Op) {
        if let Some(id) = op.request_id {
            let cleared = match op.body {
                Body::Part(_) | Body::Value(_) => is_cleared(&self.known.cleared, op.dot, op.time),
                Body::Spent { .. } => true,
                Body::Clear(_) => false,
            };
            if cleared {
                let last = self.requests.cleared.entry(id).or_default();
                *last = op.time.max(*last);
            } else {
                self.requests.see(id, op.stamp());
            }
        }
    }

    pub fn finish(mut self) -> Surveyed {
        match self.goal {
            Goal::Clears if self.several_origins => Surveyed::Again(Self::with_goal(Goal::Requests, self.known)),
            Goal::Clears if self.last_value_hidden() => Surveyed::Again(Self::with_goal(Goal::End, self.known)),
            Goal::Requests => {
                self.known.first_of_request = self.requests.counting();
                Surveyed::Again(Self::with_goal(Goal::End, self.known))
            }
            Goal::Clears | Goal::End => {
                self.known.end = self.last_value.map(|(stamp, _)| stamp);
                Surveyed::Done(self.known)
            }
        }
    }

    fn last_value_hidden(&self) -> bool {
        self.last_value
            .is_some_and(|(stamp, dot)| is_cleared(&self.known.cleared, dot, stamp.time))
    }
}
