//! Bringing to its replicas what this node took of a slot that is not its own by the table of now.
//!
//! Slots change hands while nobody holds any user's data, as far as is known. A member that is cut off just then hears of it late, and may have
//! acknowledged a write at `one` meanwhile, by the table from before. Nobody asks it for a slot that it does not hold; so it offers what it has of it.
//!
//! Invariant: only ops that the peer's clock does not cover are sent, and clears before what they saw: nothing that was cleared comes back.

use crate::core::clock::SlotClocks;
use crate::core::slot::SlotId;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::{Broken, ask};
use crate::node::cluster::clocks::{Portions, digest_of};
use crate::node::peers::Peer;
use crate::types::NodeId;
use crate::wire::{Request, Response, WireError, WireOp};

impl Inner {
    /// Slots that the peer holds and this node does not, and of which something is here all the same.
    fn foreign_slots(&self, peer: NodeId) -> Vec<SlotId> {
        let layout = self.layout();
        let foreign = layout.foreign_of(peer).iter().copied();
        let is_here = |slot: &SlotId| self.local.clock(*slot).is_ok_and(|clock| !clock.is_empty());
        foreign.filter(is_here).collect()
    }

    /// Sends the peer what it lacks of these slots. `offered`: what was here when it lacked none of it.
    pub(super) async fn offer(&self, peer: &Peer, offered: &mut Option<u64>) -> Result<(), Broken> {
        let slots = self.foreign_slots(peer.node());
        if slots.is_empty() {
            return Ok(());
        }
        let digest = digest_of(&self.digests(&slots)?);
        if *offered == Some(digest) {
            return Ok(());
        }
        let (mut lacking, mut left) = (SlotClocks::default(), Portions::of(&slots));
        while let Some((mine, theirs)) = self.exchange_clocks(peer, &mut left).await? {
            for (slot, clock, _) in theirs {
                if let Some(mine) = mine.get(&SlotId(slot)) {
                    lacking.join_slot(SlotId(slot), &mine.minus(&clock.into_clock()));
                }
            }
        }
        let (mut export, mut sent) = (self.local.export(&lacking)?, 0);
        while let Some(ops) = export.next(self.pages.pull_bytes).await? {
            sent += ops.len();
            let ops: Vec<WireOp> = ops.iter().map(WireOp::of).collect();
            match ask(peer, Request::Append(ops)).await? {
                // It has them, and this node's word counts for nothing there. Whether it really has shows the next time.
                Response::Done | Response::Failed(WireError::Unavailable { maybe_applied: true }) => {}
                _ => return Err(Broken::Answer),
            }
        }
        if sent == 0 {
            *offered = Some(digest);
        } else {
            tracing::info!(peer = %peer.node(), ops = sent, "what was taken for other members was brought to one of them");
        }
        Ok(())
    }
}
