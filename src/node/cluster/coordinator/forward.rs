//! Requests for slots that this node does not hold: one of the replicas carries them out.
//!
//! When it fails or is slow, the next one is asked. A write carries a request id, so that it counts once, whichever replicas take it. A
//! clear names what it removes, so that a try that arrives late removes nothing that was added since.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::write::Try;
use crate::core::op::{Fragment, Text};
use crate::node::cluster::calls::{Tries, doubted, error_of, is_worth_another, maybe_applied, unanswered, wire_terms};
use crate::node::cluster::{Inner, count};
use crate::node::hedged::HEDGE;
use crate::node::local::{Added, Wanted};
use crate::node::peers::Peer;
use crate::node::replica::place_of;
use crate::node::{OpError, Terms};
use crate::shard::WriteKind;
use crate::types::{Key, NodeId, RequestId, UserId};
use crate::wire::{ForwardedKind, ForwardedWrite, Request, Response, WireClock};

/// For each KiB of text, a replica gets this much more time before the next one is asked too, as with the client: a text that is sent to
/// several takes up all their lines, and each of them stores a copy.
const HEDGE_KIB: Duration = Duration::from_millis(1);

impl Inner {
    pub(super) async fn forward_write(
        &self,
        wanted: Wanted<'_>,
        replicas: &[NodeId],
        which: Try,
        terms: Terms,
    ) -> Result<Added, OpError> {
        count(&self.counters.forwarded);
        let made = wanted.request_id.is_none();
        let request_id = match made {
            true => Some(self.new_request_id().0),
            false => wanted.request_id.map(|id| id.0),
        };
        let kind = self.kind_to_forward(&wanted, replicas, terms).await?;
        let request = |tries: usize| {
            Request::Write(ForwardedWrite {
                user: wanted.user.as_str().to_owned(),
                key: wanted.key.as_str().to_owned(),
                kind: kind.clone(),
                request_id,
                is_first_try: tries == 0 && (made || which == Try::First),
                terms: wire_terms(terms),
            })
        };
        let (_, response) = self.through(replicas, request, terms, true).await?;
        match response {
            Response::Written { repeated: true } => Ok(Added::Repeated),
            Response::Written { repeated: false } => Ok(Added::Appended),
            _ => Err(OpError::ShardUnavailable { maybe_applied: true }),
        }
    }

    pub(in crate::node::cluster) async fn kind_to_forward(
        &self,
        wanted: &Wanted<'_>,
        replicas: &[NodeId],
        terms: Terms,
    ) -> Result<ForwardedKind, OpError> {
        Ok(match &wanted.kind {
            WriteKind::Add { text, finish } => ForwardedKind::Add {
                text: text.bytes(),
                finish: *finish,
            },
            WriteKind::Clear => ForwardedKind::ClearDots(WireClock::of(&self.seen_by(replicas, wanted, terms).await?)),
            WriteKind::ClearDots(dots) => ForwardedKind::ClearDots(WireClock::of(dots)),
        })
    }

    fn new_request_id(&self) -> RequestId {
        let mut id = [0; 16];
        self.env.entropy.fill(&mut id);
        RequestId(id)
    }

    pub(super) async fn forward_count(&self, user: &UserId, key: &Key, terms: Terms) -> Result<u64, OpError> {
        let (slot, _) = place_of(user, key);
        let layout = self.layout();
        let request = |_| Request::Count {
            user: user.as_str().to_owned(),
            key: key.as_str().to_owned(),
            terms: wire_terms(terms),
        };
        let replicas = layout.placement.replicas(slot);
        let done = self.through(replicas, request, terms, false).await;
        match done.map_err(|error| self.not_read(error, replicas, terms))?.1 {
            Response::Count(count) => Ok(count),
            _ => Err(OpError::ShardUnavailable { maybe_applied: false }),
        }
    }

    /// A full disk is no reason not to read: if no replica could store what another one holds, the error is that too few of them hold the
    /// same.
    fn not_read(&self, error: OpError, replicas: &[NodeId], terms: Terms) -> OpError {
        match error {
            OpError::DiskFull => self.no_quorum(terms.consistency.needed(replicas.len()), 1, false),
            error => error,
        }
    }

