//! The node's supervisor: starts the shard actors, and starts one again from its files when it dies, while the node goes on.
//!
//! ractor's default on a child's end is to stop the parent; here the child is reopened, after all its jobs are done and after a
//! pause that doubles with each failure in a row.
//!
//! Invariant: the supervisor itself never waits for the disk. A disk that hangs under one shard must not keep it from the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::Mutex;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::commit_time::CommitTime;
use super::inbox::Inbox;
use super::messages::{ShardArguments, ShardMessage};
use super::news::PendingNews;
use super::permits::{Limits, Permits};
use super::refused::Refused;
use super::shard_actor::ShardActor;
use crate::env::Env;
use crate::node::OpError;
use crate::node::folder::identity::{FolderLock, Identity};
use crate::node::folder::identity_keeper::IdentityKeeper;
use crate::node::jobs::JobGate;
use crate::node::opening::Plan;
use crate::node::turns::Turns;
use crate::shard::{Shard, ShardReader, ShardStats};
use crate::store::cache::BlockCache;

const RESTART_PAUSE_MS: u64 = 50;
const RESTART_PAUSE_MS_MAX: u64 = 5_000;
/// A shard that served for so long failed for a new reason: the pauses begin anew.
const STEADY_MS: u64 = 10_000;
/// How long a stopping node waits for a shard to finish what it accepted.
const STOP_MS_MAX: u64 = 30_000;

/// What serves a shard now.
pub struct Serving {
    pub actor: ActorRef<ShardMessage>,
    pub inbox: Arc<Inbox>,
    pub news: Arc<PendingNews>,
    pub reader: ShardReader,
}

/// How the rest of the node reaches one shard, whichever actor runs it now.
pub struct ShardDoor {
    serving: ArcSwapOption<Serving>,
    pub permits: Permits,
    /// For ops that other replicas stamped: those whose clients wait elsewhere are not refused because this node has many of its own.
    pub replica_permits: Permits,
    pub stats: Arc<Mutex<ShardStats>>,
    pub commit_time: Arc<CommitTime>,
    pub restarts: AtomicU64,
    /// Ops with these dots are not taken, whichever actor runs the shard.
    pub refused: Refused,
    gate: JobGate,
}

impl ShardDoor {
    pub fn new(limits: Limits) -> Self {
        Self {
            serving: ArcSwapOption::default(),
            permits: Permits::new(limits),
            replica_permits: Permits::new(limits),
            stats: Arc::default(),
            commit_time: Arc::default(),
            restarts: AtomicU64::new(0),
            refused: Refused::default(),
            gate: JobGate::default(),
        }
    }

    /// Absent while the actor is being started again.
    pub fn serving(&self) -> Guard<Option<Arc<Serving>>> {
        self.serving.load()
    }

    /// Fails while the shard is being reopened.
    pub fn reader(&self) -> Result<ShardReader, OpError> {
        self.with_reader(ShardReader::clone)
    }

    /// What `read` finds; fails while the shard is being reopened.
    pub fn with_reader<T>(&self, read: impl FnOnce(&ShardReader) -> T) -> Result<T, OpError> {
        let serving = self.serving();
        let gone = OpError::ShardUnavailable { maybe_applied: false };
        Ok(read(&serving.as_ref().ok_or(gone)?.reader))
    }

    pub fn is_serving(&self) -> bool {
        self.serving().is_some()
    }
}

pub enum SupervisorMessage {
    /// A shard was reopened, or could not be.
    Reopened {
        index: u16,
        result: Result<Box<Shard>, String>,
    },
    /// Finish what was accepted and end.
    Stop { done: oneshot::Sender<()> },
    /// Whether the node waits for its first copy of what the others hold; answered when that is durable.
    SetNew {
        /// As it was, if absent.
        is_new: Option<bool>,
        /// At least so many starts there were.
        starts: u64,
        done: oneshot::Sender<Result<(), String>>,
    },
    /// No shard gives out the next name of the origin that it has: all are reopened.
    RenewOrigins,
    /// Let a shard's actor die.
    #[cfg(test)]
    KillShard { index: u16 },
}

