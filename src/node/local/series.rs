//! Writes to one key that go into its shard's inbox together, in their order.

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{Added, Local, Wanted};
use crate::node::OpError;
use crate::node::series::{self, Series};
use crate::node::shards::messages::{Pending, Reply, ShardMessage, Work};
use crate::node::shards::permits::Permits;
use crate::node::shards::spreading::{LocalShare, Others};
use crate::shard::WriteContext;

/// One write of a series that several replicas are to have.
pub struct Spreading<'a> {
    pub wanted: Wanted<'a>,
    pub context: WriteContext,
    pub others: Others,
    pub share: LocalShare,
}

impl Local {
    /// Carries out adds of a user to one key, in their order. The results are as [`series::told`] has them.
    pub async fn write_series(&self, adds: Vec<Wanted<'_>>, deadline: Instant) -> Vec<Result<Added, OpError>> {
        let (series, mut puts, mut answers) = (Series::default(), Vec::new(), Vec::new());
        let mut door = None;
        for wanted in adds {
            // What finds no room, and all behind it, is for the caller to try again.
            let Ok((index, permit, write)) = self.admit(wanted, WriteContext::default(), Permits::take_spare) else {
                break;
            };
            let (waiter, answer) = oneshot::channel();
            door = Some(index);
            answers.push(answer);
            puts.push(Pending {
                work: Work::Write(write, None),
                reply: Reply::Waiter(waiter),
                permit,
                series: Some(series.place()),
            });
        }
        if let Some(index) = door {
            self.put_series(index, puts);
        }
        let mut done = Vec::with_capacity(answers.len());
        for answer in answers {
            let answer = timeout_at(deadline, answer).await;
            // A commit that hangs may end well yet, and an actor that died may have had it half done.
            let late = OpError::Deadline { maybe_applied: true };
            let gone = OpError::ShardUnavailable { maybe_applied: true };
            done.push(answer.map_or(Err(late), |answer| answer.unwrap_or(Err(gone))));
        }
        series::told(done)
    }

    /// Like `begin_write`, for a whole series: this node is one of several replicas.
    pub(in crate::node) fn begin_series<'a>(&self, adds: impl Iterator<Item = Spreading<'a>>) {
        let (series, mut puts) = (Series::default(), Vec::new());
        let mut door = None;
        let mut refused = None;
        for add in adds {
            let admitted = match &refused {
                None => self.admit(add.wanted, add.context, Permits::take_spare),
                Some(error) => Err(OpError::clone(error)),
            };
            match admitted {
                Err(error) => {
                    refused = Some(error.clone());
                    add.share.end(Err(error));
                }
                Ok((index, permit, write)) => {
                    door = Some(index);
                    puts.push(Pending {
                        work: Work::Write(write, Some(add.others)),
                        reply: Reply::Share(add.share),
                        permit,
                        series: Some(series.place()),
                    });
                }
            }
        }
        if let Some(index) = door {
            self.put_series(index, puts);
        }
    }

    /// All into one inbox, or none: an actor that is started meanwhile must not get those at the end alone.
    fn put_series(&self, index: usize, puts: Vec<Pending>) {
        let refused = match &*self.inner.doors[index].serving() {
            Some(serving) => match serving.inbox.put_all(puts) {
                Ok(is_first) => {
                    if is_first {
                        let _ = serving.actor.cast(ShardMessage::Writes);
                    }
                    return;
                }
                Err(puts) => puts,
            },
            None => puts,
        };
        for pending in refused {
            let gone = OpError::ShardUnavailable { maybe_applied: false };
            pending.reply.send(Err(gone));
        }
    }
}
