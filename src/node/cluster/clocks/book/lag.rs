//! How far this node is behind a peer: what it lacked when they last compared, less what has come since.

use std::time::Duration;

use super::{ClockBook, Moment};
use crate::core::clock::SlotClocks;
use crate::types::{NodeId, WallMs};

/// A comparison that is older than this says nothing of now. One with a peer that answers is made again within six seconds (`settled`).
pub(super) const COMPARED_MAX: Duration = Duration::from_secs(20);

/// How far this node is behind a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::node::cluster) struct Lag {
    /// Ops that the peer had when they last compared, and that did not come since, from whomever.
    pub ops: u64,
    /// Since this node last had all that the peer had, or since its start; zero when no ops are lacking.
    pub time: Duration,
}

impl ClockBook {
    /// Of what this node lacks now, what it also lacked when they were last compared: all else may just be on its way. `at`: before the peer answered.
    /// None if some slots were left out: of what the peer has there nothing was heard, so neither did this node have all, nor will it when this has come.
    pub(in crate::node::cluster) fn lacked_before(
        &self,
        peer: NodeId,
        lacking: SlotClocks,
        at: Option<Moment>,
    ) -> SlotClocks {
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        let both = page.lacked.meet(&lacking);
        let Some(at) = at else {
            page.lacked.join(&lacking);
            return both;
        };
        if lacking.is_empty() {
            page.whole_at = Some(at);
        } else if both.is_empty() {
            page.whole_at = page.compared_at;
        }
        page.compared_at = Some(at);
        page.lacked = lacking;
        both
    }

    /// How far this node, which holds this now, is behind the peer. Unknown before they first compared; and that it lacks nothing is unknown
    /// when that was too long ago.
    pub(in crate::node::cluster) fn lag(&self, peer: NodeId, held: &SlotClocks) -> Option<Lag> {
        let lag = self.lag_when_compared(peer, held)?;
        let compared_at = self.pages.lock().get(&peer)?.compared_at?;
        (lag.ops > 0 || compared_at.elapsed() < COMPARED_MAX).then_some(lag)
    }

    /// The same, however long ago that was.
    fn lag_when_compared(&self, peer: NodeId, held: &SlotClocks) -> Option<Lag> {
        let mut pages = self.pages.lock();
        let page = pages.get_mut(&peer)?;
        page.compared_at?;
        let ops = page.lacked.minus(held).count();
        if ops == 0 {
            page.whole_at = page.compared_at;
            return Some(Lag::default());
        }
        let time = page.whole_at.map_or(self.started.elapsed(), |at| at.elapsed());
        Some(Lag { ops, time })
    }

    /// When this node, which holds this now, had all that each of these peers had, as far as they compared. None where that never was.
    pub(in crate::node::cluster) fn heard(
        &self,
        peers: impl IntoIterator<Item = NodeId>,
        held: &SlotClocks,
        now: WallMs,
    ) -> Option<WallMs> {
        let heard_of = |peer| {
            self.lag_when_compared(peer, held)?;
            Some(self.pages.lock().get(&peer)?.whole_at?.by_wall(now))
        };
        let mut peers = peers.into_iter();
        peers.try_fold(now, |first, peer| Some(first.min(heard_of(peer)?)))
    }
}
