//! Reading at a level: enough replicas have to hold the same of the key before it is read from one.
//!
//! Where this node's own copy turns out to be damaged, cannot be read, or cannot be made whole because its disk is full, another replica
//! carries the read out. In the same way a peer that cannot take what it lacks is left out, as long as there are others.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::forward::RemoteReader;
use super::gather::gather;
use super::{Cluster, Inner, count};
use crate::core::clock::Clock;
use crate::core::op::{Body, Op};
use crate::core::slot::SlotId;
use crate::core::stamp::Stamp;
use crate::node::hedged::{self, First, ValueReader, is_own_disk};
use crate::node::local::{Added, Wanted};
use crate::node::peers::Peer;
use crate::node::replica::place_of;
use crate::node::{OpError, Terms};
use crate::planted::{Bug, planted};
use crate::store::source::KeySource;
use crate::types::{Consistency, Key, NodeId, UserId};
use crate::wire::{Request, Response, WireClock, WireOp};

/// Ops of one key that go into one message, bytes.
pub(super) const SYNC_KEY_BYTES: usize = 1 << 20;

/// How ops of another replica came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// This node asked for all that it lacks of their slots.
    Pulled,
    /// Written just now, or brought to make replicas hold the same of one key.
    Otherwise,
}

/// What as many replicas as are needed hold of a key.
struct Alike {
    /// It covers all of it.
    clock: Clock,
    /// The highest stamp in it.
    until: Option<Stamp>,
}

/// What came of making replicas hold the same.
enum Repaired {
    /// What a reader may be shown.
    Shown(KeySource),
    /// They hold the same; and more came meanwhile, of which it is not known what it comes after.
    Alike(Alike),
    /// Who cannot take what it lacks.
    Unable(NodeId),
}

impl Cluster {
    pub async fn write(&self, wanted: Wanted<'_>, terms: Terms) -> Result<Added, OpError> {
        self.inner.refuse_if_outside(wanted.user)?;
        let system = wanted.user.is_system();
        if let Some(why) = self.inner.why_gathering().filter(|_| !system) {
            return Err(OpError::NotReady(why));
        }
        let user = wanted.user;
        self.inner
            .counted(user, self.inner.write(wanted, super::write::Try::Any, terms).await)
    }

    pub async fn get(
        &self,
        user: &UserId,
        key: &Key,
        offset: u64,
        limit: u64,
        terms: Terms,
    ) -> Result<ValueReader, OpError> {
        let inner = &self.inner;
        inner.refuse_if_outside(user)?;
        let elsewhere = Elsewhere {
            inner: inner.clone(),
            user: user.clone(),
            key: key.clone(),
            offset,
            limit,
            terms,
        };
        inner.counted(user, elsewhere.here_or_there().await)
    }

    pub async fn count(&self, user: &UserId, key: &Key, terms: Terms) -> Result<u64, OpError> {
        self.inner.refuse_if_outside(user)?;
        self.inner.counted(user, self.inner.count(user, key, terms).await)
    }
}

/// A read that another node, which holds the key too, can carry out as well.
pub struct Elsewhere {
    inner: Arc<Inner>,
    user: UserId,
    key: Key,
    offset: u64,
    limit: u64,
    terms: Terms,
}

impl Elsewhere {
    /// From this node's disk if its word counts, or else through another one.
    async fn here_or_there(self) -> Result<ValueReader, OpError> {
        let inner = self.inner.clone();
        let others = inner.has_others(&self.user, &self.key);
        match inner.source(&self.user, &self.key, self.terms).await {
            Ok(Some(source)) => {
                let reader = inner.local.read(source, self.offset, self.limit);
                let first = First {
                    deadline: self.terms.deadline,
                    elsewhere: others.then(|| Box::new(self)),
                };
                Ok(ValueReader::Local(reader, Some(first)))
            }
            Ok(None) => Ok(ValueReader::Remote(self.open().await?)),
            Err(error) if others && is_own_disk(&error) => Ok(ValueReader::Remote(self.open().await?)),
            Err(error) => Err(error),
        }
    }

    pub(in crate::node) async fn open(self) -> Result<RemoteReader, OpError> {
        RemoteReader::open(self.inner, &self.user, &self.key, self.offset, self.limit, self.terms).await
    }
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
    /// Whether the key has more than one replica.
    fn has_others(&self, user: &UserId, key: &Key) -> bool {
        let (slot, _) = place_of(user, key);
        self.layouts.current().placement.replicas(slot).len() > 1
    }

    pub(super) async fn count(&self, user: &UserId, key: &Key, terms: Terms) -> Result<u64, OpError> {
        let (source, others) = (self.source(user, key, terms).await, self.has_others(user, key));
        let other = self.forward_count(user, key, terms);
        match source {
            Ok(Some(source)) => {
                let own = self.local.count_of(source);
                match others {
                    true => hedged::by(terms.deadline, hedged::own_or_other(own, other)).await,
                    false => hedged::by(terms.deadline, own).await,
                }
            }
            Ok(None) => other.await,
            Err(error) if others && is_own_disk(&error) => other.await,
            Err(error) => Err(error),
        }
    }

