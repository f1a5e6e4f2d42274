//! What a peer is being asked for: a node that comes back lacks the same of all of them, and it need come only once.

use std::time::Duration;

use tokio::time::Instant;

use super::ClockBook;
use crate::core::clock::SlotClocks;
use crate::types::NodeId;

/// What a peer was asked for, and nothing of it came for so long, others are asked for as well: two copies on a slow line are better than none.
pub(super) const CLAIM_MAX: Duration = Duration::from_secs(10);

/// What one peer is asked for, and no other one meanwhile; until it is dropped, or nothing comes of it for `CLAIM_MAX`.
pub(in crate::node::cluster) struct Claim<'a> {
    book: &'a ClockBook,
    peer: NodeId,
    pub wants: SlotClocks,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.book.claimed.lock().remove(&self.peer);
    }
}

impl ClockBook {
    /// Of `wants`, what no other peer is being asked for and is not here by now: a node that comes back lacks the same of all of them, and
    /// it need come only once. If the other one fails, the next round asks this one; also where it says
    /// nothing more of it, for its disk may hang while it serves everybody else.
    pub(in crate::node::cluster) fn claim(
        &self,
        peer: NodeId,
        wants: &SlotClocks,
        held: impl FnOnce() -> SlotClocks,
    ) -> Claim<'_> {
        let mut claimed = self.claimed.lock();
        let comes = |(other, (_, at)): &(&NodeId, &(SlotClocks, Instant))| **other != peer && at.elapsed() < CLAIM_MAX;
        let others = claimed.iter().filter(comes);
        let mut wants = others.fold(wants.clone(), |left, (_, (claim, _))| left.minus(claim));
        if !wants.is_empty() {
            // What another one has sent since.
            wants = wants.minus(&held());
            claimed.insert(peer, (wants.clone(), Instant::now()));
        }
        Claim {
            book: self,
            peer,
            wants,
        }
    }

    /// The peer answers what it is asked for.
    pub(in crate::node::cluster) fn note_coming(&self, peer: NodeId) {
        if let Some((_, at)) = self.claimed.lock().get_mut(&peer) {
            *at = Instant::now();
        }
    }
}
