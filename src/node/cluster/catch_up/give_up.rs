//! Giving up ops that nobody holds any more, and that clears wait for.
//!
//! A clear may have seen ops that only one disk held, which is lost since. It is kept until all replicas' clocks cover them, and they never would.
//! So one replica of the slot gives them up: it counts them as dropped, and the others hear that from its clock. But a copy may still be on its way,
//! also to another one; and who gave it up would acknowledge that copy and not hold it, with a clock like that of one which does. So first all replicas
//! of the slot make sure that nobody takes it ever again:
//! 1. each one *promises*: its shard lacks the ops, those in its open group too, and takes none of them from here on, as long as this life lasts
//!    (`Refused`);
//! 2. each one ends all that it had at work when all had promised, and so might send one that it got before;
//! 3. each one says once more, in the same life, that it lacks them.
//!
//! From the end of the second to the beginning of the third, none holds a copy on its disk or in memory, and what is on its way to one is refused there.
//! Whoever is restarted later has forgotten its promise, and its connections are new: what was on its way has ended with the old ones, and
//! nobody is left to send it. All three are the same request.
//!
//! What is pulled is taken all the same: the peer has it on its disk, so it does not promise, and nothing is given up. A pull that began
//! before is waited for. And only replicas are pulled from, the same ones by the table of each. For what clears wait for, only those promise whose word counts: of one that
//! lost something, or whose disk was rolled back, the op may be there again, and the clear be gone.
//!
//! A node that lost ops to damage, and cannot get them from anybody, gives them up in the same way (`heal`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::{Broken, ask, refused};
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::types::NodeId;
use crate::wire::{Request, Response, WireClock, WireOp};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// What nobody holds for so long is not on its way in the usual course of things, and it hurts nobody to refuse it.
const SETTLED: Duration = Duration::from_secs(5);
/// What is at work for longer is waited for another time.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How often all are asked.
const ROUNDS: usize = 3;

/// Why ops are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node::cluster) enum Why {
    /// Clears wait for them. Then only those promise whose word counts.
    Awaited,
    /// Damage took them at the one that asks.
    Lost,
}

/// By slot: what nobody holds, and since when that was seen.
type Missing = BTreeMap<SlotId, (Clock, Instant)>;

pub(in crate::node::cluster) async fn run(inner: Arc<Inner>) {
    let mut missing = Missing::default();
    loop {
        tokio::time::sleep(LOOK).await;
        for (slot, dots) in due(&mut missing, inner.held_by_nobody()) {
            let given = inner.give_up(slot, dots.clone()).await.unwrap_or_else(|error| {
                tracing::debug!(slot = slot.0, %error, "what nobody holds cannot be given up now");
                Clock::default()
            });
            // Somebody holds the rest, or may.
            inner.allow_dots(slot, &dots.minus(&given));
        }
    }
}

/// What nobody held for long enough.
fn due(missing: &mut Missing, now: SlotClocks) -> Vec<(SlotId, Clock)> {
    missing.retain(|slot, (dots, _)| {
        *dots = now.get(*slot).map(|now| dots.meet(now)).unwrap_or_default();
        !dots.is_empty()
    });
    for (slot, dots) in now.slots() {
        missing.entry(slot).or_insert_with(|| (dots.clone(), Instant::now()));
    }
    let is_due = |_: &SlotId, (_, since): &mut (Clock, Instant)| since.elapsed() >= SETTLED;
    let due = missing.extract_if(.., is_due);
    due.map(|(slot, (dots, _))| (slot, dots)).collect()
}

impl Inner {
    /// What clears here wait for and no replica's clock covers, of the slots of which this node is the one to see to it.
    fn held_by_nobody(&self) -> SlotClocks {
        let (layout, own) = (self.layout(), self.local.clocks());
        let mut missing = SlotClocks::default();
        for (slot, awaited) in self.local.awaited().minus(&own).slots() {
            let replicas = layout.placement.replicas(slot);
            if slot == SYSTEM_SLOT || replicas.iter().min() != Some(&self.me) || !self.votes(slot) {
                continue;
            }
            let others = replicas.iter().filter(|node| **node != self.me);
            let told: Option<Vec<Clock>> = others.map(|node| self.clocks.told(*node, slot)).collect();
            let Some(told) = told else {
                continue;
            };
            let mut left = told.iter().fold(awaited.clone(), |left, clock| left.minus(clock));
            left.remove_origin(UNKNOWN_ORIGIN);
            missing.join_slot(slot, &left);
        }
        missing
    }

