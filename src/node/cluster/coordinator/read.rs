//! Reading at a level: enough replicas have to hold the same of the key before it is read from one.
//!
//! Before any op is copied from one to another, all are asked whether enough of them hold what this node does. A peer that cannot take what
//! it lacks is left out, as long as there are others; if this node itself cannot, another one is read (`elsewhere`).

use std::sync::atomic::Ordering;

use tokio::time::timeout;

use super::taking::is_much;
use crate::core::clock::Clock;
use crate::core::op::{Body, Op};
use crate::core::slot::SlotId;
use crate::core::stamp::Stamp;
use crate::node::cluster::calls::{HEDGE, gather};
use crate::node::cluster::{Cluster, Inner, count};
use crate::node::hedged;
use crate::node::local::{Added, Wanted};
use crate::node::peers::Peer;
use crate::node::replica::place_of;
use crate::node::{OpError, Terms};
use crate::planted::{Bug, planted};
use crate::store::source::KeySource;
use crate::types::{Consistency, Key, NodeId, UserId};
use crate::wire::{Request, Response, WireClock, WireOp};

/// How ops of another replica came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node::cluster) enum Came {
    /// This node asked for all that it lacks of their slots.
    Pulled,
    /// Written just now, or brought to make replicas hold the same of one key.
    Otherwise,
}

/// What as many replicas as are needed hold of a key.
struct Alike {
    /// A clock that covers all of it.
    clock: Clock,
    /// The highest stamp in it.
    until: Option<Stamp>,
}

/// What came of making replicas hold the same.
enum Repaired {
    /// What a reader may be shown.
    Shown(KeySource),
    /// They hold the same; but more ops came meanwhile, and it is not known which ops come before those.
    Alike(Alike),
    /// This peer cannot take what it lacks.
    Unable(NodeId),
    /// Another reader took what was lacking here.
    Meanwhile,
}

impl Cluster {
    pub async fn write(&self, wanted: Wanted<'_>, terms: Terms) -> Result<Added, OpError> {
        self.inner.refuse_if_outside(wanted.user)?;
        let system = wanted.user.is_system();
        let why = || self.inner.why_displaced().or_else(|| self.inner.why_gathering());
        if !system && let Some(why) = why() {
            return Err(OpError::NotReady(why));
        }
        let user = wanted.user;
        self.inner
            .counted(user, self.inner.write(wanted, super::write::Try::Any, terms).await)
    }
}

/// What is found of a key without changing anything.
pub(super) enum Found {
    Here(KeySource),
    /// This node does not vote.
    Elsewhere,
    Unequal(Unequal),
}

/// Too few replicas hold the same: as many as are needed have to be made equal.
pub(super) struct Unequal {
    pub(in crate::node::cluster) slot: SlotId,
    peers: Vec<Peer>,
    need: usize,
}

fn digest_of(slot: SlotId) -> Request {
    Request::Digest { slot: slot.0 }
}

fn voted_digest(response: Response) -> Option<u64> {
    match response {
        Response::Digest { votes: true, digest } => Some(digest),
        _ => None,
    }
}

/// Whether peers that were not asked yet make up for those with another digest: if others hold what this node does, one replica that is
/// behind need not be sent all that it lacks before the read is answered.
async fn others_agree(peers: &[Peer], told: &[(Peer, u64)], slot: SlotId, digest: u64) -> bool {
    let was_asked = |peer: &Peer| told.iter().any(|(other, _)| other.node() == peer.node());
    let rest: Vec<Peer> = peers.iter().filter(|peer| !was_asked(peer)).cloned().collect();
    let want = told.iter().filter(|(_, other)| *other != digest).count();
    let same = |response| voted_digest(response).filter(|other| *other == digest);
    // Whoever is silent is not waited for.
    let asked = timeout(HEDGE, gather(&rest, want, || digest_of(slot), same));
    rest.len() >= want && matches!(asked.await, Ok(Ok(_)))
}

pub(super) fn sync_key(user: &UserId, key: &Key, slot: SlotId, known: WireClock) -> Request {
    Request::SyncKey {
        slot: slot.0,
        user: user.as_str().to_owned(),
        key: key.as_str().to_owned(),
        known,
    }
}

impl Inner {
    /// A snapshot of the key as the level asks for; None if another node has to be asked for it.
    pub(in crate::node::cluster) async fn source(
        &self,
        user: &UserId,
        key: &Key,
        terms: Terms,
    ) -> Result<Option<KeySource>, OpError> {
        match self.look(user, key, terms).await? {
            Found::Here(source) => Ok(Some(source)),
            Found::Elsewhere => Ok(None),
            Found::Unequal(unequal) => {
                let made = Box::pin(self.make_equal(user, key, unequal));
                hedged::by(terms.deadline, made).await
            }
        }
    }