    /// A snapshot of the key as the level asks for; none where another node has to be asked for it.
    pub(super) async fn source(&self, user: &UserId, key: &Key, terms: Terms) -> Result<Option<KeySource>, OpError> {
        let (slot, _) = place_of(user, key);
        let layout = self.layouts.current();
        let replicas = layout.placement.replicas(slot);
        if replicas.is_empty() {
            return Err(OpError::NotReady(self.why_no_member()));
        }
        let alone = replicas.len() == 1;
        if !replicas.contains(&self.me) || !(alone || self.votes(slot)) {
            return Ok(None);
        }
        if alone || terms.consistency == Consistency::One {
            return self.local.source_at_digest(user, key).map(|(source, _)| Some(source));
        }
        let agreed = self.agree(user, key, slot, replicas, terms.consistency);
        let agreed = tokio::time::timeout_at(terms.deadline, agreed).await;
        match agreed.unwrap_or(Err(OpError::Deadline { maybe_applied: false })) {
            // Its word does not count any more since it was asked.
            Err(OpError::ShardUnavailable { .. }) if !self.votes(slot) => Ok(None),
            agreed => agreed.map(Some),
        }
    }

    /// A snapshot of which as many replicas as the level needs hold all.
    async fn agree(
        &self,
        user: &UserId,
        key: &Key,
        slot: SlotId,
        replicas: &[NodeId],
        level: Consistency,
    ) -> Result<KeySource, OpError> {
        let need = level.needed(replicas.len());
        let peers = self.up_peers(replicas);
        let digest_of = || Request::Digest { slot: slot.0 };
        let counts = |response| match response {
            Response::Digest { votes: true, digest } => Some(digest),
            _ => None,
        };
        let (source, digest) = self.local.source_at_digest(user, key)?;
        let digests = gather(&peers, need - 1, digest_of, counts).await;
        let digests = digests.map_err(|answered| self.no_quorum(need, answered + 1, false))?;
        if digests.iter().all(|(_, other)| *other == digest) {
            return Ok(source);
        }
        count(&self.counters.read_repairs);
        let error = match Box::pin(self.repair(user, key, slot, &peers, need)).await {
            Err(error @ (OpError::DiskFull | OpError::Quorum { .. })) => error,
            repaired => return repaired,
        };
        // Those that answered first cannot be made alike; others may be so already.
        let (source, digest) = self.local.source_at_digest(user, key)?;
        let same = |response| counts(response).filter(|other| *other == digest);
        let alike = gather(&peers, need - 1, digest_of, same).await;
        alike.map(|_| source).map_err(|_| error)
    }

    /// Lets as many replicas as are needed hold the same ops of the key, durably.
    pub(super) async fn repair(
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
            }
        }
    }

    /// The same, with those of these that answer first.
    ///
    /// Ops go on coming here while others answer. So of what there is in the end, only so much is shown as is known to hold, with an op, all
    /// that was acknowledged before that one was sent:
    /// - What was here before anybody was asked, if nobody had more of the key. All of it was sent by then, and what was acknowledged by then,
    ///   a quorum holds: it was here, or one of those that were asked had it.
    /// - What is no later than all that they were `alike` in before they were asked. What was sent since then is stamped later, for whoever
    ///   stamps it asks one of them; so all of this was sent by then, and what was acknowledged by then is here.
    ///
    /// Clears that came meanwhile are heeded: a clear names all that it comes after.
    async fn repair_with(
        &self,
        user: &UserId,
        key: &Key,
        slot: SlotId,
        peers: &[Peer],
        need: usize,
        alike: Option<&Alike>,
    ) -> Result<Repaired, OpError> {
        let mine = self.local.clock(slot)?;
        let (theirs, is_news) = self.take_from(user, key, slot, peers, need, &mine).await?;
        // What they held when they were asked is here. What is here and not there goes there.
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

    /// Takes from as many of these as are needed, those that answer first, what they have of the key and the clock does not cover. Their clocks,
    /// and whether it was anything.
    async fn take_from(
        &self,
        user: &UserId,
        key: &Key,
        slot: SlotId,
        peers: &[Peer],
        need: usize,
        known: &Clock,
    ) -> Result<(Vec<(Peer, Clock)>, bool), OpError> {
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
            self.take_ops(ops, Came::Otherwise).await?;
            if more {
                self.take_rest(user, key, slot, &peer).await?;
            }
            theirs.push((peer, clock));
        }
        Ok((theirs, is_news))
    }

    /// Holds these ops, durably on Ok.
    pub(super) async fn take_ops(&self, ops: Vec<WireOp>, came: Came) -> Result<(), OpError> {
        let bytes: usize = ops.iter().map(WireOp::cost).sum();
        self.counters.taken_ops.fetch_add(ops.len() as u64, Ordering::Relaxed);
        self.counters.taken_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let ops: Result<Vec<_>, _> = ops.into_iter().map(WireOp::into_op).collect();
        // Nothing of what a peer cannot mean is taken.
        let ops = ops.map_err(|error| OpError::Disk(error.to_string()))?;
        if came != Came::Pulled {
            ops.iter().try_for_each(|keyed| self.check_may_take(&keyed.op))?;
        }
        match ops.is_empty() {
            true => Ok(()),
            false => self.local.apply(ops).await,
        }
    }

    /// What is left of a clear that was collected covers the clear and removes nothing. A replica that may have missed that clear would
    /// keep what it removed, and not notice any more: it takes the rest of it only with all that it lacks, once it has reconciled.
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

    /// Sends the peer what it lacks of the snapshot, by its clock. Whether it holds all of it durably now; an error is one of this node's disk.
    async fn give(&self, source: &KeySource, peer: &Peer, known: Clock) -> Result<bool, OpError> {
        let mut lacking = self.local.lacking(source.clone(), known);
        loop {
            let (ops, more) = lacking.next(SYNC_KEY_BYTES).await?;
            if ops.is_empty() {
                return Ok(true);
            }
            let Ok(call) = peer.call(Request::Append(ops.iter().map(WireOp::of).collect())) else {
                return Ok(false);
            };
            match call.await {
                Ok(Response::Done) if more => {}
                answer => return Ok(matches!(answer, Ok(Response::Done))),
            }
        }
    }
}
