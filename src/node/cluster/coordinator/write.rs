//! Writing at a level: ask, stamp, append everywhere, wait for enough.

use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{Instant, sleep_until};

use super::outcome::Taken;
use super::seen::OfKey;
use crate::core::clock::Clock;
use crate::core::op::{KeyedOp, Op};
use crate::core::slot::SlotId;
use crate::core::stamp::HybridTime;
use crate::node::cluster::calls::{gather, is_worth_another, maybe_applied};
use crate::node::cluster::{Inner, count};
use crate::node::hedged::{HEDGE, LOOK_MAX};
use crate::node::local::{Added, Wanted};
use crate::node::peers::Peer;
use crate::node::replica::place_of;
use crate::node::shards::spreading::{self, Turn};
use crate::node::{OpError, Terms};
use crate::planted::{Bug, planted, takes_retries};
use crate::shard::{WriteContext, WriteKind};
use crate::types::{Consistency, NodeId, UserId};
use crate::wire::{Ask, Request, Response};

/// Whether anybody can have taken the request id before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node::cluster) enum Try {
    /// The id was made for this very try.
    First,
    Any,
}

/// Whether a write waits for this node's disk while others could do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node::cluster) enum Patience {
    /// Until the deadline.
    Waits,
    /// It is withdrawn where the disk hangs under a sync or a read, if nothing of it was begun.
    Withdraws,
}

/// How far a write has come.
pub(super) struct Begun<'a> {
    /// Whether it may have had an effect.
    started: AtomicBool,
    /// Its place in the queue of this node's shard.
    turn: OnceLock<Turn>,
    /// Shared by this try and those before it.
    taken: &'a Taken,
}

impl<'a> Begun<'a> {
    pub(super) fn new(taken: &'a Taken) -> Self {
        Self {
            started: AtomicBool::new(false),
            turn: OnceLock::new(),
            taken,
        }
    }

    fn start(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether it can have no effect any more, and has had none.
    fn withdraw(&self) -> bool {
        match self.turn.get() {
            Some(turn) => turn.withdraw(),
            None => !self.started.load(Ordering::Relaxed),
        }
    }

    fn is_looked_up(&self) -> bool {
        self.turn.get().is_some_and(Turn::is_looked_up)
    }
}

/// What a quorum said before a write is stamped.
pub(super) struct Asked {
    pub(in crate::node::cluster) context: WriteContext,
    /// The op that took the request id, and the peer that told of it.
    pub(in crate::node::cluster) held: Option<(KeyedOp, Peer)>,
}

/// Whether every quorum of the replicas `now` meets every quorum of those `before`: it does if `now` adds one at most.
pub(super) fn still_counts(before: &[NodeId], now: &[NodeId]) -> bool {
    before.iter().all(|node| now.contains(node)) && now.len() <= before.len() + 1
}

/// What a write asks of the slot's replicas, which then stamp later than `time`.
fn ask_message(slot: SlotId, wanted: &Wanted<'_>, which: Try, time: u64) -> Ask {
    let is_asked = which == Try::Any && !takes_retries();
    let request = wanted.request_id.filter(|_| is_asked).map(|id| {
        let (user, key) = (wanted.user.as_str(), wanted.key.as_str());
        (user.to_owned(), key.to_owned(), id.0)
    });
    Ask {
        slot: slot.0,
        request,
        clock: matches!(wanted.kind, WriteKind::Clear),
        time: if planted(Bug::StampNotAsked) { 0 } else { time },
    }
}

impl Inner {
    /// Carries a write out, here if this node holds the slot, or through one that does.
    pub(super) async fn write(&self, wanted: Wanted<'_>, which: Try, terms: Terms) -> Result<Added, OpError> {
        let taken = Taken::default();
        let done = self.write_somewhere(wanted, which, terms, &taken).await;
        taken.told(done)
    }

