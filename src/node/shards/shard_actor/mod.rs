//! The actor around a shard: takes messages, hands the shard's jobs to where they may block, and answers.
//!
//! Invariant: an answer to a write is sent only when its group is durable. When the actor ends, every caller still waiting gets
//! `ShardUnavailable`, by its reply channel being dropped; one whose write was not taken from the inbox yet hears that too.

mod intake;
mod looking;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use intake::Parked;
use looking::Looking;
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use super::commit_time::CommitTime;
use super::inbox::Inbox;
use super::messages::{Reply, ShardArguments, ShardMessage};
use super::news::PendingNews;
use super::permits::Permit;
use super::refused::Refused;
use super::spreading::{self, Stamped};
use crate::env::{Abandoned, Env};
use crate::node::OpError;
use crate::node::jobs::{JobGate, Report};
use crate::node::local::Added;
use crate::planted::{Bug, planted};
use crate::shard::{GroupNumber, MergeEnd, MergeJob, MergeOutcome, Shard, ShardStats};

/// How often a shard looks for work that only time makes due.
const TICK_MS: u64 = 1000;
/// Between two steps of a merge that nobody waits for, so that what clients need of the disk comes in between.
const MERGE_PAUSE_MS: u64 = 2;

/// Someone who waits for a group.
struct Waiting {
    group: GroupNumber,
    added: Added,
    reply: Reply,
    _permit: Permit,
}

pub struct ShardState {
    shard: Shard,
    env: Env,
    gate: JobGate,
    inbox: Arc<Inbox>,
    news: Arc<PendingNews>,
    /// A `Commit` is on its way.
    commit_asked: bool,
    /// The last group was not one write alone.
    several_write: bool,
    stats: Arc<Mutex<ShardStats>>,
    commit_time: Arc<CommitTime>,
    refused: Refused,
    /// In the order of their groups.
    waiting: VecDeque<Waiting>,
    /// Writes that wait for log space, in the order they came.
    parked: VecDeque<Parked>,
    /// Writes whose key's past is looked up.
    looking: Looking,
    /// Ops that have a name, and have not been sent to those others that are to have them.
    stamped: Vec<Stamped>,
    /// How often such were sent.
    sending: u64,
    stopping: Option<oneshot::Sender<()>>,
}

/// However the actor ends.
impl Drop for ShardState {
    fn drop(&mut self) {
        self.close_inbox(&OpError::ShardUnavailable { maybe_applied: false });
    }
}

pub struct ShardActor;

impl Actor for ShardActor {
    type Msg = ShardMessage;
    type State = ShardState;
    type Arguments = ShardArguments;

    async fn pre_start(
        &self,
        me: ActorRef<ShardMessage>,
        arguments: ShardArguments,
    ) -> Result<ShardState, ActorProcessingErr> {
        let ShardArguments {
            shard,
            env,
            gate,
            look_ups,
            inbox,
            news,
            stats,
            commit_time,
            refused,
        } = arguments;
        let mut state = ShardState {
            shard,
            looking: Looking::new(env.clone(), look_ups),
            env,
            gate,
            inbox,
            news,
            commit_asked: false,
            several_write: false,
            stats,
            commit_time,
            refused,
            waiting: VecDeque::new(),
            parked: VecDeque::new(),
            stamped: Vec::new(),
            sending: 0,
            stopping: None,
        };
        me.send_interval(Duration::from_millis(TICK_MS), || ShardMessage::Tick);
        state.publish_stats();
        state.start_jobs(&me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<ShardMessage>,
        message: ShardMessage,
        state: &mut ShardState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMessage::Writes => state.take_writes(&me),
            ShardMessage::Damage { segment } => state.shard.report_damage(segment),
            ShardMessage::Stop { done } => state.stopping = Some(done),
            ShardMessage::Tick => {
                state.tick();
                state.unpark(&me);
            }
            ShardMessage::Past(name, number, looked) => state.take_past(&me, name, number, looked),
            ShardMessage::Commit => state.commit_asked = false,
            ShardMessage::SpaceMade(result) => {
                state
                    .shard
                    .space_made(result.unwrap_or_else(|abandoned| Err(io::Error::other(abandoned).into())));
                state.unpark(&me);
            }
            ShardMessage::Refuse(dots, answer) => {
                let lacking = state.shard.lacking(&dots);
                state.refused.add(&lacking);
                let _ = answer.send(lacking);
            }
            ShardMessage::News => state.take_news(),
            ShardMessage::NoteDropped(answer) => {
                state.take_news();
                let _ = answer.send(state.shard.dropped_are_noted());
            }
            ShardMessage::MergeStepped(number, outcome) => state.merge_stepped(&me, number, outcome),
            ShardMessage::CleanedUp(result) => state.shard.cleaned_up(result.unwrap_or_default()),
        }
        state.commit(&me).await;
        state.commit_time.note_parked(!state.parked.is_empty());
        state.start_jobs(&me);
        if let Some(why) = state.shard.failure() {
            return Err(why.to_owned().into());
        }
        state.stop_when_done(&me);
        Ok(())
    }
}

impl ShardState {
    fn merge_stepped(&mut self, me: &ActorRef<ShardMessage>, number: u64, outcome: Result<MergeOutcome, Abandoned>) {
        match outcome {
            Ok(MergeOutcome::More(job)) if self.wants_upkeep() => self.run_merge(me, job, true),
            Ok(MergeOutcome::More(job)) => self.shard.merged(job.abandon()),
            Ok(MergeOutcome::Done(end)) => self.shard.merged(end),
            Err(Abandoned) => self.shard.merged(MergeEnd::abandoned(number)),
        }
        self.unpark(me);
    }

