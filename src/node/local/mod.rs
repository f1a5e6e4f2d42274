//! What this node does by itself, with its own shards and disk. Whether other replicas have to be asked is decided above.

mod list;
mod reader;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorRef};
use tokio::sync::oneshot;

use super::jobs::JobGate;
use super::opening::{self, StartError};
use super::shards::inbox::Put;
use super::shards::messages::{Pending, Reply, ShardMessage, Work};
use super::shards::permits::{Permit, Permits};
use super::shards::spreading::{LocalShare, Others};
use super::shards::supervisor::{Serving, ShardDoor, Supervisor, SupervisorMessage};
use super::turns::{Turns, in_turn};
use super::watcher::{Watcher, changed_keys};
use super::{NodeConfig, OpError};
use crate::core::op::KeyedOp;
#[cfg(test)]
use crate::core::slot::SYSTEM_SLOT;
use crate::core::slot::{KeyHash, SlotId, shard_of, slot_of};
use crate::core::stamp::OriginId;
use crate::env::Env;
use crate::shard::{Damaged, Write, WriteContext, WriteKind};
use crate::store::cache::BlockCache;
use crate::store::reader::KeyReader;
use crate::store::segment::ReadError;
use crate::store::source::KeySource;
use crate::types::{Key, NodeId, RequestId, UserId};

pub use reader::LocalReader;
pub(super) use series::Spreading;

/// What became of an add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is durable now.
    Appended,
    /// The same request id had already been taken, and that is durable; nothing was added.
    Repeated,
}

/// Cheap to clone; all clones speak to the same shards.
#[derive(Clone)]
pub struct Local {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    env: Env,
    shards: u16,
    /// One per shard, and the system's last.
    doors: Arc<[ShardDoor]>,
    cache: Arc<BlockCache>,
    supervisor: ActorRef<SupervisorMessage>,
    life: Life,
    data_dir: std::path::PathBuf,
    files: JobGate,
    watcher: Watcher,
    turns: Turns,
}

/// Who this node is, as its data folder said when it was opened.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    pub node: NodeId,
    /// Of this start.
    pub origin: OriginId,
    /// Starts so far, this one included.
    pub starts: u64,
    /// Whether it waits for its first copy of what the others hold.
    pub is_new: bool,
    /// Whether the folder was made by this start.
    pub is_fresh: bool,
}

/// A write that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub user: &'a UserId,
    pub key: &'a Key,
    pub kind: WriteKind,
    pub request_id: Option<RequestId>,
}

impl Wanted<'_> {
    /// The key, if it is one of the system's.
    fn changed_key(&self) -> BTreeSet<Key> {
        let changed = self.user.is_system().then(|| self.key.clone());
        changed.into_iter().collect()
    }
}