    async fn write_somewhere(
        &self,
        wanted: Wanted<'_>,
        which: Try,
        terms: Terms,
        taken: &Taken,
    ) -> Result<Added, OpError> {
        let (slot, _) = place_of(wanted.user, wanted.key);
        let layout = self.layout();
        let replicas = layout.placement.replicas(slot);
        if replicas.is_empty() {
            return Err(OpError::NotReady(self.why_no_member()));
        }
        if !replicas.contains(&self.me) {
            return self.forward_write(wanted, replicas, which, terms).await;
        }
        if replicas.len() == 1 {
            return self.write_here(wanted, which, terms, Patience::Waits, taken).await;
        }
        if !self.local.is_stalled(slot) {
            let own = self.write_here(wanted.clone(), which, terms, Patience::Withdraws, taken);
            match own.await {
                Err(OpError::ShardUnavailable { maybe_applied: false }) => {}
                // Its own disk is in the way: another replica may do it, as none of it was done here.
                Err(OpError::DiskFull | OpError::Damaged(_) | OpError::Disk(_)) => {
                    return self.forward_write(wanted, replicas, which, terms).await;
                }
                done => return done,
            }
        }
        match self.forward_write(wanted.clone(), replicas, which, terms).await {
            // Nobody did any of it, and what is in the way here may pass.
            Err(error) if is_worth_another(&error) && !maybe_applied(&error) => {
                self.write_here(wanted, which, terms, Patience::Waits, taken).await
            }
            done => done,
        }
    }

    /// Carries out a write to a slot that this node holds, its own or one that another node sent here.
    pub(in crate::node::cluster) async fn write_here(
        &self,
        wanted: Wanted<'_>,
        which: Try,
        terms: Terms,
        patience: Patience,
        taken: &Taken,
    ) -> Result<Added, OpError> {
        let _writing = self.begin_user_write(&wanted)?;
        let (slot, _) = place_of(wanted.user, wanted.key);
        let layout = self.layout();
        let replicas = layout.placement.replicas(slot);
        if !replicas.contains(&self.me) {
            // Its member table is another one: it is told to look elsewhere.
            return Err(OpError::ShardUnavailable { maybe_applied: false });
        }
        let begun = Begun::new(taken);
        let request = (wanted.user, wanted.key, wanted.request_id);
        let mut coordinated = pin!(self.coordinate(wanted, slot, replicas, which, terms.consistency, &begun));
        let began = Instant::now();
        // One timer for both.
        let next_look = || match patience {
            Patience::Waits => terms.deadline,
            Patience::Withdraws => terms.deadline.min(Instant::now() + HEDGE),
        };
        let mut look = pin!(sleep_until(next_look()));
        let done = loop {
            tokio::select! {
                biased;
                done = &mut coordinated => break done?,
                () = &mut look => {}
            }
            let is_late = look.deadline() >= terms.deadline;
            let is_looked_up = begun.is_looked_up();
            let hangs = is_looked_up && began.elapsed() >= LOOK_MAX;
            if is_looked_up && (is_late || hangs) {
                self.note_if_held(request, taken);
            }
            if is_late {
                let maybe_applied = !begun.withdraw() || taken.is_noted();
                return Err(OpError::Deadline { maybe_applied });
            }
            let goes_elsewhere = self.local.is_stalled(slot) || hangs && patience == Patience::Withdraws;
            if goes_elsewhere && begun.withdraw() {
                return Err(OpError::ShardUnavailable { maybe_applied: false });
            }
            look.as_mut().reset(next_look());
        };
        // A replica that came in meanwhile may have copied from the others before they had the op.
        match still_counts(replicas, self.layout().placement.replicas(slot)) {
            true => Ok(done),
            false => Err(self.no_quorum(terms.consistency.needed(replicas.len()), 0, true)),
        }
    }

    /// Like [`write_here`](Self::write_here), without the deadline.
    pub(super) async fn coordinate(
        &self,
        wanted: Wanted<'_>,
        slot: SlotId,
        replicas: &[NodeId],
        which: Try,
        level: Consistency,
        begun: &Begun<'_>,
    ) -> Result<Added, OpError> {
        if replicas.len() == 1 {
            begun.start();
            return self.local.write(wanted, WriteContext::default()).await;
        }
        let peers = self.up_peers(replicas);
        let need = level.needed(replicas.len());
        if peers.len() + 1 < need {
            return Err(self.no_quorum(need, peers.len() + 1, false));
        }
        let mut asked = self
            .prepare(&wanted, slot, &peers, which, (need, replicas.len()))
            .await?;
        if let Some((op, from)) = asked.held {
            if !wanted.kind.may_have_done(&op.op.body) {
                return Err(OpError::OtherRequest);
            }
            begun.start();
            begun.taken.note();
            self.hold(op, Some(&from), &peers, need).await?;
            return Ok(Added::Repeated);
        }
        let is_doomed = planted(Bug::DoomedNotAsked) && wanted.request_id.is_some_and(|id| id.0[0] % 3 == 0);
        if planted(Bug::StampNotAsked) || is_doomed {
            asked.context.after = HybridTime::default();
        }
        let context = asked.context;
        let durable_need = self.durable_need(slot, need);
        if peers.len() + 1 < durable_need {
            return Err(self.no_quorum(need, peers.len(), false));
        }
        begun.start();
        let request = (wanted.user, wanted.key, wanted.request_id);
        let (others, share, told) = spreading::begin(&peers, durable_need);
        // This write has no other share.
        let _ = begun.turn.set(others.turn());
        self.local.begin_write(wanted, context, others, share);
        let needs = (need, durable_need);
        let outcome = self.outcome(request, told, &peers, needs, begun.taken).await;
        match is_doomed {
            true => Err(self.no_quorum(need, peers.len(), true)),
            false => outcome,
        }
    }

