//! Listing keys: every node lists what it holds, and where the replicas of a key do not agree, the key is read at a quorum.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use super::outcome::Taken;
use super::write::{Begun, Try};
use crate::core::slot::{SLOT_COUNT, SYSTEM_SLOT, SlotId};
use crate::node::cluster::calls::{HEDGE, wire_terms};
use crate::node::cluster::{Cluster, Inner};
use crate::node::local::{Added, Wanted};
use crate::node::peers::Peer;
use crate::node::replica::place_of;
use crate::node::{OpError, Terms};
use crate::planted::{Bug, planted};
use crate::shard::{WriteContext, WriteKind};
use crate::store::keys::{KeyPage, KeyQuery};
use crate::types::{Consistency, Key, NodeId, UserId};
use crate::wire::{Request, Response};

/// A peer is given so much longer, milliseconds: if it gave up first, that would pass for a failure of its own.
const LATE_MS: u32 = 100;

/// What one node listed.
struct Listed {
    node: NodeId,
    keys: Vec<Key>,
    next_after: Option<Key>,
}

impl Cluster {
    /// A page of the user's keys.
    pub async fn list(&self, query: KeyQuery, terms: Terms) -> Result<KeyPage, OpError> {
        self.inner.refuse_if_outside(&query.user)?;
        let user = query.user.clone();
        let listed = tokio::time::timeout_at(terms.deadline, self.inner.list(query, terms)).await;
        let listed = listed.unwrap_or(Err(OpError::Deadline { maybe_applied: false }));
        self.inner.counted(&user, listed)
    }
}

impl Inner {
    async fn list(&self, query: KeyQuery, terms: Terms) -> Result<KeyPage, OpError> {
        if self.layout().table.is_empty() {
            return Err(OpError::NotReady(self.why_no_member()));
        }
        let listed = self.list_everywhere(&query, terms).await?;
        // A page of one node may end early; what others have beyond that point belongs to the next page.
        let mut bound = listed.iter().filter_map(|one| one.next_after.clone()).min();
        let mut found: BTreeMap<Key, Vec<NodeId>> = BTreeMap::new();
        for one in &listed {
            for key in one
                .keys
                .iter()
                .filter(|key| bound.as_ref().is_none_or(|bound| *key <= bound))
            {
                found.entry(key.clone()).or_default().push(one.node);
            }
        }
        let mut keys = Vec::new();
        for (key, by) in found {
            if keys.len() >= query.limit {
                if !planted(Bug::ListBoundForgotten) {
                    bound = keys.last().cloned();
                }
                break;
            }
            if self.is_listed(&query, &key, &by, &listed, terms).await? {
                keys.push(key);
            }
        }
        Ok(KeyPage {
            keys,
            next_after: bound,
        })
    }

    /// The lists of as many nodes as the level asks for; the others get a moment more.
    async fn list_everywhere(&self, query: &KeyQuery, terms: Terms) -> Result<Vec<Listed>, OpError> {
        let level = terms.consistency;
        let layout = self.layout();
        let members: Vec<NodeId> = layout.table.up().map(|(node, _)| node).collect();
        let own = self.list_here(query.clone()).boxed();
        let others = self.up_peers(&members).into_iter();
        let others = others.map(|peer| list_there(peer, query, terms).map(Ok).boxed());
        let mut asked: FuturesUnordered<_> = others.chain([own]).collect();
        let (mut listed, mut own_error) = (Vec::new(), None);
        let mut is_enough = false;
        while let Some(one) = match is_enough {
            false => asked.next().await,
            true => timeout(HEDGE, asked.next()).await.unwrap_or_default(),
        } {
            match one {
                Ok(one) => listed.extend(one),
                Err(error) => own_error = Some(error),
            }
            is_enough = is_enough || self.lacks(&listed, level).is_none();
        }
        match (self.lacks(&listed, level), own_error) {
            (None, _) => Ok(listed),
            (Some(_), Some(error)) if listed.is_empty() => Err(error),
            (Some((needed, answered)), _) => Err(self.no_quorum(needed, answered, false)),
        }
    }

    /// None if this node does not vote.
    async fn list_here(&self, query: KeyQuery) -> Result<Option<Listed>, OpError> {
        let page = self.local.list(query).await?;
        Ok(self.may_list().then_some(Listed {
            node: self.me,
            keys: page.keys,
            next_after: page.next_after,
        }))
    }

