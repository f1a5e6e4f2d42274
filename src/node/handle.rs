//! The handle of a running node: what the front and the users' service call.
//!
//! Where there are no other replicas, this node's own shards are all there is; else the cluster's coordinator says who has to be asked.

use std::time::Duration;

use ractor::ActorCell;

use super::cluster::Cluster;
use super::figures::{CacheFigures, ShardFigures};
use super::hedged::{self, Unsent, ValueReader};
use super::local::{Added, Local, Wanted};
use super::opening::StartError;
use super::replica::place_of;
use super::series::Add;
use super::watcher::SystemWatcher;
use super::{NodeConfig, OpError, Terms};
use crate::core::clock::Clock;
use crate::core::op::Text;
use crate::env::Env;
use crate::shard::{WriteContext, WriteKind};
use crate::store::keys::{KeyPage, KeyQuery};
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::types::{Key, RequestId, UserId};

/// Cheap to clone; all clones speak to the same node.
#[derive(Clone)]
pub struct Node {
    local: Local,
    cluster: Option<Cluster>,
}

impl Node {
    /// Opens the data folder and starts the node's actors; a member of a cluster begins to look for the others.
    pub async fn start(env: Env, config: NodeConfig) -> Result<Self, StartError> {
        let (cluster, limits) = (config.cluster.clone(), config.limits);
        let local = Local::start(env.clone(), config).await?;
        let cluster = match cluster {
            None => None,
            Some(config) => match Cluster::start(env, local.clone(), config, limits).await {
                Ok(cluster) => Some(cluster),
                Err(error) => {
                    local.stop().await;
                    return Err(error.into());
                }
            },
        };
        Ok(Self { local, cluster })
    }

