//! What each peer said was durable, kept in memory to detect in its next life that its disk was rolled back.
//!
//! A copy taken from a running node has the right start count, so counting starts does not catch it. What it lacks
//! does: whatever a node reported as durable must still be there in its next life, and its peers remember what that
//! was.
//!
//! When a peer comes in a new life, what it told before is held against what it tells now. It tells its clocks slot by slot, those of slots
//! in which it knows of losses aside, and then asks what was found.
//!
//! Invariants:
//! - what is held against a life was told before that life introduced itself, so nothing that it tells later is a clock from before;
//! - a life is found sound only by what it told on the connection that it began the comparison on;
//! - what comes on an older connection than the one on which a peer last introduced itself changes nothing: it may have been long on its way,
//!   and its sender be gone.
//!
//! Limits: this is memory only, so a node that was itself restarted has nothing to hold against anybody; and what a peer made durable
//! after it last told its clocks cannot be missed.

use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::SlotId;

/// Of one peer.
#[derive(Default)]
pub(super) struct Told {
    /// The peer's life, by its origin.
    life: Option<u64>,
    /// The latest connection on which it introduced itself. They are numbered in the order in which they came.
    connection: Option<u64>,
    /// What it has told once and does not tell any more.
    gone: SlotClocks,
    /// Until this life was found sound.
    review: Option<Review>,
    /// This life was found to be on a disk that was rolled back.
    is_set_back: bool,
}

struct Review {
    /// The peer's connection on which it began to tell.
    connection: u64,
    /// What it told in lives before this one.
    before: SlotClocks,
    /// What of that it does not tell in this one.
    missing: SlotClocks,
}

/// How far the comparison with what a peer told before has come.
pub(in crate::node::cluster) enum Finding {
    /// Nothing is held against it.
    Sound,
    /// These dots it does not tell any more. That some of them were dropped is possible.
    Lacks(SlotClocks),
    /// It told its clocks on another connection, if at all.
    Untold,
}

impl Told {
    /// The peer comes in this life, and told `clocks` last. Whether it is known to run on a disk that was rolled back.
    pub(super) fn begin(&mut self, life: u64, connection: u64, clocks: &SlotClocks) -> bool {
        if self.is_late(connection) {
            return self.is_set_back && self.life == Some(life);
        }
        self.connection = Some(connection);
        if self.life != Some(life) {
            let mut before = std::mem::take(&mut self.gone);
            before.join(clocks);
            if let Some(review) = self.review.take() {
                before.join(&review.before);
            }
            self.life = Some(life);
            self.is_set_back = false;
            self.review = (!before.is_empty()).then(|| Review {
                connection,
                before,
                missing: SlotClocks::default(),
            });
        } else if let Some(review) = self.review.as_mut().filter(|review| review.connection != connection) {
            // Where it is the same one, this may come late, from a try that was given up: what was told since stands.
            review.connection = connection;
            review.missing = SlotClocks::default();
        }
        self.is_set_back
    }

    /// The peer comes with a copy of its disk from an earlier life, and starts over: nothing that was told before is held against it. Whether that
    /// is so now, and not from before the life that is known.
    pub(super) fn begin_older(&mut self, connection: u64) -> bool {
        if self.is_late(connection) {
            return false;
        }
        self.connection = Some(connection);
        self.review = None;
        self.gone = SlotClocks::default();
        true
    }

    fn is_late(&self, connection: u64) -> bool {
        self.connection.is_some_and(|latest| connection < latest)
    }

    /// The peer's last word on the slot was `last`, and is `now`.
    pub(super) fn change(&mut self, slot: SlotId, last: &Clock, now: &Clock) {
        if self.gone.get(slot).is_some() {
            let mut gone = SlotClocks::default();
            gone.join_slot(slot, now);
            self.gone = self.gone.minus(&gone);
        }
        self.gone.join_slot(slot, &last.minus(now));
    }

    /// The peer tells its clock of the slot on this connection.
    pub(super) fn hear(&mut self, connection: u64, slot: SlotId, now: &Clock) {
        let review = self.review.as_mut().filter(|review| review.connection == connection);
        if let Some(review) = review
            && let Some(before) = review.before.get(slot)
        {
            review.missing.join_slot(slot, &before.minus(now));
        }
    }

