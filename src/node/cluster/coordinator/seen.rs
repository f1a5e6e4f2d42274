//! What there is of a key at this moment: the context of a clear, taken before it is known whether the clear may be done at all.
//!
//! The replicas' clocks are of different moments. A part may be acknowledged, and the value that it belongs to sent, after one replica told
//! its clock and before another one does. Then that other one may tell of the value, and, if the part did not get through to it, nobody of
//! the part: the value would be cleared, and the part would end up in the next value. So if a replica tells of ops that were not here
//! before anybody was asked, the key's parts are looked for once more, after all have told. Whoever acknowledged a part had it before the
//! value was sent, so it has it by then.
//!
//! Invariant: what is cleared with a value is every part that was acknowledged before it was sent.
//!
//! Values that are first found by this second look are left alone, for *their* parts might be missing. Such a value may lose a part to the
//! clear, which is concurrent with both.

use super::read::sync_key;
use super::write::{Asked, Try};
use crate::core::clock::Clock;
use crate::core::op::{Body, Op};
use crate::core::slot::SlotId;
use crate::core::stamp::HybridTime;
use crate::node::cluster::calls::{gather, names, terms_of, wire_terms};
use crate::node::cluster::{Cluster, Inner};
use crate::node::local::Wanted;
use crate::node::peers::Peer;
use crate::node::replica::place_of;
use crate::node::{OpError, Terms};
use crate::shard::WriteKind;
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::types::{Consistency, Key, NodeId, UserId};
use crate::wire::{Request, Response, WireClock, WireOp, WireTerms};

/// Of which key a clear's context is wanted, and who is asked for it.
pub(super) struct OfKey<'a> {
    pub(in crate::node::cluster) slot: SlotId,
    pub(in crate::node::cluster) user: &'a UserId,
    pub(in crate::node::cluster) key: &'a Key,
    pub(in crate::node::cluster) peers: &'a [Peer],
    /// How many replicas have to answer, this node being one of them if it votes.
    pub(in crate::node::cluster) need: usize,
    /// How many replicas hold the slot.
    pub(in crate::node::cluster) replicas: usize,
}

/// Parts of a key that were found where they are not known to be, and what else was.
struct Parts {
    /// Values that tell of them are no later than this.
    until: HybridTime,
    known: Clock,
    found: Clock,
}

impl Parts {
    fn see(&mut self, op: &Op) {
        self.known.insert(op.dot.origin, op.dot.seq);
        if matches!(op.body, Body::Part(_)) && op.time <= self.until {
            self.found.insert(op.dot.origin, op.dot.seq);
        }
    }
}

impl Cluster {
    /// What a clear of the key that is sent now would remove; nothing that is sent later.
    pub async fn clock_of(&self, user: &UserId, key: &Key, terms: Terms) -> Result<Clock, OpError> {
        let inner = &self.inner;
        let (slot, _) = place_of(user, key);
        let layout = inner.layout();
        let replicas = layout.placement.replicas(slot);
        match replicas.contains(&inner.me) {
            true => inner.clock_of(user, key, terms).await,
            false => inner.clock_through(replicas, user, key, terms).await,
        }
    }
}

impl Inner {
    /// What a clear that another node is to carry out removes.
    pub(super) async fn seen_by(
        &self,
        replicas: &[NodeId],
        clear: &Wanted<'_>,
        terms: Terms,
    ) -> Result<Clock, OpError> {
        let mut seen = self.clock_through(replicas, clear.user, clear.key, terms).await?;
        // A loss that nobody could name is no op, and no other replica ever covers it.
        seen.remove_origin(UNKNOWN_ORIGIN);
        Ok(seen)
    }

    async fn clock_through(
        &self,
        replicas: &[NodeId],
        user: &UserId,
        key: &Key,
        terms: Terms,
    ) -> Result<Clock, OpError> {
        let request = |_| Request::Seen {
            user: user.as_str().to_owned(),
            key: key.as_str().to_owned(),
            terms: wire_terms(terms),
        };
        match self.through(replicas, request, terms, false).await?.1 {
            Response::Seen(clock) => Ok(clock.into_clock()),
            _ => Err(OpError::ShardUnavailable { maybe_applied: false }),
        }
    }

    pub(in crate::node::cluster) async fn answer_seen(
        &self,
        user: &str,
        key: &str,
        terms: WireTerms,
    ) -> Result<Response, OpError> {
        let (user, key) = names(user, key)?;
        let seen = self.clock_of(&user, &key, terms_of(terms)).await?;
        Ok(Response::Seen(WireClock::of(&seen)))
    }