    /// Like [`source`](Self::source), as far as that goes without changing anything.
    pub(super) async fn look(&self, user: &UserId, key: &Key, terms: Terms) -> Result<Found, OpError> {
        let (slot, _) = place_of(user, key);
        let layout = self.layout();
        let replicas = layout.placement.replicas(slot);
        if replicas.is_empty() {
            return Err(OpError::NotReady(self.why_no_member()));
        }
        let alone = replicas.len() == 1;
        if !replicas.contains(&self.me) || !(alone || self.votes(slot)) {
            return Ok(Found::Elsewhere);
        }
        if alone || terms.consistency == Consistency::One {
            return self
                .local
                .source_at_digest(user, key)
                .map(|(source, _)| Found::Here(source));
        }
        let agreed = self.agree(user, key, slot, replicas, terms.consistency);
        let agreed = tokio::time::timeout_at(terms.deadline, agreed).await;
        match agreed.unwrap_or(Err(OpError::Deadline { maybe_applied: false })) {
            // Its word does not count any more since it was asked.
            Err(OpError::ShardUnavailable { .. }) if !self.votes(slot) => Ok(Found::Elsewhere),
            agreed => agreed,
        }
    }

    /// A snapshot that as many replicas as the level needs hold whole, if this node has one.
    async fn agree(
        &self,
        user: &UserId,
        key: &Key,
        slot: SlotId,
        replicas: &[NodeId],
        level: Consistency,
    ) -> Result<Found, OpError> {
        let need = level.needed(replicas.len());
        let peers = self.up_peers(replicas);
        let (source, digest) = self.local.source_at_digest(user, key)?;
        let digests = gather(&peers, need - 1, || digest_of(slot), voted_digest).await;
        let digests = digests.map_err(|answered| self.no_quorum(need, answered + 1, false))?;
        if digests.iter().all(|(_, other)| *other == digest)
            || Box::pin(others_agree(&peers, &digests, slot, digest)).await
        {
            return Ok(Found::Here(source));
        }
        Ok(Found::Unequal(Unequal { slot, peers, need }))
    }

    /// Makes as many replicas as are needed hold the same, and returns a snapshot of that; None if another node has to be asked for it.
    pub(super) async fn make_equal(
        &self,
        user: &UserId,
        key: &Key,
        unequal: Unequal,
    ) -> Result<Option<KeySource>, OpError> {
        count(&self.counters.read_repairs);
        let Unequal { slot, peers, need } = unequal;
        let error = match self.repair(user, key, slot, &peers, need).await {
            Ok(source) => return Ok(Some(source)),
            // Its word does not count any more since it was asked.
            Err(OpError::ShardUnavailable { .. }) if !self.votes(slot) => return Ok(None),
            Err(error @ (OpError::DiskFull | OpError::Quorum { .. })) => error,
            Err(error) => return Err(error),
        };
        // Those that answered first cannot be made equal; others may be so already.
        let (source, digest) = self.local.source_at_digest(user, key)?;
        let same = |response| voted_digest(response).filter(|other| *other == digest);
        let alike = gather(&peers, need - 1, || digest_of(slot), same).await;
        alike.map(|_| Some(source)).map_err(|same| match error {
            // A full disk is no reason not to read; too few that hold the same are.
            OpError::DiskFull => self.no_quorum(need, same + 1, false),
            error => error,
        })
    }

    /// Makes as many replicas as are needed hold the same ops of the key, durably.
    pub(in crate::node::cluster) async fn repair(
        &self,
        user: &UserId,
        key: &Key,
        slot: SlotId,
        peers: &[Peer],
        need: usize,
    ) -> Result<KeySource, OpError> {
        let mut peers = peers.to_vec();
        let mut alike = None;
        loop {
            match self.repair_with(user, key, slot, &peers, need, alike.as_ref()).await? {
                Repaired::Shown(source) => return Ok(source),
                Repaired::Alike(now) => alike = Some(now),
                Repaired::Unable(unable) => peers.retain(|peer| peer.node() != unable),
                Repaired::Meanwhile => {}
            }
        }
    }

    /// One round of [`repair`](Self::repair), with those of `peers` that answer first.
    ///
    /// Ops keep arriving here while others answer. So of all that is here in the end, a part is shown of which it is certain that with each
    /// op it has everything that was acknowledged before that op was sent:
    /// - What was here before anybody was asked, if nobody had more of the key. All of it was sent by then; and whatever was acknowledged
    ///   by then is held by a quorum, so it was here, or one of those that were asked had it.
    /// - What is no later than the last op of what they all held before they were asked (`alike`). Whatever was sent since then is stamped
    ///   later, for whoever stamps it asks one of them; so all of this was sent by then, and what was acknowledged by then is here.
    ///
    /// Clears that came meanwhile do count: a clear names all that it comes after.
    async fn repair_with(
        &self,
        user: &UserId,
        key: &Key,
        slot: SlotId,
        peers: &[Peer],
        need: usize,
        alike: Option<&Alike>,
    ) -> Result<Repaired, OpError> {
        self.taking.ended(user, key).await;
        let mine = self.local.clock(slot)?;
        let Some((theirs, is_news)) = self.take_from(user, key, slot, peers, need, &mine).await? else {
            return Ok(Repaired::Meanwhile);
        };
        // All that they held when they were asked is here now. What they lack goes to them.
        let (source, clock) = self.local.source_at_clock(user, key)?;
        for (peer, clock) in theirs {
            if planted(Bug::ReadRepairDropped) {
                continue;
            }
            if !self.give(&source, &peer, clock).await? {
                return Ok(Repaired::Unable(peer.node()));
            }
        }
        let shown = match (is_news, alike) {
            (false, _) if clock == mine => Some(source.clone()),
            (false, _) => source.within(&mine, None),
            (true, Some(alike)) => source.within(&alike.clock, alike.until),
            (true, None) => None,
        };
        Ok(match shown {
            Some(shown) => Repaired::Shown(shown),
            None => Repaired::Alike(Alike {
                clock,
                until: self.local.last_stamp(source).await?,
            }),
        })
    }

