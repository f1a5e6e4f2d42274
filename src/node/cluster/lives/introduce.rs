//! Which life of each member this node has met last, to tell an older copy of a member's disk from the disk itself.
//!
//! A member counts its starts on its disk, and each start is a life of its own, named by its origin. Whoever comes with a number of starts
//! that another life was met with, or with a smaller one, runs on an older copy: it must not vote by what that copy holds.
//!
//! A copy that was taken while the member ran counts no start less, and shows by what it lacks (`clocks::told`).
//!
//! The record is on the disk before the answer (`file`), so that a node that restarts still knows.
//!
//! A node does not know of itself that its disk was rolled back, so after a start it does not vote before it has met all members, or, as one may
//! be away, all that it reaches within `MEETING`: one of them may know better. To have met one is to have told it the life and the clocks.
//!
//! A peer that is there and does not answer, for its disk hangs or a shard of it does not open, is passed over after `HEARING_MAX`. It is then
//! no better and no worse than one that is away: what it knows against this disk it cannot say, and says as soon as it can, for it is asked again. Nothing
//! is counted between the two meanwhile: neither votes, takes or lists for the other before it has told its life and that is recorded, so no
//! acknowledgement rests on a life of this node of which a peer that helped with it has no record.
//!
//! A shard that does not open is not waited for either. What it holds was told to nobody, and nobody was asked whether that is less than
//! before; so when it opens after all, its slots vote once all that all other replicas hold is here, as if the disk were known to be rolled back.

use std::collections::BTreeMap;

use crate::core::slot::SlotId;
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::{Broken, ask, connection_of};
use crate::node::cluster::clocks::{Portions, digest_of};
use crate::node::peers::Peer;
use crate::wire::{Request, Response, WireError};

impl Inner {
    /// Tells the peer this node's life; and once in each life, what is durable here.
    pub(in crate::node::cluster) async fn introduce(&self, peer: &Peer) -> Result<(), Broken> {
        let connection = connection_of(peer);
        let introduced = self.tell_peer(peer).await;
        match &introduced {
            // What is in the way is here: the peer might answer.
            Ok(()) | Err(Broken::Local(_)) => {}
            Err(error) => self.pass_over(peer, connection, error),
        }
        introduced
    }

    fn pass_over(&self, peer: &Peer, connection: u64, error: &Broken) {
        if self.lives.has_waited() && self.lives.pass_over(peer.node(), connection) {
            tracing::warn!(peer = %peer.node(), %error, "a member cannot say what it knows of this node; it is not waited for");
        }
    }

    async fn tell_peer(&self, peer: &Peer) -> Result<(), Broken> {
        let (node, connection) = (peer.node(), connection_of(peer));
        let is_noted = self.tell_life(peer).await?;
        if !self.lives.was_heard(node) {
            match self.tell_clocks(peer).await {
                // It has a shard that does not open, and nothing that it could say now would come before the node has to go on.
                Err(error @ Broken::Answer) if self.lives.has_waited() => self.pass_over(peer, connection, &error),
                Err(error) => return Err(error),
                Ok(()) => self.lives.set_heard(node),
            }
        }
        if !is_noted {
            return Err(Broken::Answer);
        }
        self.lives.set_introduced(node);
        Ok(())
    }

    /// Whether the peer knows this life from now on; if not, it cannot note it, and knows nothing against it.
    async fn tell_life(&self, peer: &Peer) -> Result<bool, Broken> {
        let life = self.local.life();
        let request = Request::Introduce {
            starts: life.starts,
            life: life.origin.0,
        };
        match ask(peer, request).await? {
            Response::Done => Ok(true),
            Response::OlderCopy { starts } => self.start_over(peer, starts).await.map(|()| true),
            Response::Failed(WireError::Disk(_)) => Ok(false),
            _ => Err(Broken::Answer),
        }
    }

    /// Tells the peer the clocks of all slots in which nothing is known to be lost, and hears whether it was told more before.
    async fn tell_clocks(&self, peer: &Peer) -> Result<(), Broken> {
        // Of a node that is new nothing is expected.
        if !self.clocks.is_new() {
            let lost = self.local.lost();
            let shared = self.shared_slots(peer.node()).into_iter();
            let (open, closed): (Vec<SlotId>, Vec<SlotId>) = shared.partition(|slot| self.local.digest(*slot).is_ok());
            let mut slots = match closed.is_empty() {
                true => self.ask_what_differs(peer, open).await?,
                // It mostly opens within a moment, and is told with the others.
                false if !self.lives.has_waited() => {
                    return Err(OpError::ShardUnavailable { maybe_applied: false }.into());
                }
                false => open,
            };
            self.lives.note_untold(closed);
            slots.retain(|slot| lost.get(*slot).is_none());
            let mut left = Portions::of(&slots);
            while self.exchange_clocks(peer, &mut left).await?.is_some() {}
        }
        match ask(peer, Request::Clocks { slots: Vec::new() }).await? {
            Response::Clocks(_) => Ok(()),
            Response::OlderCopy { starts } => self.start_over(peer, starts).await,
            _ => Err(Broken::Answer),
        }
    }

    /// Those of the slots, all of which this node and the peer share, whose clocks differ by their digests.
    async fn ask_what_differs(&self, peer: &Peer, mut slots: Vec<SlotId>) -> Result<Vec<SlotId>, Broken> {
        let mine = self.digests(&slots)?;
        let request = Request::Compare {
            digest: digest_of(&mine),
        };
        match ask(peer, request).await? {
            Response::Same => slots.clear(),
            Response::Differ(theirs) => {
                let theirs: BTreeMap<u16, u64> = theirs.into_iter().collect();
                slots.retain(|slot| mine.get(slot) != theirs.get(&slot.0));
            }
            _ => return Err(Broken::Answer),
        }
        Ok(slots)
    }

    /// This disk is an older copy of itself, the peer says: unless this very life has begun anew for that already, it does so now.
    async fn start_over(&self, peer: &Peer, starts: u64) -> Result<(), Broken> {
        // The peer may not have been able to note this one.
        let starts = starts.max(self.local.life().starts);
        if self.lives.is_news(starts) {
            tracing::error!(
                peer = %peer.node(), starts, own = self.local.life().starts,
                "this disk is an older copy of itself: all that the others hold is copied before it counts again"
            );
            self.clocks.set_new();
            self.local.set_new(starts).await?;
            self.lives.note_older_than(starts);
        }
        Ok(())
    }
}
