//! What this node answers to other members.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::forward::{error_of, terms_of, wire_error};
use super::give_up::Why;
use super::opened::{OpenId, get, put};
use super::read::{Came, SYNC_KEY_BYTES};
use super::write::{Patience, Try};
use super::{Inner, MemberRefused};
use crate::core::clock::Clock;
use crate::core::op::{Body, Fragment, Text};
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::env::BoxFuture;
use crate::node::hedged::{self, ValueReader};
use crate::node::local::{Added, Wanted};
use crate::node::peers::PeerService;
use crate::node::{OpError, Terms};
use crate::planted::{Bug, planted};
use crate::shard::WriteKind;
use crate::store::keys::KeyQuery;
use crate::types::{Key, NodeId, RequestId, UserId};
use crate::wire::{
    Ask, ForwardedKind, ForwardedWrite, Request, Response, WireClock, WireClocks, WireError, WireFragment, WireOp,
    WireTerms,
};

/// Text in one page of a reader, bytes.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The way in for peers, open once the cluster stands.
#[derive(Clone, Default)]
pub(super) struct Door(Arc<OnceLock<Weak<Inner>>>);

impl Door {
    pub(super) fn open(&self, inner: &Arc<Inner>) {
        // Opened once, by who made it.
        let _ = self.0.set(Arc::downgrade(inner));
    }

    fn inner(&self) -> Option<Arc<Inner>> {
        self.0.get()?.upgrade()
    }
}

impl PeerService for Door {
    fn answer_now(&self, from: NodeId, request: &Request) -> Option<Response> {
        self.inner()?.answer_now(from, request)
    }

    fn answer(&self, from: NodeId, connection: u64, request: Request) -> BoxFuture<'static, Response> {
        let inner = self.inner();
        let gone = Response::Failed(WireError::Unavailable { maybe_applied: false });
        // The frequent one has a future of its own: that of all others is of a size that the allocator is slow with.
        if let Request::Append(ops) = request {
            return Box::pin(async move {
                match inner {
                    Some(inner) => inner.answer_append(from, ops).await,
                    None => gone,
                }
            });
        }
        Box::pin(async move {
            match inner {
                Some(inner) => inner.answer(from, connection, request).await,
                None => gone,
            }
        })
    }

    fn connection_ended(&self, from: NodeId, connection: u64) {
        if let Some(inner) = self.inner() {
            inner.serving.end(from, connection);
        }
    }
}

impl Inner {
    fn answer_now(&self, from: NodeId, request: &Request) -> Option<Response> {
        match request {
            Request::Ping => Some(Response::Done),
            Request::Digest { slot } => {
                let slot = crate::wire::slot_of(*slot).ok()?;
                Some(match self.local.digest(slot) {
                    Ok(digest) => Response::Digest {
                        votes: self.votes_for(slot, from),
                        digest,
                    },
                    Err(error) => Response::Failed(wire_error(error)),
                })
            }
            Request::Ask(ask) => self.asked_now(from, ask),
            _ => None,
        }
    }

