//! What becomes of a write that was begun, and of one that was done before.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use crate::core::op::{Body, KeyedOp};
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::doubted;
use crate::node::local::Added;
use crate::node::peers::Peer;
use crate::node::shards::spreading::{self, Spread};
use crate::types::{Key, RequestId, UserId};

/// Whether a request was, or may have been, taken before: then it may show, whatever keeps this try from being answered.
#[derive(Default)]
pub(in crate::node::cluster) struct Taken(AtomicBool);

impl Taken {
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(in crate::node::cluster) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What the caller is told in the end. Until then the error stays what it is, for it decides who is asked next.
    pub(super) fn told(&self, done: Result<Added, OpError>) -> Result<Added, OpError> {
        done.map_err(|error| doubted(error, self.is_noted()))
    }
}

impl Inner {
    /// What became of a write that this node's shard was given.
    pub(super) async fn outcome(
        &self,
        (user, key, request_id): (&UserId, &Key, Option<RequestId>),
        told: oneshot::Receiver<Spread>,
        peers: &[Peer],
        (need, durable_need): (usize, usize),
        taken: &Taken,
    ) -> Result<Added, OpError> {
        // If the shard drops it without a word, it may be half done.
        let gone = Spread::Refused(OpError::ShardUnavailable { maybe_applied: true });
        match told.await.unwrap_or(gone) {
            Spread::Enough => Ok(Added::Appended),
            Spread::Repeated => {
                taken.note();
                if need > 1
                    && let Some(id) = request_id
                    && let Some(op) = self.local.op_of_request(user, key, id).await?
                {
                    self.hold(op, None, peers, need).await?;
                }
                Ok(Added::Repeated)
            }
            Spread::Refused(error) => {
                if matches!(error, OpError::Damaged(_) | OpError::Disk(_)) {
                    self.note_if_held((user, key, request_id), taken);
                }
                Err(error)
            }
            Spread::TooFew { durable, local } => Err(self.too_few(durable_need, durable, local, peers)),
        }
    }

    /// Where it cannot be read whether the request was taken before, it may have been.
    pub(super) fn note_if_held(&self, (user, key, id): (&UserId, &Key, Option<RequestId>), taken: &Taken) {
        if id.is_some_and(|id| self.local.may_hold_request(user, key, id) == Ok(true)) {
            taken.note();
        }
    }

    /// Makes sure that `need` replicas hold an op that one replica already has: the peer `from` which it came, or this node.
    ///
    /// The `Spent` remainder of an op is sent along with the clear that removed it. Without the clear, the op would count here as known and
    /// dropped; but the clear may be on that one disk alone, and once that is lost, another replica would show the value for good while
    /// both have the same clock.
    pub(super) async fn hold(
        &self,
        op: KeyedOp,
        from: Option<&Peer>,
        peers: &[Peer],
        need: usize,
    ) -> Result<(), OpError> {
        if matches!(op.op.body, Body::Spent { .. }) {
            let (user, key, slot) = (&op.user, &op.key, op.op.dot.slot);
            if let Some(from) = from {
                self.take_rest(user, key, slot, from).await?;
            }
            return Box::pin(self.repair(user, key, slot, peers, need)).await.map(drop);
        }
        let (own, may_take) = (vec![op.clone()], self.check_may_take(&op.op));
        let need = self.durable_need(op.op.dot.slot, need);
        let (others, share, mut told) = spreading::begin(peers, need);
        spreading::send(vec![others.stamped(op, None)]);
        let local = async {
            let applied = match may_take {
                Ok(()) => self.local.apply(own).await,
                Err(error) => Err(error),
            };
            share.end(applied.map(|()| Added::Appended));
        };
        let told = tokio::select! {
            biased;
            told = &mut told => told,
            () = local => told.await,
        };
        match told {
            Ok(Spread::TooFew { durable, local }) => Err(self.too_few(need, durable, local, peers)),
            Ok(Spread::Refused(error)) => Err(error),
            Ok(Spread::Enough | Spread::Repeated) => Ok(()),
            Err(_) => Err(OpError::ShardUnavailable { maybe_applied: true }),
        }
    }

    pub(super) fn too_few(&self, need: usize, durable: usize, local: Option<OpError>, peers: &[Peer]) -> OpError {
        match local {
            // Nothing was done anywhere.
            Some(error) if durable == 0 && peers.is_empty() => error,
            _ => self.no_quorum(need, durable, true),
        }
    }
}