    /// Finishes what was accepted, and stops all actors.
    pub async fn stop(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.stop().await;
        }
        self.local.stop().await;
    }

    /// Puts the node's supervisor under another one, which hears when it ends.
    pub fn supervise_from(&self, supervisor: ActorCell) {
        self.local.supervise_from(supervisor);
    }

    /// This node's own part.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Absent where there are no others.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Sets who is told, from here on, which system keys have changed, on whichever node that was. Only the first watcher counts.
    pub fn watch_system(&self, watcher: SystemWatcher) {
        self.local.watch_system(watcher);
    }

    async fn write(&self, wanted: Wanted<'_>, terms: Terms) -> Result<Added, OpError> {
        match &self.cluster {
            Some(cluster) => {
                let _at_work = cluster.begin_request();
                // Boxed, as the future of a request is moved a few times before it is polled: on a node of its own it is small.
                Box::pin(cluster.write(wanted, terms)).await
            }
            None => {
                let written = self.local.write(wanted, WriteContext::default());
                let written = tokio::time::timeout_at(terms.deadline, written).await;
                // A commit that hangs may end well yet.
                written.unwrap_or(Err(OpError::Deadline { maybe_applied: true }))
            }
        }
    }

    /// Appends `text` to the value being assembled, and finishes it when `finish`. Durable on Ok, as the terms say.
    pub async fn add(
        &self,
        user: &UserId,
        key: &Key,
        text: Text,
        finish: bool,
        request_id: Option<RequestId>,
        terms: Terms,
    ) -> Result<Added, OpError> {
        let wanted = Wanted {
            user,
            key,
            kind: WriteKind::Add { text, finish },
            request_id,
        };
        self.write(wanted, terms).await
    }

    /// Appends these adds in order, sharing commits where possible; the deadline covers all of them.
    ///
    /// Returns one result per add, but may return fewer than were given: the missing ones at the end were not begun
    /// and can be sent again freely. If one fails, all behind it count as failed.
    pub async fn add_series(
        &self,
        user: &UserId,
        key: &Key,
        adds: Vec<Add>,
        terms: Terms,
    ) -> Vec<Result<Added, OpError>> {
        // The watcher is told of each.
        if user.is_system() {
            return Vec::new();
        }
        let wanted = |Add {
                          text,
                          finish,
                          request_id,
                      }| Wanted {
            user,
            key,
            kind: WriteKind::Add { text, finish },
            request_id,
        };
        let adds: Vec<_> = adds.into_iter().map(wanted).collect();
        match &self.cluster {
            Some(cluster) => {
                let _at_work = cluster.begin_request();
                cluster.add_series(&adds, terms).await
            }
            None => self.local.write_series(adds, terms.deadline).await,
        }
    }

    /// Empties the key, unfinished parts too. Durable on Ok, as the terms say.
    pub async fn clear(
        &self,
        user: &UserId,
        key: &Key,
        request_id: Option<RequestId>,
        terms: Terms,
    ) -> Result<(), OpError> {
        let wanted = Wanted {
            user,
            key,
            kind: WriteKind::Clear,
            request_id,
        };
        self.write(wanted, terms).await.map(|_| ())
    }

    /// The ops that the key may have now, for `clear_seen`. Whatever is sent after this is none of them.
    pub async fn seen(&self, user: &UserId, key: &Key, terms: Terms) -> Result<Clock, OpError> {
        let mut seen = match &self.cluster {
            Some(cluster) => cluster.clock_of(user, key, terms).await?,
            None => self.local.clock(place_of(user, key).0)?,
        };
        // A loss that nobody could name is no op, and no other replica ever covers it.
        seen.remove_origin(UNKNOWN_ORIGIN);
        Ok(seen)
    }

    /// Removes from the key what `seen` told, and nothing else, whatever came meanwhile. Durable on Ok, as the terms say.
    pub async fn clear_seen(&self, user: &UserId, key: &Key, seen: Clock, terms: Terms) -> Result<(), OpError> {
        let wanted = Wanted {
            user,
            key,
            kind: WriteKind::ClearDots(seen),
            request_id: None,
        };
        self.write(wanted, terms).await.map(|_| ())
    }

    /// The values `offset..offset + limit` of the key's list as a stream; nothing beyond them is read into memory.
    pub async fn get(
        &self,
        user: &UserId,
        key: &Key,
        offset: u64,
        limit: u64,
        terms: Terms,
    ) -> Result<ValueReader, OpError> {
        match &self.cluster {
            Some(cluster) => {
                let _at_work = cluster.begin_request();
                Box::pin(cluster.get(user, key, offset, limit, terms)).await
            }
            None => {
                let reader = self.local.get(user, key, offset, limit)?;
                let unsent = Unsent {
                    deadline: terms.deadline,
                    elsewhere: None,
                };
                Ok(ValueReader::local(reader, Some(unsent)))
            }
        }
    }

    /// How many values the key's list has.
    pub async fn count(&self, user: &UserId, key: &Key, terms: Terms) -> Result<u64, OpError> {
        match &self.cluster {
            Some(cluster) => {
                let _at_work = cluster.begin_request();
                cluster.count(user, key, terms).await
            }
            None => hedged::by(terms.deadline, self.local.count(user, key)).await,
        }
    }

    /// The user's keys that start with `prefix` and come after `after`, at most `limit`: those with at least one finished value.
    pub async fn list_keys(
        &self,
        user: &UserId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        terms: Terms,
    ) -> Result<KeyPage, OpError> {
        let query = KeyQuery {
            user: user.clone(),
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit,
            all: false,
        };
        self.list(query, terms).await
    }

    /// The user's keys that come after `after` and hold anything, if only unfinished parts; at most `limit`. A key that was
    /// cleared, and not added to since, holds nothing.
    pub async fn list_all_keys(
        &self,
        user: &UserId,
        after: Option<&str>,
        limit: usize,
        terms: Terms,
    ) -> Result<KeyPage, OpError> {
        let query = KeyQuery {
            user: user.clone(),
            prefix: String::new(),
            after: after.map(str::to_owned),
            limit,
            all: true,
        };
        self.list(query, terms).await
    }

    async fn list(&self, query: KeyQuery, terms: Terms) -> Result<KeyPage, OpError> {
        match &self.cluster {
            Some(cluster) => {
                let _at_work = cluster.begin_request();
                cluster.list(query, terms).await
            }
            None => hedged::by(terms.deadline, self.local.list(query)).await,
        }
    }

    /// Whether every shard serves, and a member of a cluster was let in.
    pub fn takes_part(&self) -> bool {
        self.local.is_ready() && self.cluster.as_ref().is_none_or(Cluster::is_member)
    }

    /// Whether it serves: every shard does, and no disk hangs; a member of a cluster was let in, and a new cluster takes data.
    pub fn is_ready(&self) -> bool {
        self.why_not_ready().is_none()
    }

    /// Why it does not serve, if it does not.
    pub fn why_not_ready(&self) -> Option<String> {
        if !self.local.is_ready() {
            return Some("not every shard serves yet".to_owned());
        }
        if let Some(why) = self.local.why_stalled() {
            return Some(why);
        }
        let cluster = self.cluster.as_ref()?;
        match cluster.is_member() {
            true => cluster.why_no_data(),
            false => Some(cluster.why_no_member()),
        }
    }

    /// Why no other node should be taken down now, if none should: this one does not serve, or does not vote for some slot.
    pub fn why_not_counting(&self) -> Option<String> {
        let why = self.why_not_ready();
        why.or_else(|| self.cluster.as_ref()?.why_not_counting())
    }

    /// How long a commit takes now in the slowest shard; the system's own, which seldom commits, does not count.
    pub fn commit_time(&self) -> Duration {
        self.local.commit_time()
    }

    pub fn cache_figures(&self) -> CacheFigures {
        self.local.cache_figures()
    }

    /// Figures for metrics, as of the shards' last tick.
    pub fn figures(&self) -> Vec<ShardFigures> {
        self.local.figures()
    }

    /// Lets the actor of the shard that holds this key die, to see it come back.
    #[cfg(test)]
    pub fn kill_shard_of(&self, user: &UserId, key: &Key) {
        self.local.kill_shard_of(user, key);
    }
}
