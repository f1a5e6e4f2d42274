//! Answers to who coordinates a write, or sends one on: what is held, the ops that are appended, the write that is carried out here.

use crate::core::op::Text;
use crate::core::slot::SlotId;
use crate::core::stamp::HybridTime;
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::{names, refused, terms_of, wire_error};
use crate::node::cluster::coordinator::{Came, Patience, Taken, Try};
use crate::node::local::{Added, Wanted};
use crate::shard::WriteKind;
use crate::types::{NodeId, RequestId};
use crate::wire::{Ask, ForwardedKind, ForwardedWrite, Response, WireClock, WireError, WireOp};

impl Inner {
    /// The answer where memory knows it.
    pub(super) fn asked_now(&self, from: NodeId, ask: &Ask) -> Option<Response> {
        let slot = crate::wire::slot_of(ask.slot).ok()?;
        // Before its request id is looked for: another try of it that is not found then is stamped later.
        self.local.come_after(slot, HybridTime(ask.time)).ok()?;
        let clock = self.clock_for(slot, ask).ok()?;
        if let Some((user, key, id)) = &ask.request {
            let (user, key) = (crate::wire::user_of(user).ok()?, crate::wire::key_of(key).ok()?);
            if !matches!(self.local.may_hold_request(&user, &key, RequestId(*id)), Ok(false)) {
                return None;
            }
        }
        self.asked(from, slot, None, clock).ok()
    }

    /// What a clear is to remove. Read before its request id is looked for: were it read afterwards, what was added since another try of the clear
    /// was done would be in it, and the id not be found.
    pub(super) fn clock_for(&self, slot: SlotId, ask: &Ask) -> Result<Option<WireClock>, OpError> {
        let clock = ask.clock.then(|| self.local.clock(slot)).transpose()?;
        Ok(clock.as_ref().map(WireClock::of))
    }

    pub(super) fn asked(
        &self,
        from: NodeId,
        slot: SlotId,
        held: Option<WireOp>,
        clock: Option<WireClock>,
    ) -> Result<Response, OpError> {
        Ok(Response::Asked {
            votes: self.votes_for(slot, from),
            // Read after the request id was looked for: an op that took it since has a time that counts.
            time: self.local.highest_time(slot)?.0,
            held,
            clock,
        })
    }

    pub(in crate::node::cluster) async fn answer_append(&self, from: NodeId, ops: Vec<WireOp>) -> Response {
        let gone = |maybe_applied| Response::Failed(WireError::Unavailable { maybe_applied });
        // Who counts on this acknowledgement has to know this life of the node, should its disk be rolled back one day.
        if !self.lives.is_introduced(from) {
            return gone(false);
        }
        let mut slots: Vec<SlotId> = ops.iter().map(|op| op.dot().slot).collect();
        slots.dedup();
        if let Err(error) = self.take_ops(ops, Came::Otherwise).await {
            return Response::Failed(wire_error(error));
        }
        // One whose seat another node has got may not have heard of that, and makes no quorum any more. Nor does this node where it is no replica,
        // or another replica does not know yet that it is one.
        let counts = |slot: &SlotId| self.knows_replica(*slot, from) && self.counts(*slot);
        match slots.iter().all(counts) {
            true => Response::Done,
            false => gone(true),
        }
    }

    pub(super) async fn answer_ask(&self, from: NodeId, ask: Ask) -> Result<Response, OpError> {
        let slot = crate::wire::slot_of(ask.slot).map_err(refused)?;
        self.local.come_after(slot, HybridTime(ask.time))?;
        let clock = self.clock_for(slot, &ask)?;
        let held = match &ask.request {
            None => None,
            Some((user, key, id)) => {
                let (user, key) = names(user, key)?;
                self.local.op_of_request(&user, &key, RequestId(*id)).await?
            }
        };
        self.asked(from, slot, held.as_ref().map(WireOp::of), clock)
    }

    pub(super) async fn answer_write(&self, write: ForwardedWrite) -> Result<Response, OpError> {
        let (user, key) = names(&write.user, &write.key)?;
        let wanted = Wanted {
            user: &user,
            key: &key,
            kind: match write.kind {
                ForwardedKind::Add { text, finish } => WriteKind::Add {
                    text: Text::from_utf8(text).map_err(refused)?,
                    finish,
                },
                ForwardedKind::Clear => WriteKind::Clear,
                ForwardedKind::ClearDots(dots) => WriteKind::ClearDots(dots.into_clock()),
            },
            request_id: write.request_id.map(RequestId),
        };
        let which = match write.is_first_try {
            true => Try::First,
            false => Try::Any,
        };
        let (terms, taken) = (terms_of(write.terms), Taken::default());
        let done = self.write_here(wanted, which, terms, Patience::Waits, &taken).await;
        let added = done.map_err(|error| match taken.is_noted() && !error.maybe_applied() {
            // Another replica is asked all the same, also where too few others are seen from here.
            true => OpError::ShardUnavailable { maybe_applied: true },
            false => error,
        })?;
        Ok(Response::Written {
            repeated: added == Added::Repeated,
        })
    }
}
