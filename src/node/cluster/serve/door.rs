//! The way in for other members, and where the answer to each request comes from.

use std::sync::{Arc, OnceLock, Weak};

use crate::env::BoxFuture;
use crate::node::OpError;
use crate::node::cluster::calls::{names, refused, wire_error};
use crate::node::cluster::catch_up::Why;
use crate::node::cluster::{Inner, MemberRefused};
use crate::node::peers::PeerService;
use crate::types::NodeId;
use crate::wire::{Admission, Request, Response, WireError};

/// The way in for peers, open once the cluster stands.
#[derive(Clone, Default)]
pub(in crate::node::cluster) struct Door(Arc<OnceLock<Weak<Inner>>>);

impl Door {
    pub(in crate::node::cluster) fn open(&self, inner: &Arc<Inner>) {
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
                let id = (from, connection, reader);
                self.answer_read(id, &names(&user, &key)?, (offset, limit), terms).await
            }
            Request::ReadNext { reader, budget_bytes } => {
                self.read_on((from, connection, reader), budget_bytes as usize).await
            }
            Request::ReadEnd { reader } => Ok(self.end_read((from, connection, reader))),
            Request::Count { user, key, terms } => self.answer_count(&names(&user, &key)?, terms).await,
            Request::ListKeys {
                user,
                prefix,
                after,
                limit,
                all,
                left_ms,
            } => {
                let page = (prefix, after, limit as usize);
                self.answer_list(from, &user, page, all, left_ms).await
            }
            Request::Introduce { starts, life } => Ok(self.meet((from, connection), starts, life).await),
            Request::Compare { digest } => self.answer_compare(from, digest),
            Request::Clocks { slots } if slots.is_empty() => self.judge((from, connection)).await,
            Request::Clocks { slots } => self.answer_clocks((from, connection), slots),
            Request::Pull { pull, wants } => self.begin_pull((from, connection, pull), &wants.into_clocks()),
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
            Request::Admit(admission) => self.answer_admit(admission).await,
            Request::Table => self.answer_table().await,
            Request::HasData => Ok(Response::HasData(self.has_data().await?)),
            Request::Status => Ok(Response::Status(self.own_status_json())),
            Request::Seen { user, key, terms } => self.answer_seen(&user, &key, terms).await,
            Request::Unknown(why) => Err(refused(why)),
        }
    }

    async fn answer_admit(&self, admission: Admission) -> Result<Response, OpError> {
        match self.admit(admission).await {
            Ok(admitted) => Ok(admitted),
            Err(MemberRefused::Store(error)) => Err(error),
            Err(refused) => Ok(Response::Failed(WireError::Refused(refused.to_string()))),
        }
    }
}