impl Local {
    /// Opens the data folder and starts the node's actors.
    pub async fn start(env: Env, config: NodeConfig) -> Result<Self, StartError> {
        let data_dir = config.data.clone();
        let opened = opening::open_at_once(env.clone(), config).await?;
        let (shards, doors, cache) = (opened.identity.shards, opened.doors.clone(), opened.cache.clone());
        let (files, turns) = (opened.files.clone(), opened.turns.clone());
        let life = Life {
            node: opened.identity.node,
            origin: opened.identity.origin,
            starts: opened.identity.starts,
            is_new: opened.identity.is_new,
            is_fresh: opened.identity.fresh,
        };
        let (supervisor, _) = Actor::spawn(None, Supervisor, opened)
            .await
            .map_err(|error| StartError::Actor(error.to_string()))?;
        let inner = Inner {
            env,
            shards,
            doors,
            cache,
            supervisor,
            life,
            data_dir,
            files,
            watcher: Watcher::default(),
            turns,
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

    pub fn data_dir(&self) -> &std::path::Path {
        &self.inner.data_dir
    }

    /// To be taken while a file of the data folder itself is written: the folder stays locked until it is given back.
    pub(super) fn files(&self) -> &JobGate {
        &self.inner.files
    }

    pub fn life(&self) -> Life {
        self.inner.life
    }

    pub(super) fn env(&self) -> &Env {
        &self.inner.env
    }

    pub(super) fn block_cache(&self) -> &BlockCache {
        &self.inner.cache
    }

    pub(super) fn doors(&self) -> &[ShardDoor] {
        &self.inner.doors
    }

    pub(super) fn watcher(&self) -> &Watcher {
        &self.inner.watcher
    }

    pub(super) fn supervisor(&self) -> &ActorRef<SupervisorMessage> {
        &self.inner.supervisor
    }

    /// Puts the node's supervisor under another one, which hears when it ends.
    pub fn supervise_from(&self, supervisor: ActorCell) {
        self.inner.supervisor.link(supervisor);
    }

    /// The key's slot and hash, and the number of its shard's door.
    pub(super) fn locate(&self, user: &UserId, key: &Key) -> (SlotId, KeyHash, usize) {
        let hash = KeyHash::of(user, key);
        let slot = slot_of(user, hash);
        let shard = shard_of(slot, self.inner.shards);
        (slot, hash, usize::from(shard))
    }

    /// Carries out one write. Durable on Ok.
    pub async fn write(&self, wanted: Wanted<'_>, context: WriteContext) -> Result<Added, OpError> {
        let changed = wanted.changed_key();
        let (index, permit, write) = self.admit(wanted, context, Permits::take)?;
        self.put_watched(index, Work::Write(write, None), permit, changed).await
    }

    /// Starts one write on this node as one of several replicas. Once it has a dot and a stamp, the op also goes to
    /// `others`. The outcome on this node is reported through `share`.
    pub(super) fn begin_write(&self, wanted: Wanted<'_>, context: WriteContext, others: Others, share: LocalShare) {
        let changed = wanted.changed_key();
        let (index, permit, write) = match self.admit(wanted, context, Permits::take) {
            Ok(admitted) => admitted,
            Err(refused) => return share.end(Err(refused)),
        };
        let work = Work::Write(write, Some(others));
        if changed.is_empty() {
            let reply = Reply::Share(share);
            return self.put_in(index, Pending::alone(work, reply, permit));
        }
        let local = self.clone();
        tokio::spawn(async move { share.end(local.put_watched(index, work, permit, changed).await) });
    }

    fn admit(
        &self,
        wanted: Wanted<'_>,
        context: WriteContext,
        take: fn(&Permits, usize) -> Result<Permit, OpError>,
    ) -> Result<(usize, Permit, Write), OpError> {
        let (slot, hash, index) = self.locate(wanted.user, wanted.key);
        let bytes = match &wanted.kind {
            WriteKind::Add { text, .. } => text.len(),
            WriteKind::Clear | WriteKind::ClearDots(_) => 0,
        };
        let permit = take(&self.inner.doors[index].permits, bytes)?;
        let write = Write {
            slot,
            hash,
            user: wanted.user.clone(),
            key: wanted.key.clone(),
            kind: wanted.kind,
            request_id: wanted.request_id,
            context,
        };
        Ok((index, permit, write))
    }

    /// Holds ops that other replicas stamped. Durable on Ok.
    pub async fn apply(&self, ops: Vec<KeyedOp>) -> Result<(), OpError> {
        let shard = |op: &KeyedOp| usize::from(shard_of(op.op.dot.slot, self.inner.shards));
        // Mostly they are of one shard.
        let first = ops.first().map(shard);
        if let Some(index) = first.filter(|first| ops.iter().all(|op| shard(op) == *first)) {
            return self.apply_to(index, ops).await;
        }
        let mut by_shard: BTreeMap<usize, Vec<KeyedOp>> = BTreeMap::new();
        for op in ops {
            by_shard.entry(shard(&op)).or_default().push(op);
        }
        let puts = by_shard.into_iter().map(|(index, ops)| self.apply_to(index, ops));
        Box::pin(futures_util::future::try_join_all(puts)).await.map(|_| ())
    }

    async fn apply_to(&self, index: usize, ops: Vec<KeyedOp>) -> Result<(), OpError> {
        // Many come together, so their names take room too.
        let names = |op: &KeyedOp| op.user.as_str().len() + op.key.as_str().len();
        let bytes = ops.iter().map(|op| op.op.body.text_bytes() + names(op)).sum();
        let permit = self.inner.doors[index].replica_permits.take(bytes)?;
        let changed = changed_keys(&ops);
        self.put_watched(index, Work::Apply(ops), permit, changed).await?;
        Ok(())
    }

    pub(super) async fn put(&self, index: usize, work: Work, permit: Permit) -> Result<Added, OpError> {
        let (waiter, answer) = oneshot::channel();
        let reply = Reply::Waiter(waiter);
        self.put_in(index, Pending::alone(work, reply, permit));
        // A dropped reply means that the actor died with the write half done.
        let gone = OpError::ShardUnavailable { maybe_applied: true };
        answer.await.map_err(|_| gone)?
    }

    /// Its reply is given in any case.
    fn put_in(&self, index: usize, pending: Pending) {
        let refused = match &*self.inner.doors[index].serving() {
            Some(serving) => match serving.inbox.put(pending) {
                Put::Closed(pending) => *pending,
                Put::Behind => return,
                Put::First => {
                    // An actor that can no longer be told is ending, and closes its inbox.
                    let _ = serving.actor.cast(ShardMessage::Writes);
                    return;
                }
            },
            None => pending,
        };
        let gone = OpError::ShardUnavailable { maybe_applied: false };
        refused.reply.send(Err(gone));
    }

    fn source(&self, user: &UserId, key: &Key) -> Result<(KeySource, usize), OpError> {
        let (slot, hash, index) = self.locate(user, key);
        let source = self.inner.doors[index].with_reader(|reader| reader.key(slot, hash, user, key))?;
        Ok((source.map_err(damaged)?, index))
    }

    /// The values `offset..offset + limit` of the key's list as a stream; nothing beyond them is read into memory.
    pub fn get(&self, user: &UserId, key: &Key, offset: u64, limit: u64) -> Result<LocalReader, OpError> {
        let (source, _) = self.source(user, key)?;
        Ok(self.read(source, offset, limit))
    }

    /// Like [`get`](Self::get), of a snapshot that was taken before.
    pub fn read(&self, source: KeySource, offset: u64, limit: u64) -> LocalReader {
        LocalReader {
            node: self.inner.clone(),
            door: self.door_of(source.slot),
            reader: Some(KeyReader::new(source, offset, limit)),
        }
    }

    /// How many values the key's list has.
    pub async fn count(&self, user: &UserId, key: &Key) -> Result<u64, OpError> {
        let (source, _) = self.source(user, key)?;
        self.count_of(source).await
    }

    /// Like [`count`](Self::count), of a snapshot that was taken before.
    pub async fn count_of(&self, source: KeySource) -> Result<u64, OpError> {
        let door = self.door_of(source.slot);
        let mut reader = KeyReader::new(source, 0, u64::MAX);
        let counted = if reader.is_warm() {
            reader.count()
        } else {
            in_turn(&self.inner.turns.reads, &self.inner.env, move || reader.count()).await?
        };
        counted.map_err(|error| report(self.inner.doors[door].serving().as_deref(), error))
    }

    /// What `read` finds, which a write or another replica waits for.
    pub(super) async fn look_up<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OpError> {
        in_turn(&self.inner.turns.look_ups, &self.inner.env, read).await
    }

    pub(super) fn door_of(&self, slot: SlotId) -> usize {
        usize::from(shard_of(slot, self.inner.shards))
    }

    /// Whether every shard serves.
    pub fn is_ready(&self) -> bool {
        self.inner.doors.iter().all(ShardDoor::is_serving)
    }

    /// How long a commit takes now in the slowest shard; the system's own, which seldom commits, does not count.
    pub fn commit_time(&self) -> Duration {
        let shards = self.inner.doors.iter().take(usize::from(self.inner.shards));
        shards.map(|door| door.commit_time.mean()).max().unwrap_or_default()
    }

    /// Lets the actor of the shard that holds this key die, to see it come back.
    #[cfg(test)]
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

pub(super) fn damaged(lost: Damaged) -> OpError {
    OpError::Damaged(lost.to_string())
}

pub(super) fn report(serving: Option<&Serving>, error: ReadError) -> OpError {
    match (&error, serving) {
        (ReadError::Damaged(block), Some(serving)) => {
            let _ = serving.actor.cast(ShardMessage::Damage { segment: block.segment });
        }
        // Logged here: another replica may answer in its place, and nobody would hear of it.
        (ReadError::Io { .. }, _) => tracing::warn!(%error, "a read failed"),
        (ReadError::Damaged(_), None) => {}
    }
    error.into()
}
