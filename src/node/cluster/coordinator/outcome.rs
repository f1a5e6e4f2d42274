//! What becomes of a write that was begun, and of one that had been done before.

use tokio::sync::oneshot;

use crate::core::op::{Body, KeyedOp};
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::node::local::Added;
use crate::node::peers::Peer;
use crate::node::shards::spreading::{self, Spread};
use crate::types::{Key, RequestId, UserId};

/// What is told of a request that something came of before the node went down.
fn was_begun(error: OpError) -> OpError {
    match error {
        OpError::ShuttingDown => OpError::ShardUnavailable { maybe_applied: true },
        error => error,
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
    ) -> Result<Added, OpError> {
        // Who drops it without a word has it half done.
        let gone = Spread::Refused(OpError::ShardUnavailable { maybe_applied: true });
        match told.await.unwrap_or(gone) {
            Spread::Enough => Ok(Added::Appended),
            Spread::Repeated => {
                if need > 1
                    && let Some(id) = request_id
                    && let Some(op) = self.local.op_of_request(user, key, id).await.map_err(was_begun)?
                {
                    self.hold(op, None, peers, need).await?;
                }
                Ok(Added::Repeated)
            }
            Spread::Refused(error) => Err(error),
            Spread::TooFew { durable, local } => Err(self.too_few(durable_need, durable, local, peers)),
        }
    }

    /// Sees to it that `need` replicas hold an op that some replica already has: the peer that it is `from`, or this node.
    ///
    /// What is left of a cleared op goes with the clear. Without it the op would count as known here, and as dropped; the clear may be on that one
    /// disk only, and if that is lost, another replica shows the value for good while both have the same clock.
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