    /// The answer of the first replica that carries the request out. `writes`: where no answer came, the request may have had an effect.
    pub(in crate::node::cluster) async fn through(
        &self,
        replicas: &[NodeId],
        request: impl Fn(usize) -> Request,
        terms: Terms,
        writes: bool,
    ) -> Result<(Peer, Response), OpError> {
        let mut left: VecDeque<Peer> = self.up_peers(replicas).into();
        if left.is_empty() {
            return Err(self.no_quorum(terms.consistency.needed(replicas.len()), 0, false));
        }
        let (mut asked, mut tries) = (Tries::default(), 0);
        let mut last;
        // What is wrong with the request itself, as one of them sees it.
        let mut refused = None;
        let mut in_doubt = false;
        let mut next_due = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                Some((peer, answer)) = asked.next(), if !asked.is_empty() => {
                    let error = match answer {
                        Ok(Response::Failed(error)) => error_of(error),
                        Ok(response) => return Ok((peer, response)),
                        Err(error) => unanswered(&error, writes),
                    };
                    in_doubt |= writes && maybe_applied(&error);
                    if !is_worth_another(&error) {
                        // It says only of itself that it changed nothing: another replica that has the write too may be less strict, and
                        // carry it out.
                        if !writes || in_doubt || asked.is_empty() {
                            return Err(doubted(error, in_doubt));
                        }
                        left.clear();
                        refused.get_or_insert(error.clone());
                    }
                    last = error;
                    next_due = tokio::time::Instant::now();
                    if left.is_empty() && asked.is_empty() {
                        break;
                    }
                }
                () = tokio::time::sleep_until(next_due), if !left.is_empty() => {
                    if let Some(peer) = left.pop_front() {
                        if tries > 0 {
                            count(&self.counters.hedged);
                        }
                        let request = request(tries);
                        asked.begin(peer, &request);
                        tries += 1;
                        next_due = tokio::time::Instant::now() + allowance(&request);
                    }
                }
                () = tokio::time::sleep_until(terms.deadline) => {
                    return Err(OpError::Deadline { maybe_applied: writes });
                }
            }
        }
        Err(doubted(refused.unwrap_or(last), in_doubt))
    }
}

/// How long a replica gets before the next one is asked too.
fn allowance(request: &Request) -> Duration {
    match request {
        Request::Write(ForwardedWrite {
            kind: ForwardedKind::Add { text, .. },
            ..
        }) => HEDGE + HEDGE_KIB * u32::try_from(text.len() / 1024).unwrap_or(u32::MAX),
        _ => HEDGE,
    }
}

/// A reader of a key's list on a node that holds it.
pub struct RemoteReader {
    peer: Peer,
    reader: u64,
    ended: bool,
    first: Option<Vec<Fragment>>,
}

impl RemoteReader {
    /// Opens a reader at one of the nodes that hold the key, except those in `without`.
    pub(super) async fn open(
        inner: &Inner,
        (user, key): (&UserId, &Key),
        (offset, limit): (u64, u64),
        without: &[NodeId],
        terms: Terms,
    ) -> Result<Self, OpError> {
        count(&inner.counters.forwarded);
        let (slot, _) = place_of(user, key);
        let layout = inner.layout();
        // A number of its own for each try would be needed only if one peer were asked twice.
        let reader = inner.next_number.fetch_add(1, Ordering::Relaxed);
        let request = |_| Request::Read {
            reader,
            user: user.as_str().to_owned(),
            key: key.as_str().to_owned(),
            offset,
            limit,
            terms: wire_terms(terms),
        };
        let replicas = layout.placement.replicas(slot);
        let left: Vec<NodeId> = replicas
            .iter()
            .copied()
            .filter(|node| !without.contains(node))
            .collect();
        let opened = inner.through(&left, request, terms, false).await;
        let (peer, response) = opened.map_err(|error| inner.not_read(error, replicas, terms))?;
        let Response::Page(fragments) = response else {
            return Err(OpError::ShardUnavailable { maybe_applied: false });
        };
        let mut opened = Self {
            peer,
            reader,
            ended: fragments.is_empty(),
            first: None,
        };
        opened.first = Some(fragments_of(fragments)?);
        Ok(opened)
    }

    pub(in crate::node) fn node(&self) -> NodeId {
        self.peer.node()
    }

    /// The next fragments, together about `budget_bytes` of text; empty at the end.
    pub async fn next(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        if self.ended {
            return Ok(Vec::new());
        }
        let request = Request::ReadNext {
            reader: self.reader,
            budget_bytes: budget_bytes.min(1 << 20) as u32,
        };
        let gone = OpError::ShardUnavailable { maybe_applied: false };
        let call = self.peer.call(request).map_err(|_| gone.clone())?;
        match call.await {
            Ok(Response::Page(fragments)) => {
                self.ended = fragments.is_empty();
                fragments_of(fragments)
            }
            Ok(Response::Failed(error)) => Err(error_of(error)),
            _ => Err(gone),
        }
    }
}

impl Drop for RemoteReader {
    fn drop(&mut self) {
        if !self.ended {
            // The answer is of no interest, and if it cannot be sent, the connection's end closes the reader.
            let _ = self.peer.call(Request::ReadEnd { reader: self.reader });
        }
    }
}

fn fragments_of(fragments: Vec<crate::wire::WireFragment>) -> Result<Vec<Fragment>, OpError> {
    let text = |bytes| Text::from_utf8(bytes).map_err(|error| OpError::Damaged(error.to_string()));
    fragments
        .into_iter()
        .map(|fragment| {
            Ok(Fragment {
                text: text(fragment.text)?,
                ends_value: fragment.ends_value,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_not_sent_to_the_next_one_before_it_can_have_arrived() {
        let write = |bytes: usize| {
            Request::Write(ForwardedWrite {
                user: String::new(),
                key: String::new(),
                kind: ForwardedKind::Add {
                    text: vec![0; bytes].into(),
                    finish: true,
                },
                request_id: None,
                is_first_try: true,
                terms: wire_terms(Terms::usual()),
            })
        };
        assert_eq!(allowance(&write(100)), HEDGE);
        // At ten megabits a second.
        assert!(allowance(&write(4 << 20)) > Duration::from_secs(3));
    }
}
