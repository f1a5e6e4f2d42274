//! What comes into a shard: from the inbox to an open group, by way of a look-up or a wait for log space.

use ractor::ActorRef;

use super::{ShardState, Waiting};
use crate::core::op::KeyedOp;
use crate::node::OpError;
use crate::node::local::Added;
use crate::node::series::InSeries;
use crate::node::shards::messages::{Looked, Name, Pending, Reply, ShardMessage, Work};
use crate::node::shards::permits::Permit;
use crate::node::shards::spreading::Others;
use crate::shard::{Applied, GroupNumber, PastLookup, Submitted, Write};
use crate::store::segment::ReadError;

/// A write that waits for log space, in its turn.
pub(super) struct Parked {
    pending: Pending,
    /// What was looked up for it before.
    past: Option<Box<PastLookup>>,
}

impl ShardState {
    pub(super) fn take_writes(&mut self, me: &ActorRef<ShardMessage>) {
        for pending in self.inbox.take() {
            self.take_write(me, pending);
        }
    }

    fn take_write(&mut self, me: &ActorRef<ShardMessage>, pending: Pending) {
        if self.stopping.is_some() {
            pending.reply.send(Err(OpError::ShuttingDown));
        } else {
            self.take_turn(me, Parked { pending, past: None });
        }
    }

    fn take_turn(&mut self, me: &ActorRef<ShardMessage>, parked: Parked) {
        match self.parked.is_empty() {
            true => self.submit(me, parked),
            // Behind those that came first.
            false => self.parked.push_back(parked),
        }
    }

    fn submit(&mut self, me: &ActorRef<ShardMessage>, parked: Parked) {
        let Parked { pending, past } = parked;
        let Some(pending) = self.behind_its_series(pending, past.is_some()) else {
            return;
        };
        let Pending {
            work,
            reply,
            permit,
            series,
        } = pending;
        match work {
            // Another replica does it by now.
            Work::Write(_, Some(others)) if !others.take_turn() => {}
            Work::Write(write, others) => {
                let (group, added) = match self.shard.submit(write, past.as_deref(), self.env.wall.now()) {
                    Ok(Submitted::InGroup(group, op)) => {
                        let series = series.as_ref().map(InSeries::series).cloned();
                        self.stamped.extend(others.map(|others| others.stamped(op, series)));
                        (Some(group), Added::Appended)
                    }
                    Ok(Submitted::Repeated(group)) => (group, Added::Repeated),
                    Ok(Submitted::NeedsSpace(write)) => {
                        let pending = pending_again(write, others, reply, permit, series);
                        return self.parked.push_front(Parked { pending, past });
                    }
                    Ok(Submitted::NeedsPast(write, lookup)) => {
                        let name = (write.user.clone(), write.key.clone());
                        others.iter().for_each(Others::look_up);
                        let pending = pending_again(write, others, reply, permit, series);
                        return self.looking.look(me, name, pending, lookup);
                    }
                    Err(refused) => return reply.send(Err(refused.into())),
                };
                if let Some(series) = series {
                    series.named(self.sending);
                }
                self.await_group(group, added, reply, permit);
            }
            Work::Apply(ops) => self.submit_ops(ops, reply, permit, past),
        }
    }

    /// Ops that other replicas stamped.
    fn submit_ops(&mut self, ops: Vec<KeyedOp>, reply: Reply, permit: Permit, past: Option<Box<PastLookup>>) {
        if self.refused.meets(&ops) {
            return reply.send(Err(OpError::ShardUnavailable { maybe_applied: false }));
        }
        match self.shard.apply(ops, self.env.wall.now()) {
            Ok(Applied::InGroup(group)) => self.await_group(group, Added::Appended, reply, permit),
            Ok(Applied::NeedsSpace(ops)) => {
                let pending = Pending::alone(Work::Apply(ops), reply, permit);
                self.parked.push_front(Parked { pending, past });
            }
            Err(refused) => reply.send(Err(refused.into())),
        }
    }

    /// None where it has to wait for one before it in its series, or is refused with it.
    fn behind_its_series(&mut self, pending: Pending, has_looked: bool) -> Option<Pending> {
        match (&pending.series, &pending.work) {
            (Some(series), work) if series.is_broken() || (is_for_others(work) && !series.goes_with(self.sending)) => {
                let gone = OpError::ShardUnavailable { maybe_applied: false };
                pending.reply.send(Err(gone));
                None
            }
            // The one before it may wait for the look that is under way; whoever has looked was the first.
            (Some(_), Work::Write(write, _)) if !has_looked => {
                let name = (write.user.clone(), write.key.clone());
                self.looking.join(&name, pending)
            }
            _ => Some(pending),
        }
    }

    /// Answers when the group is durable.
    fn await_group(&mut self, group: Option<GroupNumber>, added: Added, reply: Reply, permit: Permit) {
        let Some(group) = group else {
            reply.send(Ok(added));
            return;
        };
        let at = self.waiting.partition_point(|waiting| waiting.group <= group);
        let waiting = Waiting {
            group,
            added,
            reply,
            _permit: permit,
        };
        self.waiting.insert(at, waiting);
    }

    /// Tries the parked writes again, in order, until one has to wait on.
    pub(super) fn unpark(&mut self, me: &ActorRef<ShardMessage>) {
        let mut left = self.parked.len();
        while left > 0 {
            let Some(parked) = self.parked.pop_front() else {
                return;
            };
            self.submit(me, parked);
            if self.parked.len() >= left {
                return;
            }
            left = self.parked.len();
        }
    }

    pub(super) fn take_past(&mut self, me: &ActorRef<ShardMessage>, name: Name, number: u64, looked: Option<Looked>) {
        let mut writes = self.looking.ended(name, number).into_iter();
        if let Some(first) = writes.next() {
            self.take_looked(me, first, looked);
        }
        for pending in writes {
            // The first one that has to look too is followed by the rest.
            if !pending.reply.is_closed() {
                self.take_turn(me, Parked { pending, past: None });
            }
        }
    }

    fn take_looked(&mut self, me: &ActorRef<ShardMessage>, pending: Pending, looked: Option<Looked>) {
        let Some(Looked { lookup, result }) = looked else {
            let gone = OpError::ShardUnavailable { maybe_applied: false };
            return pending.reply.send(Err(gone));
        };
        match (result, &pending.work) {
            (Err(error), _) => {
                if let ReadError::Damaged(block) = &error {
                    self.shard.report_damage(block.segment);
                }
                pending.reply.send(Err(error.into()));
            }
            // Looking further for it would only take from the disk what others wait for. But what was learnt they need not look up.
            (Ok(()), Work::Write(write, _)) if pending.reply.is_closed() => self.shard.learn(write, Some(&lookup)),
            // It had its turn before the look; all that wait for space came later. Behind them it would meet segments that the look has not seen,
            // and have to look again, as often as they are merged meanwhile.
            (Ok(()), _) => {
                let past = Some(lookup);
                self.submit(me, Parked { pending, past });
            }
        }
    }
}

fn is_for_others(work: &Work) -> bool {
    matches!(work, Work::Write(_, Some(_)))
}

/// The write as it came, its turn given back, to be submitted once more.
fn pending_again(
    write: Write,
    others: Option<Others>,
    reply: Reply,
    permit: Permit,
    series: Option<InSeries>,
) -> Pending {
    give_turn_back(&others);
    Pending {
        work: Work::Write(write, others),
        reply,
        permit,
        series,
    }
}

/// Until it is tried again, others may do it.
fn give_turn_back(others: &Option<Others>) {
    if let Some(others) = others {
        others.give_turn_back();
    }
}