pub struct SupervisorArguments {
    pub env: Env,
    pub doors: Arc<[ShardDoor]>,
    /// Of all shards; for its figures.
    pub cache: Arc<BlockCache>,
    pub turns: Turns,
    pub identity: Identity,
    /// What is under way of the files of the folder itself.
    pub files: JobGate,
    /// Without a shard where it could not be opened.
    pub shards: Vec<(Plan, Option<Shard>)>,
}

impl SupervisorArguments {
    /// The shards with their folders; none where it could not be opened.
    pub fn shards_mut(&mut self) -> impl Iterator<Item = (&std::path::Path, Option<&mut Shard>)> {
        self.shards
            .iter_mut()
            .map(|(plan, shard)| (plan.place.dir.as_path(), shard.as_mut()))
    }
}

pub struct SupervisorState {
    env: Env,
    doors: Arc<[ShardDoor]>,
    turns: Turns,
    identity: Arc<IdentityKeeper>,
    lock: FolderLock,
    plans: Vec<Plan>,
    running: BTreeMap<ActorId, u16>,
    /// Failures in a row, and when the shard last began to serve.
    failures: Vec<u32>,
    serving_since: Vec<Instant>,
    /// Set for good before the shards are told to stop; those who open a shard anew look at it when they hold its gate.
    stopping: Arc<AtomicBool>,
}