    /// Gives those up of these ops that nobody holds; tells which.
    pub(super) async fn give_up(&self, slot: SlotId, dots: Clock) -> Result<Clock, Broken> {
        let layout = self.layout();
        let others = layout.placement.replicas(slot).iter().copied();
        let others: Vec<NodeId> = others.filter(|node| *node != self.me).collect();
        let dots = self.promised(slot, dots, &others, Why::Awaited).await?;
        if dots.is_empty() {
            return Ok(dots);
        }
        tracing::info!(
            slot = slot.0,
            ops = dots.count(),
            "ops are given up that nobody holds any more"
        );
        let mut dropped = SlotClocks::default();
        dropped.join_slot(slot, &dots);
        self.local.know_dropped(&dropped);
        Ok(dots)
    }

    /// Those of these ops that neither this node holds nor one of these others, and that all of them have promised not to take.
    pub(super) async fn promised(
        &self,
        slot: SlotId,
        mut dots: Clock,
        others: &[NodeId],
        why: Why,
    ) -> Result<Clock, Broken> {
        let layout = self.layout();
        let replicas = layout.placement.replicas(slot);
        let mut lives = None;
        for _ in 0..ROUNDS {
            let promised = self.promise(slot, replicas, &dots, why).await?;
            dots = dots.meet(&promised);
            let mut now = Vec::new();
            for node in others {
                let peer = self.peers.get(*node).ok_or(Broken::Peer)?;
                let request = Request::GiveUp {
                    slot: slot.0,
                    replicas: replicas.iter().map(|node| node.0).collect(),
                    dots: WireClock::of(&dots),
                    lost: why == Why::Lost,
                };
                let Response::GivenUp { life, dots: promised } = ask(&peer, request).await? else {
                    return Err(Broken::Answer);
                };
                dots = dots.meet(&promised.into_clock());
                now.push(life);
            }
            if lives.replace(now.clone()).is_some_and(|before| before != now) {
                return Err(Broken::Peer);
            }
            if dots.is_empty() {
                return Ok(dots);
            }
        }
        match Arc::ptr_eq(&layout, &self.layout()) {
            true => Ok(dots),
            false => Err(Broken::Moved),
        }
    }

    /// Promises to take none of these ops, which the slot's replicas hold; gives those that are not here.
    async fn promise(&self, slot: SlotId, replicas: &[NodeId], dots: &Clock, why: Why) -> Result<Clock, OpError> {
        let unable = OpError::ShardUnavailable { maybe_applied: false };
        let counts = || why == Why::Lost || self.votes(slot);
        let is_able = || counts() && self.layout().placement.replicas(slot) == replicas;
        if slot == SYSTEM_SLOT || !is_able() {
            return Err(unable);
        }
        let promised = self.local.refuse(slot, dots).await?;
        let ended = tokio::time::timeout(WAIT_MAX, self.at_work.ended()).await;
        match ended.is_ok() && is_able() {
            true => Ok(promised),
            false => Err(unable),
        }
    }

    pub(in crate::node::cluster) async fn answer_give_up(
        &self,
        from: NodeId,
        slot: u16,
        replicas: &[u64],
        dots: WireClock,
        why: Why,
    ) -> Result<Response, OpError> {
        let slot = crate::wire::slot_of(slot).map_err(refused)?;
        if !self.knows_replica(slot, from) {
            return Err(OpError::ShardUnavailable { maybe_applied: false });
        }
        let replicas: Vec<NodeId> = replicas.iter().copied().map(NodeId).collect();
        let dots = self.promise(slot, &replicas, &dots.into_clock(), why).await?;
        Ok(Response::GivenUp {
            life: self.local.life().origin.0,
            dots: WireClock::of(&dots),
        })
    }

    /// A peer has these on its disk, so nobody gives them up.
    pub(super) fn allow(&self, ops: &[WireOp]) {
        let mut dots = SlotClocks::default();
        for op in ops {
            let dot = op.dot();
            dots.insert(dot.slot, dot.origin, dot.seq);
        }
        self.local.allow(&dots);
    }

    /// These are not given up, and may be taken here.
    pub(super) fn allow_dots(&self, slot: SlotId, dots: &Clock) {
        let mut allowed = SlotClocks::default();
        allowed.join_slot(slot, dots);
        self.local.allow(&allowed);
    }
}