    /// What a write that `need` of so many replicas are to have must come after, and what a clear removes.
    pub(super) async fn prepare(
        &self,
        wanted: &Wanted<'_>,
        slot: SlotId,
        peers: &[Peer],
        which: Try,
        (need, replicas): (usize, usize),
    ) -> Result<Asked, OpError> {
        // Before anything else: what is taken here from now on comes after this clear, or is concurrent with it.
        let is_clear = matches!(wanted.kind, WriteKind::Clear);
        let own = is_clear.then(|| self.local.clock(slot)).transpose()?;
        if need == 1 {
            // Nobody is asked. Others may hold what was lost here: the request, or what this clear is to remove.
            if !self.local.is_whole(slot) {
                return Err(OpError::Damaged(format!("slot {} lacks what was lost", slot.0)));
            }
            let context = WriteContext {
                seen: own,
                ..WriteContext::default()
            };
            return Ok(Asked { context, held: None });
        }
        let mut asked = self.ask(peers, slot, wanted, which, need).await?;
        let Some(own) = own.filter(|_| asked.held.is_none()) else {
            return Ok(asked);
        };
        let of_key = OfKey {
            slot,
            user: wanted.user,
            key: wanted.key,
            peers,
            need,
            replicas,
        };
        if self.close(&of_key, own, &mut asked).await? && wanted.request_id.is_some() {
            // What the second look found may have been added after another try of this clear was done; if so, that try is found now.
            asked.held = self.ask(peers, slot, wanted, which, need).await?.held;
        }
        Ok(asked)
    }

    /// Asks for what the write has to come after; this node's own word counts where it votes, and goes without saying.
    pub(super) async fn ask(
        &self,
        peers: &[Peer],
        slot: SlotId,
        wanted: &Wanted<'_>,
        which: Try,
        need: usize,
    ) -> Result<Asked, OpError> {
        let want = need - usize::from(self.votes(slot));
        let asked_at = self.env.wall.now();
        let known = self.local.highest_time(slot).unwrap_or_default();
        let time = known.max(HybridTime::from_wall(asked_at)).0;
        let request = || Request::Ask(ask_message(slot, wanted, which, time));
        let counts = |response| match response {
            Response::Asked {
                votes: true,
                time,
                held,
                clock,
            } => Some((time, held, clock)),
            _ => None,
        };
        let answers = gather(peers, want, request, counts).await;
        let answers = answers.map_err(|answered| self.no_quorum(need, answered + need - want, false))?;
        let mut asked = Asked {
            context: WriteContext {
                seen: matches!(wanted.kind, WriteKind::Clear).then(Clock::default),
                asked_at: Some(asked_at),
                ..WriteContext::default()
            },
            held: None,
        };
        let is_new = self.clocks.is_new();
        for (peer, (time, held, clock)) in answers {
            if is_new {
                // It counts only if it is a replica by its own member table.
                self.named.note(peer.node());
            }
            asked.context.after = asked.context.after.max(HybridTime(time));
            if let (Some(seen), Some(clock)) = (&mut asked.context.seen, clock) {
                seen.join(&clock.into_clock());
            }
            let held = held.and_then(|op| op.into_op().ok()).map(|op| (op, peer));
            // The first one counts.
            asked.held = [asked.held, held]
                .into_iter()
                .flatten()
                .min_by_key(|(keyed, _)| Op::stamp(&keyed.op));
        }
        Ok(asked)
    }

    /// Counts a client's request on keys that failed for want of replicas. The node's own requests are not counted: they are tried again
    /// and again, above all while a cluster starts, and would hide how often a client was refused.
    pub(super) fn counted<T>(&self, user: &UserId, done: Result<T, OpError>) -> Result<T, OpError> {
        if matches!(done, Err(OpError::Quorum { .. })) && !user.is_system() {
            count(&self.counters.quorum_failures);
        }
        done
    }

    pub(super) fn no_quorum(&self, needed: usize, answered: usize, maybe_applied: bool) -> OpError {
        OpError::Quorum {
            needed,
            answered,
            maybe_applied,
        }
    }
}