    /// A slot of which fewer replicas listed their keys than the level asks for, if there is one: how many are needed, and how many there
    /// were.
    fn lacks(&self, listed: &[Listed], level: Consistency) -> Option<(usize, usize)> {
        let layout = self.layout();
        let nodes: BTreeSet<NodeId> = listed.iter().map(|one| one.node).collect();
        (0..SLOT_COUNT).find_map(|slot| {
            let replicas = layout.placement.replicas(SlotId(slot));
            let answered = replicas.iter().filter(|node| nodes.contains(node)).count();
            let needed = level.needed(replicas.len());
            (answered < needed).then_some((needed, answered))
        })
    }

    /// Whether a key that the nodes `by` listed belongs to the page.
    async fn is_listed(
        &self,
        query: &KeyQuery,
        key: &Key,
        by: &[NodeId],
        listed: &[Listed],
        terms: Terms,
    ) -> Result<bool, OpError> {
        if query.all {
            return Ok(true);
        }
        let (slot, _) = place_of(&query.user, key);
        let layout = self.layout();
        let replicas = layout.placement.replicas(slot);
        // Decided as a list by only those that agree would be: where all of three were asked, one that is behind decides nothing.
        let needed = terms.consistency.needed(replicas.len());
        let voices = listed.iter().filter(|one| replicas.contains(&one.node));
        let (shows, hides): (Vec<_>, Vec<_>) = voices.partition(|one| by.contains(&one.node));
        if shows.len() >= needed || hides.len() >= needed {
            return Ok(shows.len() >= needed);
        }
        Ok(Box::pin(self.count(&query.user, key, terms)).await? > 0)
    }

    /// Adds a value under a key of the system's own range, at a quorum of these nodes, of which this is one.
    pub(in crate::node::cluster) async fn add_system_value(
        &self,
        key: &Key,
        text: String,
        nodes: &[NodeId],
    ) -> Result<(), OpError> {
        let terms = Terms::usual();
        let taken = Taken::default();
        let begun = Begun::new(&taken);
        let system = UserId::system();
        let wanted = system_value(&system, key, text);
        let added = self.coordinate(wanted, SYSTEM_SLOT, nodes, Try::First, terms.consistency, &begun);
        in_time(added, terms).await
    }

    /// Like [`add_system_value`](Self::add_system_value), where there is no other node yet.
    pub(in crate::node::cluster) async fn add_alone(
        &self,
        key: &Key,
        text: String,
        terms: Terms,
    ) -> Result<(), OpError> {
        let system = UserId::system();
        let wanted = system_value(&system, key, text);
        let added = self.local.write(wanted, WriteContext::default());
        in_time(added, terms).await
    }
}

/// None if there is no answer, or the peer does not vote.
async fn list_there(peer: Peer, query: &KeyQuery, terms: Terms) -> Option<Listed> {
    let call = peer.call_in_turn(|| Request::ListKeys {
        user: query.user.as_str().to_owned(),
        prefix: query.prefix.clone(),
        after: query.after.clone(),
        limit: u32::try_from(query.limit).unwrap_or(u32::MAX),
        all: query.all,
        left_ms: wire_terms(terms).left_ms.saturating_add(LATE_MS),
    });
    let Ok(Response::Keys { keys, next_after }) = call.await else {
        return None;
    };
    let key = |text: String| Key::new(&text).ok();
    Some(Listed {
        node: peer.node(),
        keys: keys.into_iter().filter_map(key).collect(),
        next_after: next_after.and_then(key),
    })
}

fn system_value<'a>(system: &'a UserId, key: &'a Key, text: String) -> Wanted<'a> {
    Wanted {
        user: system,
        key,
        kind: WriteKind::Add {
            text: text.into(),
            finish: true,
        },
        request_id: None,
    }
}

async fn in_time(added: impl Future<Output = Result<Added, OpError>>, terms: Terms) -> Result<(), OpError> {
    let added = tokio::time::timeout_at(terms.deadline, added).await;
    added
        .unwrap_or(Err(OpError::Deadline { maybe_applied: true }))
        .map(|_| ())
}