    /// The slots of which the peer told more before than `own`, this node's own clocks, cover: the peer must not take them for equal.
    pub(super) fn beyond(&self, own: impl FnOnce() -> SlotClocks) -> Vec<SlotId> {
        let beyond = self.review.as_ref().map(|review| review.before.minus(&own()));
        beyond
            .iter()
            .flat_map(|beyond| beyond.slots().map(|(slot, _)| slot))
            .collect()
    }

    pub(super) fn finding(&self, connection: u64) -> Finding {
        match &self.review {
            _ if self.is_late(connection) => Finding::Untold,
            None => Finding::Sound,
            Some(review) if review.connection != connection => Finding::Untold,
            Some(review) if review.missing.is_empty() => Finding::Sound,
            Some(review) => Finding::Lacks(review.missing.clone()),
        }
    }

    /// Nothing that was told before is held against this life any more.
    pub(super) fn end(&mut self, is_set_back: bool) {
        self.review = None;
        self.gone = SlotClocks::default();
        self.is_set_back = is_set_back;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::stamp::OriginId;

    const SLOT: SlotId = SlotId(3);

    fn clock(last: u64) -> Clock {
        let mut clock = Clock::default();
        clock.insert_range(OriginId(1), 1, last);
        clock
    }

    fn clocks(last: u64) -> SlotClocks {
        let mut clocks = SlotClocks::default();
        clocks.join_slot(SLOT, &clock(last));
        clocks
    }

    fn lacks(told: &Told, connection: u64) -> u64 {
        match told.finding(connection) {
            Finding::Sound => 0,
            Finding::Lacks(missing) => missing.count(),
            Finding::Untold => panic!("it has told"),
        }
    }

    #[test]
    fn what_a_peer_told_in_its_life_before_must_be_there_in_the_next() {
        let mut told = Told::default();
        told.begin(1, 10, &SlotClocks::default());
        told.hear(10, SLOT, &clock(5));
        assert!(matches!(told.finding(10), Finding::Sound), "nothing was told before");
        told.begin(2, 11, &clocks(9));
        told.hear(11, SLOT, &clock(9));
        assert_eq!(lacks(&told, 11), 0);
        told.end(false);
        told.begin(3, 12, &clocks(9));
        assert!(told.beyond(|| clocks(9)).is_empty());
        assert_eq!(told.beyond(|| clocks(8)), [SLOT]);
        told.hear(12, SLOT, &clock(7));
        assert_eq!(lacks(&told, 12), 2);
        told.end(true);
        assert!(told.begin(3, 13, &clocks(7)), "this life stays on that disk");
        assert!(!told.begin(4, 14, &clocks(7)));
    }

    #[test]
    fn what_is_told_of_the_new_life_first_does_not_hide_what_was_told_of_the_last() {
        let mut told = Told::default();
        told.begin(1, 10, &SlotClocks::default());
        // This node asked the new life before that introduced itself.
        told.change(SLOT, &clock(9), &clock(4));
        told.begin(2, 11, &clocks(4));
        told.hear(11, SLOT, &clock(5));
        assert_eq!(lacks(&told, 11), 4);
    }

    #[test]
    fn a_clock_that_came_on_another_connection_proves_nothing() {
        let mut told = Told::default();
        told.begin(1, 10, &SlotClocks::default());
        told.begin(2, 11, &clocks(9));
        // Sent in the life before, read only now.
        told.hear(10, SLOT, &clock(3));
        assert_eq!(lacks(&told, 11), 0);
        assert!(matches!(told.finding(10), Finding::Untold));
        told.hear(11, SLOT, &clock(3));
        told.begin(2, 12, &clocks(3));
        assert_eq!(lacks(&told, 12), 0, "it tells all of it once more");
        told.hear(12, SLOT, &clock(3));
        assert_eq!(lacks(&told, 12), 6);
    }

    #[test]
    fn a_try_that_was_given_up_and_is_heard_late_hides_nothing() {
        let mut told = Told::default();
        told.begin(1, 10, &SlotClocks::default());
        told.begin(2, 11, &clocks(9));
        told.hear(11, SLOT, &clock(4));
        assert!(!told.begin(2, 11, &clocks(4)));
        assert_eq!(lacks(&told, 11), 5);
    }

    #[test]
    fn a_life_that_ended_before_it_was_compared_hides_nothing() {
        let mut told = Told::default();
        told.begin(1, 10, &SlotClocks::default());
        told.begin(2, 11, &clocks(9));
        told.change(SLOT, &clock(9), &clock(4));
        told.begin(3, 12, &clocks(4));
        told.hear(12, SLOT, &clock(4));
        assert_eq!(lacks(&told, 12), 5);
    }
}
