//! Taking from a peer what this node lacks, in portions whose names fit into a message, page by page.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::SlotId;
use crate::core::stamp::HybridTime;
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::{Broken, ask};
use crate::node::cluster::clocks::portions;
use crate::node::cluster::coordinator::Came;
use crate::node::peers::Peer;
use crate::wire::{Request, Response, WireClocks};

/// Between two pages.
const PAGE_PAUSE: Duration = Duration::from_millis(3);

impl Inner {
    /// Takes the ops with these dots from the peer, and returns which of them it covered: all that it still holds of those is durable here.
    /// `before`: this node's clocks when it was found to lack them.
    pub(super) async fn pull(
        &self,
        peer: &Peer,
        wants: &SlotClocks,
        before: &SlotClocks,
    ) -> Result<SlotClocks, Broken> {
        let mut covered = SlotClocks::default();
        if wants.is_empty() {
            return Ok(covered);
        }
        let started = Instant::now();
        let mut ops_pulled = 0;
        for portion in portions(wants, self.pages.portion_bytes) {
            let (ops, of_portion) = self.pull_portion(peer, &portion, before).await?;
            ops_pulled += ops;
            covered.join(&of_portion);
        }
        let took_ms = started.elapsed().as_millis() as u64;
        tracing::info!(peer = %peer.node(), ops = ops_pulled, took_ms, "caught up with a peer");
        Ok(covered)
    }

    async fn pull_portion(
        &self,
        peer: &Peer,
        wants: &SlotClocks,
        before: &SlotClocks,
    ) -> Result<(u64, SlotClocks), Broken> {
        let pull = self.next_number.fetch_add(1, Ordering::Relaxed);
        let request = Request::Pull {
            pull,
            wants: WireClocks::of(wants),
        };
        if !matches!(ask(peer, request).await?, Response::Done) {
            return Err(Broken::Answer);
        }
        // A clear may be among what the peer has collected since the clocks were compared: then it comes as a spent request id, or not at
        // all. From here on the peer reads from a snapshot, so what is collected later still comes as what it was. And nothing of it may
        // be durable before it is known what has to go with it: if this breaks off in between, the next round lacks the same.
        let slots: Vec<SlotId> = wants.slots().map(|(slot, _)| slot).collect();
        let mut compared = self.compare_clocks(peer, &slots, Some(before)).await?;
        if let Some((_, error)) = compared.left_out.pop_first() {
            return Err(error);
        }
        let mut ops_pulled = 0;
        loop {
            self.clocks.note_coming(peer.node());
            let request = Request::PullNext {
                pull,
                budget_bytes: self.pages.pull_bytes as u32,
            };
            let Response::Pulled { ops, covered, times } = ask(peer, request).await? else {
                return Err(Broken::Answer);
            };
            ops_pulled += ops.len() as u64;
            self.note_pulled(peer, &ops);
            self.allow(&ops);
            self.take_ops(ops, Came::Pulled).await?;
            if let Some(covered) = covered {
                // All that the peer still holds of them is durable here, and every clear that saw one of them: they came first, also those that
                // were not asked for.
                let covered = covered.into_clocks().meet(wants);
                // The peer may have forgotten request ids of what it has dropped, and stamps what takes them anew later than this.
                for (slot, time) in times {
                    if covered.get(SlotId(slot)).is_some() {
                        self.local.come_after(SlotId(slot), HybridTime(time))?;
                    }
                }
                self.local.know_dropped(&covered);
                return Ok((ops_pulled, covered));
            }
            tokio::time::sleep(PAGE_PAUSE).await;
        }
    }

    /// Of each of these slots, the highest time that is known here, as a message carries it.
    pub(in crate::node::cluster) fn times_of(&self, clocks: &SlotClocks) -> Result<Vec<(u16, u64)>, OpError> {
        let time = |(slot, _): (SlotId, &Clock)| Ok((slot.0, self.local.highest_time(slot)?.0));
        clocks.slots().map(time).collect()
    }
}
