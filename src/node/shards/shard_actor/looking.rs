//! Looks at the past of keys, for writes that cannot be taken without: at most one at a key at a time, and of all shards only so many.
//!
//! What is learnt for one write is mostly all that the others to its key have to know, and a list may be long.
//!
//! Invariants:
//! - the writes stay here, and not with the job: whoever waits hears at once when the actor ends, and nothing was begun of theirs;
//! - a look writes nothing, so nobody waits for its end before the shard is reopened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ractor::ActorRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::env::Env;
use crate::node::jobs::Report;
use crate::node::shards::messages::{Looked, Name, Pending, ShardMessage};
use crate::shard::PastLookup;

pub(super) struct Looking {
    env: Env,
    /// Those of all shards.
    turns: Arc<Semaphore>,
    looks: BTreeMap<Name, Look>,
    begun: u64,
}

struct Look {
    number: u64,
    /// Set by whoever comes first: the job when it begins, or the actor when it gives the look up.
    is_taken: Arc<AtomicBool>,
    /// First the one that it is for; then those that would have to look too, in the order they came.
    writes: Vec<Pending>,
}

impl Look {
    /// Whether it can be given up: nobody waits for it any more, and it did not begin.
    fn give_up(&self) -> bool {
        self.writes.iter().all(|write| write.reply.is_closed()) && !self.is_taken.swap(true, Ordering::AcqRel)
    }

    /// Of writes that nobody waits for any more, however long the look takes: on a disk that hangs they would fill the queue of the shard. For
    /// the first one it goes on.
    fn give_places_back(&mut self) {
        let mut is_first = true;
        self.writes
            .retain(|write| std::mem::take(&mut is_first) || !write.reply.is_closed());
    }
}

impl Looking {
    pub(super) fn new(env: Env, turns: Arc<Semaphore>) -> Self {
        Self {
            env,
            turns,
            looks: BTreeMap::new(),
            begun: 0,
        }
    }

    /// Looks for this write, or lets it wait for the look that is under way.
    pub(super) fn look(
        &mut self,
        me: &ActorRef<ShardMessage>,
        name: Name,
        pending: Pending,
        mut lookup: Box<PastLookup>,
    ) {
        if let Some(look) = self.looks.get_mut(&name) {
            look.writes.push(pending);
            return;
        }
        self.begun += 1;
        let (number, is_taken) = (self.begun, Arc::<AtomicBool>::default());
        let look = Look {
            number,
            is_taken: is_taken.clone(),
            writes: vec![pending],
        };
        self.looks.insert(name.clone(), look);
        let (me, env) = (me.clone(), self.env.clone());
        let report = Report::new(move |looked: Result<Looked, _>| {
            let _ = me.cast(ShardMessage::Past(name, number, looked.ok()));
        });
        let begin = move |turn: OwnedSemaphorePermit| {
            env.blocking.submit(Box::new(move || {
                if is_taken.swap(true, Ordering::AcqRel) {
                    return;
                }
                let result = lookup.run();
                drop(turn);
                report.send(Looked { lookup, result });
            }));
        };
        let turns = self.turns.clone();
        match turns.clone().try_acquire_owned() {
            Ok(turn) => begin(turn),
            Err(_) => drop(tokio::spawn(async move {
                if let Ok(turn) = turns.acquire_owned().await {
                    begin(turn);
                }
            })),
        }
    }

    /// Lets the write wait for the look at its key that is under way; gives it back if there is none.
    pub(super) fn join(&mut self, name: &Name, pending: Pending) -> Option<Pending> {
        match self.looks.get_mut(name) {
            Some(look) => {
                look.writes.push(pending);
                None
            }
            None => Some(pending),
        }
    }

    /// The writes of the look with this number, which has ended: first the one that it was for.
    pub(super) fn ended(&mut self, name: Name, number: u64) -> Vec<Pending> {
        use std::collections::btree_map::Entry;
        match self.looks.entry(name) {
            Entry::Occupied(look) if look.get().number == number => look.remove().writes,
            // It was given up.
            _ => Vec::new(),
        }
    }

    /// Gives up what nobody waits for any more.
    pub(super) fn tick(&mut self) {
        self.looks.retain(|_, look| !look.give_up());
        self.looks.values_mut().for_each(Look::give_places_back);
    }

    /// Gives all up; gives the writes.
    pub(super) fn close(&mut self) -> Vec<Pending> {
        let looks = std::mem::take(&mut self.looks).into_values();
        let given_up = looks.inspect(|look| look.is_taken.store(true, Ordering::Release));
        given_up.flat_map(|look| look.writes).collect()
    }
}