    /// Takes from as many peers as are needed, those that answer first, what they have of the key and `mine` does not cover. Returns their
    /// clocks, and whether anything was taken; None if it is much and another reader takes it already.
    async fn take_from(
        &self,
        user: &UserId,
        key: &Key,
        slot: SlotId,
        peers: &[Peer],
        need: usize,
        known: &Clock,
    ) -> Result<Option<(Vec<(Peer, Clock)>, bool)>, OpError> {
        let known = WireClock::of(known);
        let request = || sync_key(user, key, slot, known.clone());
        let counts = |response| match response {
            Response::SyncedKey {
                votes: true,
                clock,
                ops,
                more,
            } => Some((clock.into_clock(), ops, more)),
            _ => None,
        };
        let answers = gather(peers, need - 1, request, counts).await;
        let answers = answers.map_err(|answered| self.no_quorum(need, answered + 1, false))?;
        let (mut theirs, mut is_news) = (Vec::new(), false);
        for (peer, (clock, ops, more)) in answers {
            is_news |= !ops.is_empty();
            let taker = is_much(&ops, more).then(|| self.taking.begin(user, key));
            if matches!(taker, Some(None)) {
                return Ok(None);
            }
            self.take_ops(ops, Came::Otherwise).await?;
            if more {
                self.take_rest(user, key, slot, &peer).await?;
            }
            theirs.push((peer, clock));
        }
        Ok(Some((theirs, is_news)))
    }

    /// Holds these ops, durably on Ok.
    pub(in crate::node::cluster) async fn take_ops(&self, ops: Vec<WireOp>, came: Came) -> Result<(), OpError> {
        let bytes: usize = ops.iter().map(WireOp::cost).sum();
        self.counters.taken_ops.fetch_add(ops.len() as u64, Ordering::Relaxed);
        self.counters.taken_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let ops: Result<Vec<_>, _> = ops.into_iter().map(WireOp::into_op).collect();
        // All of it is checked before any of it is taken.
        let ops = ops.map_err(|error| OpError::Peer(error.to_string()))?;
        if came != Came::Pulled {
            ops.iter().try_for_each(|keyed| self.check_may_take(&keyed.op))?;
        }
        match ops.is_empty() {
            true => Ok(()),
            false => self.local.apply(ops).await,
        }
    }

    /// The `Spent` remainder of a collected clear makes the clock cover the clear, but removes nothing. A replica that may have missed the
    /// clear itself would keep what it removed, and never notice: it takes the remainder only with all else that it lacks, once it has
    /// reconciled.
    pub(super) fn check_may_take(&self, op: &Op) -> Result<(), OpError> {
        let dot = &op.dot;
        if !matches!(op.body, Body::Spent { .. }) || !self.may_have_missed_clears(dot.slot) {
            return Ok(());
        }
        match self.local.clock(dot.slot)?.contains(dot.origin, dot.seq) {
            true => Ok(()),
            false => Err(OpError::ShardUnavailable { maybe_applied: false }),
        }
    }

    /// What this node lacks of what the peer has of the key.
    pub(super) async fn take_rest(&self, user: &UserId, key: &Key, slot: SlotId, peer: &Peer) -> Result<(), OpError> {
        loop {
            let known = WireClock::of(&self.local.clock(slot)?);
            let request = sync_key(user, key, slot, known);
            let gone = OpError::ShardUnavailable { maybe_applied: false };
            let Ok(call) = peer.call(request) else {
                return Err(gone);
            };
            let Ok(Response::SyncedKey {
                votes: true, ops, more, ..
            }) = call.await
            else {
                return Err(gone);
            };
            let is_last = !more || ops.is_empty();
            self.take_ops(ops, Came::Otherwise).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Sends the peer what it lacks of the snapshot, by its clock. Returns whether it holds all of it durably now; an error is one of this
    /// node's disk.
    async fn give(&self, source: &KeySource, peer: &Peer, known: Clock) -> Result<bool, OpError> {
        let mut lacking = self.local.lacking(source.clone(), known);
        loop {
            let (ops, more) = lacking.next(self.pages.key_bytes).await?;
            if ops.is_empty() {
                return Ok(true);
            }
            let Ok(call) = peer.call(Request::Append(ops.iter().map(WireOp::of).collect())) else {
                return Ok(false);
            };
            match call.await {
                Ok(Response::Done) if more && !planted(Bug::GivenInPart) => {}
                answer => return Ok(matches!(answer, Ok(Response::Done))),
            }
        }
    }
}
