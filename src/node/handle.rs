//! The handle of a running node: what the front and the users' service call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorRef};
use tokio::sync::oneshot;

use super::inbox::Put;
use super::messages::{PendingWrite, ShardMessage};
use super::opening::{self, StartError};
use super::supervisor::{Serving, ShardDoor, Supervisor, SupervisorMessage};
use super::{NodeConfig, OpError};
use crate::core::op::Text;
use crate::core::slot::{KeyHash, SYSTEM_SLOT, SlotId, shard_of, slot_of};
use crate::env::Env;
use crate::shard::{Damaged, ShardStats, Write, WriteKind};
use crate::store::keys::{KeyPage, KeyQuery};
use crate::store::reader::{Fragment, KeyReader};
use crate::store::segment::ReadError;
use crate::store::source::KeySource;
use crate::types::{Key, RequestId, UserId};

/// What became of an add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is durable now.
    Appended,
    /// The same request id had already been taken, and that is durable; nothing was added.
    Repeated,
}

/// Cheap to clone; all clones speak to the same node.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    shards: u16,
    /// One per shard, and the system's last.
    doors: Arc<[ShardDoor]>,
    supervisor: ActorRef<SupervisorMessage>,
    fresh: bool,
}

/// Figures of one shard, for metrics.
#[derive(Debug, Clone, Default)]
pub struct ShardFigures {
    /// `system` for the system's own.
    pub name: String,
    pub serving: bool,
    pub waiting_requests: u64,
    pub restarts: u64,
    pub stats: ShardStats,
}