    /// The answer where memory knows it.
    fn asked_now(&self, from: NodeId, ask: &Ask) -> Option<Response> {
        let slot = crate::wire::slot_of(ask.slot).ok()?;
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
    fn clock_for(&self, slot: SlotId, ask: &Ask) -> Result<Option<WireClock>, OpError> {
        let clock = ask.clock.then(|| self.local.clock(slot)).transpose()?;
        Ok(clock.as_ref().map(WireClock::of))
    }

    fn asked(
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

    async fn answer(self: &Arc<Self>, from: NodeId, connection: u64, request: Request) -> Response {
        let answer = self.answer_or_fail(from, connection, request).await;
        answer.unwrap_or_else(|error| Response::Failed(wire_error(error)))
    }

    async fn answer_or_fail(
        self: &Arc<Self>,
        from: NodeId,
        connection: u64,
        request: Request,
    ) -> Result<Response, OpError> {
        // A promise waits for all that is at work, and not for itself.
        let _at_work = (!matches!(request, Request::GiveUp { .. })).then(|| self.at_work.begin());
        match request {
            Request::Ping | Request::Digest { .. } => Ok(self
                .answer_now(from, &request)
                .unwrap_or(Response::Failed(WireError::Refused("no such slot".to_owned())))),
            Request::Ask(ask) => self.answer_ask(from, ask).await,
            Request::Append(ops) => Ok(Box::pin(self.answer_append(from, ops)).await),
            Request::SyncKey { user, key, known, .. } => {
                let (user, key) = names(&user, &key)?;
                self.answer_sync_key(from, &user, &key, known.into_clock()).await
            }
            Request::Write(write) => self.answer_write(write).await,
            Request::Read {
                reader,
                user,
                key,
                offset,
                limit,
                terms,
            } => {
                let (user, key) = names(&user, &key)?;
                let opened = self.open_reader(&user, &key, (offset, limit), terms).await?;
                put(&self.serving.readers, (from, connection, reader), opened);
                self.read_on((from, connection, reader), PAGE_BYTES_MAX).await
            }
            Request::ReadNext { reader, budget_bytes } => {
                let budget = (budget_bytes as usize).min(PAGE_BYTES_MAX);
                self.read_on((from, connection, reader), budget).await
            }
            Request::ReadEnd { reader } => {
                self.serving.readers.lock().remove(&(from, connection, reader));
                Ok(Response::Done)
            }
            Request::Count { user, key, terms } => {
                let (user, key) = names(&user, &key)?;
                let source = self.source(&user, &key, terms_of(terms)).await?;
                let source = source.ok_or(OpError::ShardUnavailable { maybe_applied: false })?;
                Ok(Response::Count(self.local.count_of(source).await?))
            }
            Request::ListKeys {
                user,
                prefix,
                after,
                limit,
                all,
                left_ms,
            } if self.may_list() && self.lives.is_introduced(from) => {
                let query = KeyQuery {
                    user: crate::wire::user_of(&user).map_err(refused)?,
                    prefix,
                    after,
                    limit: limit as usize,
                    all,
                };
                self.answer_list(query, left_ms).await
            }
            Request::ListKeys { .. } => Err(OpError::ShardUnavailable { maybe_applied: false }),
            Request::Introduce { starts, life } => Ok(self.meet((from, connection), starts, life).await),
            Request::Compare { digest } => self.answer_compare(from, digest),
            Request::Clocks { slots } if slots.is_empty() => self.judge((from, connection)).await,
            Request::Clocks { slots } => self.answer_clocks((from, connection), slots),
            Request::Pull { pull, wants } => {
                put(
                    &self.serving.pulls,
                    (from, connection, pull),
                    self.local.export(&wants.into_clocks())?,
                );
                Ok(Response::Done)
            }
            Request::PullNext { pull, budget_bytes } => {
                self.pull_on((from, connection, pull), budget_bytes as usize).await
            }
            Request::HeldDots { slot } => self.answer_held_dots(slot).await,
            Request::Dropped { slot, dots } => self.answer_dropped(slot, &dots.into_clock()).await,
            Request::GiveUp {
                slot,
                replicas,
                dots,
                lost,
            } => {
                let why = if lost { Why::Lost } else { Why::Awaited };
                self.answer_give_up(from, slot, &replicas, dots, why).await
            }
            Request::Admit(admission) => Ok(match self.admit(admission).await {
                Ok(admitted) => admitted,
                Err(MemberRefused::Store(error)) => return Err(error),
                Err(refused) => Response::Failed(WireError::Refused(refused.to_string())),
            }),
            Request::Table => self.answer_table().await,
            Request::HasData => Ok(Response::HasData(self.has_data().await?)),
            Request::Status => Ok(Response::Status(self.own_status_json())),
            Request::Seen { user, key, terms } => self.answer_seen(&user, &key, terms).await,
            Request::Unknown(why) => Err(refused(why)),
        }
    }

    pub(super) async fn answer_append(&self, from: NodeId, ops: Vec<WireOp>) -> Response {
        let gone = |maybe_applied| Response::Failed(WireError::Unavailable { maybe_applied });
        // Who counts on this acknowledgement has to know this life of the node, should its disk be set back one day.
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

    async fn answer_ask(&self, from: NodeId, ask: Ask) -> Result<Response, OpError> {
        let slot = crate::wire::slot_of(ask.slot).map_err(refused)?;
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

    async fn answer_sync_key(&self, from: NodeId, user: &UserId, key: &Key, known: Clock) -> Result<Response, OpError> {
        let (slot, _) = crate::node::replica::place_of(user, key);
        // The clock first: what comes in between is sent, and sent once more by who asks.
        let clock = self.local.clock(slot)?;
        let (source, _) = self.local.source_at_digest(user, key)?;
        let (ops, more) = self.local.lacking(source, known).next(SYNC_KEY_BYTES).await?;
        Ok(Response::SyncedKey {
            votes: self.votes_for(slot, from),
            clock: WireClock::of(&clock),
            ops: ops.iter().map(WireOp::of).collect(),
            more,
        })
    }

    async fn answer_write(&self, write: ForwardedWrite) -> Result<Response, OpError> {
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
        let added = self
            .write_here(wanted, which, terms_of(write.terms), Patience::Waits)
            .await?;
        Ok(Response::Written {
            repeated: added == Added::Repeated,
        })
    }

    async fn open_reader(
        self: &Arc<Self>,
        user: &UserId,
        key: &Key,
        (offset, limit): (u64, u64),
        terms: WireTerms,
    ) -> Result<ValueReader, OpError> {
        let source = self.source(user, key, terms_of(terms)).await?;
        // Sent here by a node with another member table: it is told to look elsewhere.
        let source = source.ok_or(OpError::ShardUnavailable { maybe_applied: false })?;
        let offset = if planted(Bug::PageOffsetForgotten) { 0 } else { offset };
        // Who sent it here asks the next one where this disk is damaged.
        Ok(ValueReader::local(self.local.read(source, offset, limit), None))
    }

    async fn read_on(&self, id: OpenId, budget_bytes: usize) -> Result<Response, OpError> {
        let gone = OpError::ShardUnavailable { maybe_applied: false };
        let reader = get(&self.serving.readers, id).ok_or(gone)?;
        let page = reader.lock().await.next(budget_bytes).await;
        if !matches!(&page, Ok(page) if !page.is_empty()) {
            self.serving.readers.lock().remove(&id);
        }
        let fragment = |fragment: Fragment| WireFragment {
            text: fragment.text.bytes(),
            ends_value: fragment.ends_value,
        };
        Ok(Response::Page(page?.into_iter().map(fragment).collect()))
    }

    async fn pull_on(&self, id: OpenId, budget_bytes: usize) -> Result<Response, OpError> {
        let gone = OpError::ShardUnavailable { maybe_applied: false };
        let pull = get(&self.serving.pulls, id).ok_or(gone)?;
        let mut export = pull.lock().await;
        let page = export.next(budget_bytes.min(PAGE_BYTES_MAX)).await?;
        // Not with the last ops: each of the two alone may be as long as a message.
        let covered = page.is_none().then(|| WireClocks::of(export.covered()));
        let mut ops = page.unwrap_or_default();
        if planted(Bug::CatchUpSkipsLast) {
            ops.pop_if(|last| last.op.dot.slot != SYSTEM_SLOT);
        }
        if planted(Bug::CatchUpSkipsParts) {
            ops.pop_if(|last| matches!(last.op.body, Body::Part(_)));
        }
        if covered.is_some() {
            self.serving.pulls.lock().remove(&id);
        }
        Ok(Response::Pulled {
            ops: ops.iter().map(WireOp::of).collect(),
            covered,
        })
    }

    async fn answer_list(&self, query: KeyQuery, left_ms: u32) -> Result<Response, OpError> {
        let deadline = match left_ms {
            0 => Terms::usual().deadline,
            left_ms => tokio::time::Instant::now() + Duration::from_millis(left_ms.into()),
        };
        // Given up when nobody waits for it any more.
        let page = hedged::by(deadline, self.local.list(query)).await?;
        Ok(Response::Keys {
            keys: page.keys.iter().map(|key| key.as_str().to_owned()).collect(),
            next_after: page.next_after.map(|key| key.as_str().to_owned()),
        })
    }
}

pub(super) fn names(user: &str, key: &str) -> Result<(UserId, Key), OpError> {
    Ok((
        crate::wire::user_of(user).map_err(refused)?,
        crate::wire::key_of(key).map_err(refused)?,
    ))
}

pub(super) fn refused(error: impl std::fmt::Display) -> OpError {
    error_of(WireError::Refused(error.to_string()))
}
