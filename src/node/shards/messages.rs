//! The messages of a shard actor.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use super::commit_time::CommitTime;
use super::inbox::Inbox;
use super::news::PendingNews;
use super::permits::Permit;
use super::refused::Refused;
use super::spreading::{LocalShare, Others};
use crate::core::clock::SlotClocks;
use crate::core::op::KeyedOp;
use crate::env::{Abandoned, Env};
use crate::node::OpError;
use crate::node::jobs::JobGate;
use crate::node::local::Added;
use crate::node::series::InSeries;
use crate::shard::{CleanedUp, MergeOutcome, PastLookup, Shard, ShardStats, SpaceFailed, SpaceReady, Write};
use crate::store::segment::ReadError;
use crate::types::{Key, UserId};

/// Where the outcome of work goes.
pub enum Reply {
    Waiter(oneshot::Sender<Result<Added, OpError>>),
    /// This replica is one of several that are to have it.
    Share(LocalShare),
}

impl Reply {
    /// Nobody waits for it any more.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Waiter(waiter) => waiter.is_closed(),
            Self::Share(share) => share.is_closed(),
        }
    }

    pub fn send(self, done: Result<Added, OpError>) {
        match self {
            Self::Waiter(waiter) => {
                // Whoever asked may have gone away.
                let _ = waiter.send(done);
            }
            Self::Share(share) => share.end(done),
        }
    }
}

/// What a shard is to make durable.
pub enum Work {
    /// A write, and the peers that are to have the op that it becomes, once that has its dot and stamp.
    Write(Write, Option<Others>),
    /// Ops that another replica stamped.
    Apply(Vec<KeyedOp>),
}

/// Work, who waits for it, and its place in the queue.
pub struct Pending {
    pub work: Work,
    pub reply: Reply,
    pub permit: Permit,
    /// Where it is one of several writes to a key that keep their order.
    pub series: Option<InSeries>,
}

impl Pending {
    /// Work that belongs to no series.
    pub fn alone(work: Work, reply: Reply, permit: Permit) -> Self {
        Self {
            work,
            reply,
            permit,
            series: None,
        }
    }
}

/// A key with its user.
pub type Name = (UserId, Key);

/// What a look at a key's past led to.
pub struct Looked {
    pub lookup: Box<PastLookup>,
    pub result: Result<(), ReadError>,
}

/// What a shard actor can be told. The second half are the results of its own jobs.
pub enum ShardMessage {
    /// There are writes in the inbox.
    Writes,
    /// A reader met damage in this segment.
    Damage {
        segment: u64,
    },
    /// Make all that was accepted durable, answer, and end.
    Stop {
        done: oneshot::Sender<()>,
    },
    Tick,
    /// Take none of these from here on; answered with those that are not here.
    Refuse(SlotClocks, oneshot::Sender<SlotClocks>),
    /// There is something in the news.
    News,
    /// Take the news, and say whether files say of all that is dropped that it is; see to it that they do.
    NoteDropped(oneshot::Sender<bool>),
    /// The look at the past of this key that has this number has ended; without a result if it died.
    Past(Name, u64, Option<Looked>),
    /// A group is open, and nothing else may come to remind of it.
    Commit,
    SpaceMade(Result<Result<SpaceReady, SpaceFailed>, Abandoned>),
    /// A step of the merge that writes the segment of this number has ended.
    MergeStepped(u64, Result<MergeOutcome, Abandoned>),
    CleanedUp(Result<CleanedUp, Abandoned>),
}

pub struct ShardArguments {
    pub shard: Shard,
    pub env: Env,
    pub gate: JobGate,
    /// See `Turns`.
    pub look_ups: Arc<Semaphore>,
    pub inbox: Arc<Inbox>,
    pub news: Arc<PendingNews>,
    pub stats: Arc<Mutex<ShardStats>>,
    pub commit_time: Arc<CommitTime>,
    pub refused: Refused,
}