    fn tick(&mut self) {
        self.shard.tick(self.env.wall.now());
        self.commit_time.tick();
        self.looking.tick();
        self.publish_stats();
    }

    fn publish_stats(&self) {
        *self.stats.lock() = self.shard.stats();
    }

    fn start_jobs(&mut self, me: &ActorRef<ShardMessage>) {
        if self.shard.has_commit() && !self.commit_asked {
            // What was parked until the last commit. Other messages have their turn in between.
            self.commit_asked = me.cast(ShardMessage::Commit).is_ok();
        }
        if let Some(job) = self.shard.next_space_job() {
            let me = me.clone();
            self.spawn_job(
                move || job.run(),
                move |result| {
                    let _ = me.cast(ShardMessage::SpaceMade(result));
                },
            );
        }
        if !self.wants_upkeep() {
            return;
        }
        if let Some(job) = self.shard.next_merge(self.env.wall.now()) {
            self.run_merge(me, job, false);
        }
        if let Some(job) = self.shard.next_cleanup() {
            let me = me.clone();
            self.spawn_job(
                move || job.run(),
                move |result| {
                    let _ = me.cast(ShardMessage::CleanedUp(result));
                },
            );
        }
    }

    /// While stopping, only as long as a write waits for the room that it makes.
    fn wants_upkeep(&self) -> bool {
        self.stopping.is_none() || !self.parked.is_empty()
    }

    /// Commits what has gathered, and answers. The actor does nothing else meanwhile, and need not: a group is written only after
    /// the one before it, and reads do not pass here. Where the disk hangs, others do what waits (`node::stalled`).
    async fn commit(&mut self, me: &ActorRef<ShardMessage>) {
        if !self.shard.has_commit() {
            return;
        }
        if self.several_write {
            // Twice around: what other tasks have ready, and what comes of that, goes into the same group.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            self.take_writes(me);
        }
        // The others have their disks busy with it while this one has.
        spreading::send(std::mem::take(&mut self.stamped));
        self.sending += 1;
        let Some(job) = self.shard.next_commit() else {
            return;
        };
        if planted(Bug::AckBeforeSync) {
            self.answer_up_to(Some(job.group()));
        }
        let permit = self.gate.0.clone().try_acquire_owned();
        let under_way = self.commit_time.begin();
        let result = self.env.run_here(move || {
            let result = job.run();
            drop(permit);
            result
        });
        let result = result
            .await
            .unwrap_or_else(|abandoned| Err(io::Error::other(abandoned)));
        drop(under_way);
        let durable = self.shard.committed(result);
        self.several_write = self.answer_up_to(durable) > 1;
        // A log gives way to the next only between two commits.
        self.unpark(me);
    }

    /// Tells everyone who waits for these groups that they are durable; gives how many waited.
    fn answer_up_to(&mut self, durable: Option<GroupNumber>) -> usize {
        let waited = self.waiting.len();
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| Some(waiting.group) <= durable) {
            waiting.reply.send(Ok(waiting.added));
        }
        waited - self.waiting.len()
    }

    fn run_merge(&self, me: &ActorRef<ShardMessage>, job: MergeJob, pause: bool) {
        let (me, env, number) = (me.clone(), self.env.clone(), job.number());
        // Held through the pause too: a step must not begin when the shard was reopened meanwhile.
        let permit = self.gate.0.clone().try_acquire_owned();
        tokio::spawn(async move {
            if pause && !job.urgent {
                tokio::time::sleep(Duration::from_millis(MERGE_PAUSE_MS)).await;
            }
            let outcome = env.run_blocking(move || {
                let outcome = job.run();
                drop(permit);
                outcome
            });
            let outcome = outcome.await;
            let _ = me.cast(ShardMessage::MergeStepped(number, outcome));
        });
    }

    /// Runs `job` where it may block, and `then` with its result.
    fn spawn_job<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(Result<T, Abandoned>) + Send + 'static,
    ) {
        // The gate is wide enough for all jobs there can be.
        let permit = self.gate.0.clone().try_acquire_owned();
        let report = Report::new(then);
        self.env.blocking.submit(Box::new(move || {
            let result = job();
            drop(permit);
            report.send(result);
        }));
    }

    fn take_news(&mut self) {
        let news = self.news.take();
        self.shard.know_dropped(&news.dropped);
        self.shard.heal(&news.healed);
        if let Some((stable, heard)) = news.stable {
            self.shard.set_stable(stable, heard);
        }
    }

    /// Of these writes nothing was begun.
    fn close_inbox(&mut self, why: &OpError) {
        for pending in self.inbox.close().into_iter().chain(self.looking.close()) {
            pending.reply.send(Err(why.clone()));
        }
    }

    fn stop_when_done(&mut self, me: &ActorRef<ShardMessage>) {
        if self.waiting.is_empty()
            && self.parked.is_empty()
            && let Some(done) = self.stopping.take()
        {
            // Nothing of it was taken, and nothing will be. The state itself may live on for a while, with the supervisor.
            self.close_inbox(&OpError::ShuttingDown);
            let _ = done.send(());
            me.stop(None);
        }
    }
}