pub struct Supervisor;

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        me: ActorRef<SupervisorMessage>,
        mut arguments: SupervisorArguments,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let mut state = SupervisorState {
            env: arguments.env,
            doors: arguments.doors,
            turns: arguments.turns,
            lock: arguments.identity.take_lock(),
            identity: Arc::new(IdentityKeeper::new(arguments.identity, arguments.files)),
            failures: vec![0; arguments.shards.len()],
            serving_since: vec![Instant::now(); arguments.shards.len()],
            plans: arguments.shards.iter().map(|(plan, _)| plan.clone()).collect(),
            running: BTreeMap::new(),
            stopping: Arc::default(),
        };
        for (plan, shard) in arguments.shards {
            match shard {
                Some(shard) => state.spawn(&me, plan.index, shard).await?,
                None => state.reopen(&me, plan.index),
            }
        }
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Reopened { index, result } => state.reopened(&me, index, result).await?,
            SupervisorMessage::Stop { done } => {
                state.stopping.store(true, Ordering::Release);
                match state.stop_shards().await {
                    true => state.lock.unlock(),
                    false => state.lock.stay_locked(),
                }
                let _ = done.send(());
                me.stop(None);
            }
            SupervisorMessage::SetNew { is_new, starts, done } => {
                state.identity.set_new(&state.env, is_new, starts, |saved| {
                    let _ = done.send(saved.map_err(|error| error.to_string()));
                });
            }
            SupervisorMessage::RenewOrigins => {
                // One that dies is reopened, and takes another origin then.
                let serving = state.doors.iter().filter_map(|door| door.serving.load_full());
                serving.for_each(|serving| serving.actor.kill());
            }
            #[cfg(test)]
            SupervisorMessage::KillShard { index } => {
                let door = state.doors.get(usize::from(index));
                if let Some(serving) = door.and_then(|door| door.serving.load_full()) {
                    serving.actor.kill();
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (who, why) = match event {
            SupervisionEvent::ActorFailed(who, error) => (who, error.to_string()),
            SupervisionEvent::ActorTerminated(who, _, reason) => (who, reason.unwrap_or_else(|| "it ended".to_owned())),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        if let Some(index) = state.running.remove(&who.get_id()) {
            state.ended(&me, index, &why);
        }
        Ok(())
    }
}

impl SupervisorState {
    async fn spawn(
        &mut self,
        me: &ActorRef<SupervisorMessage>,
        index: u16,
        shard: Shard,
    ) -> Result<(), ActorProcessingErr> {
        let door = &self.doors[usize::from(index)];
        let (inbox, news, reader) = (Arc::<Inbox>::default(), Arc::<PendingNews>::default(), shard.reader());
        let arguments = ShardArguments {
            shard,
            env: self.env.clone(),
            gate: door.gate.clone(),
            look_ups: self.turns.look_ups.clone(),
            inbox: inbox.clone(),
            news: news.clone(),
            stats: door.stats.clone(),
            commit_time: door.commit_time.clone(),
            refused: door.refused.clone(),
        };
        // No name: ractor's registry is global to the process, and one process may hold many nodes.
        let (actor, _) = Actor::spawn_linked(None, ShardActor, arguments, me.get_cell()).await?;
        self.running.insert(actor.get_id(), index);
        self.serving_since[usize::from(index)] = Instant::now();
        door.serving.store(Some(Arc::new(Serving {
            actor,
            inbox,
            news,
            reader,
        })));
        Ok(())
    }

    fn ended(&mut self, me: &ActorRef<SupervisorMessage>, index: u16, why: &str) {
        let door = &self.doors[usize::from(index)];
        door.serving.store(None);
        if self.stopping.load(Ordering::Acquire) {
            return;
        }
        door.restarts.fetch_add(1, Ordering::Relaxed);
        if self.serving_since[usize::from(index)].elapsed() > Duration::from_millis(STEADY_MS) {
            self.failures[usize::from(index)] = 0;
        }
        tracing::error!(shard = index, why, "a shard died; it is opened anew from its files");
        self.reopen(me, index);
    }

    fn reopen(&mut self, me: &ActorRef<SupervisorMessage>, index: u16) {
        let failures = &mut self.failures[usize::from(index)];
        let pause_ms = (RESTART_PAUSE_MS << (*failures).min(10)).min(RESTART_PAUSE_MS_MAX);
        *failures += 1;
        let (me, env, gate) = (
            me.clone(),
            self.env.clone(),
            self.doors[usize::from(index)].gate.clone(),
        );
        let (plan, identity) = (self.plans[usize::from(index)].clone(), self.identity.clone());
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let held = gate.quiet().await;
            if stopping.load(Ordering::Acquire) {
                return;
            }
            // All that waits for the disk is done here, and holds the gate: the supervisor has others to see to meanwhile.
            let opened = {
                let env = env.clone();
                env.clone().run_blocking(move || plan.open_again(&identity, &env)).await
            };
            let result = match opened {
                Ok(Ok(shard)) => Ok(Box::new(shard)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            // The new actor's jobs go through it.
            drop(held);
            let _ = me.cast(SupervisorMessage::Reopened { index, result });
        });
    }

    async fn reopened(
        &mut self,
        me: &ActorRef<SupervisorMessage>,
        index: u16,
        result: Result<Box<Shard>, String>,
    ) -> Result<(), ActorProcessingErr> {
        if self.stopping.load(Ordering::Acquire) {
            return Ok(());
        }
        match result {
            Ok(shard) => {
                self.spawn(me, index, *shard).await?;
                tracing::info!(shard = index, "the shard serves again");
            }
            Err(error) => {
                tracing::error!(shard = index, error, "the shard cannot be opened; it is tried again");
                self.reopen(me, index);
            }
        }
        Ok(())
    }

    /// Whether all of them are at rest.
    async fn stop_shards(&mut self) -> bool {
        let mut waits = Vec::new();
        for door in self.doors.iter() {
            let (done, stopped) = oneshot::channel();
            if let Some(serving) = &*door.serving()
                && serving.actor.cast(ShardMessage::Stop { done }).is_ok()
            {
                waits.push(stopped);
            }
        }
        let all = async {
            for wait in waits {
                // A shard that died instead has dropped its end.
                let _ = wait.await;
            }
            for door in self.doors.iter() {
                drop(door.gate.quiet().await);
            }
            drop(self.identity.gate.quiet().await);
        };
        let in_time = tokio::time::timeout(Duration::from_millis(STOP_MS_MAX), all).await;
        if in_time.is_err() {
            tracing::warn!("some shards did not finish in time; what they had acknowledged is safe");
        }
        in_time.is_ok()
    }
}