impl Node {
    /// Opens the data folder and starts the node's actors.
    pub async fn start(env: Env, config: NodeConfig) -> Result<Self, StartError> {
        let opened = opening::open_at_once(env.clone(), config).await?;
        let (shards, doors, fresh) = (opened.identity.shards, opened.doors.clone(), opened.identity.fresh);
        let (supervisor, _) = Actor::spawn(None, Supervisor, opened)
            .await
            .map_err(|error| StartError::Actor(error.to_string()))?;
        let inner = Inner {
            env,
            shards,
            doors,
            supervisor,
            fresh,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Finishes what was accepted, and stops all actors.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.inner.supervisor.cast(SupervisorMessage::Stop { done }).is_ok() {
            // If the supervisor is gone already, so is everything below it.
            let _ = stopped.await;
        }
    }

    /// Puts the node's supervisor under another one, which hears when it ends.
    pub fn supervise_from(&self, supervisor: ActorCell) {
        self.inner.supervisor.link(supervisor);
    }

    /// Whether the data folder was made by this start.
    pub fn is_fresh(&self) -> bool {
        self.inner.fresh
    }

    /// The key's place, and the number of its shard's door.
    fn locate(&self, user: &UserId, key: &Key) -> (SlotId, KeyHash, usize) {
        let hash = KeyHash::of(user, key);
        let slot = slot_of(user, hash);
        let shard = shard_of(slot, self.inner.shards);
        (slot, hash, usize::from(shard))
    }

    /// Appends `text` to the value being assembled, and finishes it when `finish`. Durable on Ok.
    pub async fn add(
        &self,
        user: &UserId,
        key: &Key,
        text: Text,
        finish: bool,
        request_id: Option<RequestId>,
    ) -> Result<Added, OpError> {
        let bytes = text.len();
        self.write(user, key, WriteKind::Add { text, finish }, request_id, bytes)
            .await
    }

    /// Empties the key, unfinished parts too. Durable on Ok.
    pub async fn clear(&self, user: &UserId, key: &Key) -> Result<(), OpError> {
        self.write(user, key, WriteKind::Clear, None, 0).await.map(|_| ())
    }

    async fn write(
        &self,
        user: &UserId,
        key: &Key,
        kind: WriteKind,
        request_id: Option<RequestId>,
        bytes: usize,
    ) -> Result<Added, OpError> {
        let (slot, hash, index) = self.locate(user, key);
        let door = &self.inner.doors[index];
        let permit = door.permits.take(bytes)?;
        let write = Write {
            slot,
            hash,
            user: user.clone(),
            key: key.clone(),
            kind,
            request_id,
        };
        let (reply, answer) = oneshot::channel();
        let gone = |maybe_applied| OpError::ShardUnavailable { maybe_applied };
        {
            let serving = door.serving();
            let serving = serving.as_ref().ok_or(gone(false))?;
            match serving.inbox.put(PendingWrite { write, reply, permit }) {
                Put::Closed => return Err(gone(false)),
                Put::Behind => {}
                Put::First => {
                    // An actor that cannot be told any more is ending, and closes its inbox.
                    let _ = serving.actor.cast(ShardMessage::Writes);
                }
            }
        }
        // A dropped reply means that the actor died with the write half done.
        answer.await.map_err(|_| gone(true))?
    }

    fn source(&self, user: &UserId, key: &Key) -> Result<(KeySource, usize), OpError> {
        let (slot, hash, index) = self.locate(user, key);
        let source = self.inner.doors[index].with_reader(|reader| reader.key(slot, hash, user, key))?;
        Ok((source.map_err(damaged)?, index))
    }

    /// The values `offset..offset + limit` of the key's list as a stream; nothing beyond them is read into memory.
    pub async fn get(&self, user: &UserId, key: &Key, offset: u64, limit: u64) -> Result<ValueReader, OpError> {
        let (source, door) = self.source(user, key)?;
        Ok(ValueReader {
            node: self.inner.clone(),
            door,
            reader: Some(KeyReader::new(source, offset, limit)),
        })
    }

    /// How many values the key's list has.
    pub async fn count(&self, user: &UserId, key: &Key) -> Result<u64, OpError> {
        let (source, door) = self.source(user, key)?;
        let mut reader = KeyReader::new(source, 0, u64::MAX);
        let counted = if reader.is_warm() {
            reader.count()
        } else {
            self.inner.env.run_blocking(move || reader.count()).await?
        };
        counted.map_err(|error| report(self.inner.doors[door].serving().as_deref(), error))
    }

    /// The user's keys that start with `prefix` and come after `after`, at most `limit`: those with at least one finished value.
    pub async fn list_keys(
        &self,
        user: &UserId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, OpError> {
        self.list(KeyQuery {
            user: user.clone(),
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit,
            all: false,
        })
        .await
    }

    /// The user's keys that come after `after` and hold anything, if only unfinished parts; at most `limit`. A key that was
    /// cleared, and not added to since, holds nothing.
    pub async fn list_all_keys(&self, user: &UserId, after: Option<&str>, limit: usize) -> Result<KeyPage, OpError> {
        self.list(KeyQuery {
            user: user.clone(),
            prefix: String::new(),
            after: after.map(str::to_owned),
            limit,
            all: true,
        })
        .await
    }

    async fn list(&self, query: KeyQuery) -> Result<KeyPage, OpError> {
        let (shards, doors) = (usize::from(self.inner.shards), &self.inner.doors);
        let asked = if query.user.is_system() {
            &doors[shards..]
        } else {
            &doors[..shards]
        };
        let mut keys = Vec::new();
        // A page of one shard may end early; what others have beyond that point belongs to the next page.
        let mut bound: Option<Key> = None;
        for door in asked {
            let (reader, one) = (door.reader()?, query.clone());
            let listed = self.inner.env.run_blocking(move || match reader.keys(one) {
                Ok(lister) => lister.list().map_err(Ok),
                Err(lost) => Err(Err(lost)),
            });
            let page = listed.await?.map_err(|error| match error {
                Ok(error) => report(door.serving().as_deref(), error),
                Err(lost) => damaged(lost),
            })?;
            bound = match (bound, page.next_after) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            keys.extend(page.keys);
        }
        keys.sort_unstable();
        if let Some(bound) = &bound {
            keys.retain(|key| key <= bound);
        }
        if keys.len() > query.limit {
            keys.truncate(query.limit);
            bound = keys.last().cloned();
        }
        Ok(KeyPage {
            keys,
            next_after: bound,
        })
    }

    /// Whether every shard serves.
    pub fn is_ready(&self) -> bool {
        self.inner.doors.iter().all(ShardDoor::is_serving)
    }

    /// How long a commit takes now, where it takes longest. The system's own shard aside, which seldom commits.
    pub fn commit_time(&self) -> Duration {
        let shards = self.inner.doors.iter().take(usize::from(self.inner.shards));
        shards.map(|door| door.commit_time.mean()).max().unwrap_or_default()
    }

    /// Figures for metrics, as of the shards' last tick.
    pub fn figures(&self) -> Vec<ShardFigures> {
        let name = |index: usize| {
            if index == usize::from(self.inner.shards) {
                "system".to_owned()
            } else {
                index.to_string()
            }
        };
        let doors = self.inner.doors.iter().enumerate();
        doors
            .map(|(index, door)| ShardFigures {
                name: name(index),
                serving: door.is_serving(),
                waiting_requests: door.permits.waiting() as u64,
                restarts: door.restarts.load(Ordering::Relaxed),
                stats: door.stats.lock().map(|stats| stats.clone()).unwrap_or_default(),
            })
            .collect()
    }

    /// Lets the actor of the shard that holds this key die, to see it come back.
    pub fn kill_shard_of(&self, user: &UserId, key: &Key) {
        let (slot, ..) = self.locate(user, key);
        let index = if slot == SYSTEM_SLOT {
            self.inner.shards
        } else {
            shard_of(slot, self.inner.shards)
        };
        let _ = self.inner.supervisor.cast(SupervisorMessage::KillShard { index });
    }
}

fn damaged(lost: Damaged) -> OpError {
    OpError::Damaged(lost.to_string())
}

fn report(serving: Option<&Serving>, error: ReadError) -> OpError {
    if let (ReadError::Damaged(block), Some(serving)) = (&error, serving) {
        let _ = serving.actor.cast(ShardMessage::Damage { segment: block.segment });
    }
    error.into()
}

/// A snapshot of one key's list, read piece by piece.
pub struct ValueReader {
    node: Arc<Inner>,
    /// The shard that it reads from, which hears of damage.
    door: usize,
    /// Absent after an error, and while a read of it was abandoned.
    reader: Option<KeyReader>,
}

impl ValueReader {
    /// The next fragments, together about `budget_bytes` of text (always at least one fragment); empty at the end.
    pub async fn next(&mut self, budget_bytes: usize) -> Result<Vec<Fragment>, OpError> {
        let Some(mut reader) = self.reader.take() else {
            return Err(OpError::ShuttingDown);
        };
        let batch = if reader.is_warm() {
            let batch = reader.next_batch(budget_bytes);
            self.reader = Some(reader);
            batch
        } else {
            let (reader, batch) = self
                .node
                .env
                .run_blocking(move || {
                    let batch = reader.next_batch(budget_bytes);
                    (reader, batch)
                })
                .await?;
            self.reader = Some(reader);
            batch
        };
        batch.map_err(|error| {
            self.reader = None;
            report(self.node.doors[self.door].serving().as_deref(), error)
        })
    }
}