    async fn clock_of(&self, user: &UserId, key: &Key, terms: Terms) -> Result<Clock, OpError> {
        let (slot, _) = place_of(user, key);
        let layout = self.layout();
        let replicas = layout.placement.replicas(slot);
        if !replicas.contains(&self.me) {
            // Asked by a node with another member table: it is told to look elsewhere.
            return Err(OpError::ShardUnavailable { maybe_applied: false });
        }
        let own = self.local.clock(slot)?;
        if replicas.len() == 1 {
            return Ok(own);
        }
        let clear = Wanted {
            user,
            key,
            kind: WriteKind::Clear,
            request_id: None,
        };
        let (peers, need) = (self.up_peers(replicas), terms.consistency.needed(replicas.len()));
        let of_key = OfKey {
            slot,
            user,
            key,
            peers: &peers,
            need,
            replicas: replicas.len(),
        };
        let seen = async {
            let mut asked = self.ask(&peers, slot, &clear, Try::First, need).await?;
            self.close(&of_key, own, &mut asked).await?;
            Ok(asked.context.seen.unwrap_or_default())
        };
        let seen = tokio::time::timeout_at(terms.deadline, seen).await;
        seen.unwrap_or(Err(OpError::Deadline { maybe_applied: false }))
    }

    /// Adds to what a clear removes, as the others told it, what was here before they were asked (`own`), and parts that may be missing.
    /// Returns whether there were any.
    pub(super) async fn close(&self, of: &OfKey<'_>, own: Clock, asked: &mut Asked) -> Result<bool, OpError> {
        let Some(seen) = &mut asked.context.seen else {
            return Ok(false);
        };
        // Of a value that was here before, all parts were acknowledged before anybody was asked.
        let is_closed = own.covers(seen);
        seen.join(&own);
        if is_closed {
            return Ok(false);
        }
        let mut parts = Parts {
            until: asked.context.after,
            known: seen.clone(),
            found: Clock::default(),
        };
        let votes = self.votes(of.slot);
        if votes {
            self.own_parts(of, &mut parts).await?;
        }
        // A part that is missing is on a quorum without the replica that told of the value. If there is none without this node as well,
        // this node has the part.
        let own_are_all = votes && Consistency::Quorum.needed(of.replicas) + 2 > of.replicas;
        if !own_are_all {
            self.parts_of_others(of, of.need - usize::from(votes), &mut parts)
                .await?;
        }
        seen.join(&parts.found);
        Ok(!parts.found.is_empty())
    }

    async fn own_parts(&self, of: &OfKey<'_>, parts: &mut Parts) -> Result<(), OpError> {
        let (source, clock) = self.local.source_at_clock(of.user, of.key)?;
        let mut more = !parts.known.covers(&clock);
        let mut lacking = self.local.lacking(source, parts.known.clone());
        while more {
            let ops;
            (ops, more) = lacking.next(self.pages.key_bytes).await?;
            ops.iter().for_each(|keyed| parts.see(&keyed.op));
        }
        Ok(())
    }

    async fn parts_of_others(&self, of: &OfKey<'_>, want: usize, parts: &mut Parts) -> Result<(), OpError> {
        let known = WireClock::of(&parts.known);
        let request = || sync_key(of.user, of.key, of.slot, known.clone());
        let counts = |response| match response {
            Response::SyncedKey {
                votes: true, ops, more, ..
            } => Some((ops, more)),
            _ => None,
        };
        let answers = gather(of.peers, want, request, counts).await;
        let answers = answers.map_err(|answered| self.no_quorum(of.need, answered + of.need - want, false))?;
        for (peer, (mut ops, mut more)) in answers {
            loop {
                let is_last = !more || ops.is_empty();
                for op in ops.into_iter().map(WireOp::into_op) {
                    parts.see(&op.map_err(|error| OpError::Peer(error.to_string()))?.op);
                }
                if is_last {
                    break;
                }
                let known = WireClock::of(&parts.known);
                let gone = OpError::ShardUnavailable { maybe_applied: false };
                let call = peer.call(sync_key(of.user, of.key, of.slot, known));
                let answer = call.map_err(|_| gone.clone())?.await;
                (ops, more) = answer.ok().and_then(counts).ok_or(gone)?;
            }
        }
        Ok(())
    }
}
