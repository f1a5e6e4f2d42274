//! Answers to who reads through this node, lists its keys, or takes from it what it lacks.

use std::sync::Arc;
use std::time::Duration;

use super::opened::{OpenId, get, put};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Body, Fragment};
use crate::core::slot::SYSTEM_SLOT;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::{refused, terms_of};
use crate::node::hedged::{self, Unsent, ValueReader};
use crate::node::{OpError, Terms};
use crate::planted::{Bug, planted};
use crate::store::keys::KeyQuery;
use crate::types::NodeId;
use crate::types::{Key, UserId};
use crate::wire::{Response, WireClock, WireClocks, WireFragment, WireOp, WireTerms};

/// Text in one page of a pull, bytes, whatever is asked for.
const PULL_BYTES_MAX: usize = 1 << 20;

impl Inner {
    pub(super) async fn answer_sync_key(
        &self,
        from: NodeId,
        user: &UserId,
        key: &Key,
        known: Clock,
    ) -> Result<Response, OpError> {
        let (slot, _) = crate::node::replica::place_of(user, key);
        // The clock first: what comes in between is sent, and sent once more by who asks.
        let clock = self.local.clock(slot)?;
        let (source, _) = self.local.source_at_digest(user, key)?;
        let mut lacking = self.local.lacking(source, known);
        let (ops, more) = lacking.next(self.pages.key_bytes).await?;
        Ok(Response::SyncedKey {
            votes: self.votes_for(slot, from),
            clock: WireClock::of(&clock),
            ops: ops.iter().map(WireOp::of).collect(),
            more,
        })
    }

    pub(super) async fn answer_read(
        self: &Arc<Self>,
        id: OpenId,
        (user, key): &(UserId, Key),
        range: (u64, u64),
        terms: WireTerms,
    ) -> Result<Response, OpError> {
        let opened = self.open_reader(user, key, range, terms).await?;
        put(&self.serving.readers, id, opened);
        self.read_on(id, usize::MAX).await
    }

    async fn open_reader(
        self: &Arc<Self>,
        user: &UserId,
        key: &Key,
        (offset, limit): (u64, u64),
        terms: WireTerms,
    ) -> Result<ValueReader, OpError> {
        let terms = terms_of(terms);
        let source = self.source(user, key, terms).await?;
        // Sent here by a node with another member table: it is told to look elsewhere.
        let source = source.ok_or(OpError::ShardUnavailable { maybe_applied: false })?;
        let offset = if planted(Bug::PageOffsetForgotten) { 0 } else { offset };
        let unsent = Unsent {
            deadline: terms.deadline,
            // Who sent it here asks the next one where this disk is damaged.
            elsewhere: None,
        };
        Ok(ValueReader::local(self.local.read(source, offset, limit), Some(unsent)))
    }

    pub(super) async fn read_on(&self, id: OpenId, budget_bytes: usize) -> Result<Response, OpError> {
        let gone = OpError::ShardUnavailable { maybe_applied: false };
        let reader = get(&self.serving.readers, id).ok_or(gone)?;
        let budget_bytes = budget_bytes.min(self.pages.reader_bytes);
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

    pub(super) fn end_read(&self, id: OpenId) -> Response {
        self.serving.readers.lock().remove(&id);
        Response::Done
    }

    pub(super) async fn answer_count(
        self: &Arc<Self>,
        (user, key): &(UserId, Key),
        terms: WireTerms,
    ) -> Result<Response, OpError> {
        let terms = terms_of(terms);
        let source = self.source(user, key, terms).await?;
        let source = source.ok_or(OpError::ShardUnavailable { maybe_applied: false })?;
        let counted = hedged::by(terms.deadline, self.local.count_of(source));
        Ok(Response::Count(counted.await?))
    }

    pub(super) fn begin_pull(&self, id: OpenId, wants: &SlotClocks) -> Result<Response, OpError> {
        put(&self.serving.pulls, id, self.local.export(wants)?);
        Ok(Response::Done)
    }

    pub(super) async fn pull_on(&self, id: OpenId, budget_bytes: usize) -> Result<Response, OpError> {
        let gone = OpError::ShardUnavailable { maybe_applied: false };
        let pull = get(&self.serving.pulls, id).ok_or(gone)?;
        let mut export = pull.lock().await;
        let page = export.next(budget_bytes.min(PULL_BYTES_MAX)).await?;
        // Not with the last ops: each of the two alone may be as long as a message.
        let covered = page.is_none().then(|| WireClocks::of(export.covered()));
        let mut ops = page.unwrap_or_default();
        if planted(Bug::CatchUpSkipsLast) {
            ops.pop_if(|last| last.op.dot.slot != SYSTEM_SLOT);
        }
        if planted(Bug::CatchUpSkipsParts) {
            ops.pop_if(|last| matches!(last.op.body, Body::Part(_)));
        }
        let mut times = Vec::new();
        if covered.is_some() {
            times = self.times_of(export.covered())?;
            self.serving.pulls.lock().remove(&id);
        }
        Ok(Response::Pulled {
            ops: ops.iter().map(WireOp::of).collect(),
            covered,
            times,
        })
    }

    pub(super) async fn answer_list(
        &self,
        from: NodeId,
        user: &str,
        (prefix, after, limit): (String, Option<String>, usize),
        all: bool,
        left_ms: u32,
    ) -> Result<Response, OpError> {
        if !self.may_list() || !self.lives.is_introduced(from) {
            return Err(OpError::ShardUnavailable { maybe_applied: false });
        }
        let query = KeyQuery {
            user: crate::wire::user_of(user).map_err(refused)?,
            prefix,
            after,
            limit,
            all,
        };
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
