//! What there is of a key when somebody asks: the context of a clear, taken before it is known whether the clear may be done at all.

use super::forward::{terms_of, wire_terms};
use super::serve::names;
use super::write::Try;
use super::{Cluster, Inner};
use crate::core::clock::Clock;
use crate::node::local::Wanted;
use crate::node::replica::place_of;
use crate::node::{OpError, Terms};
use crate::shard::WriteKind;
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::types::{Key, NodeId, UserId};
use crate::wire::{Request, Response, WireClock, WireTerms};

impl Cluster {
    /// What a clear of the key that is asked for now would remove, and nothing that is sent later.
    pub async fn clock_of(&self, user: &UserId, key: &Key, terms: Terms) -> Result<Clock, OpError> {
        let inner = &self.inner;
        let (slot, _) = place_of(user, key);
        let layout = inner.layouts.current();
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

    pub(super) async fn answer_seen(&self, user: &str, key: &str, terms: WireTerms) -> Result<Response, OpError> {
        let (user, key) = names(user, key)?;
        let seen = self.clock_of(&user, &key, terms_of(terms)).await?;
        Ok(Response::Seen(WireClock::of(&seen)))
    }

    async fn clock_of(&self, user: &UserId, key: &Key, terms: Terms) -> Result<Clock, OpError> {
        let (slot, _) = place_of(user, key);
        let layout = self.layouts.current();
        let replicas = layout.placement.replicas(slot);
        if !replicas.contains(&self.me) {
            // Asked by a node with another member table: it is told to look elsewhere.
            return Err(OpError::ShardUnavailable { maybe_applied: false });
        }
        let mut seen = self.local.clock(slot)?;
        if replicas.len() == 1 {
            return Ok(seen);
        }
        let clear = Wanted {
            user,
            key,
            kind: WriteKind::Clear,
            request_id: None,
        };
        let (peers, need) = (self.up_peers(replicas), terms.consistency.needed(replicas.len()));
        let asked = self.ask(&peers, slot, &clear, Try::First, need);
        let asked = tokio::time::timeout_at(terms.deadline, asked).await;
        let asked = asked.unwrap_or(Err(OpError::Deadline { maybe_applied: false }))?;
        seen.join(&asked.context.seen.unwrap_or_default());
        Ok(seen)
    }
}
