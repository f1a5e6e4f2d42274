//! Adds to one key that follow each other, as one client sent them: the quorum is asked once for all of them, and they are stamped in their
//! order, so that they share messages and group commits.
//!
//! Only if this node carries them out itself and nothing is in the way. An add that was not carried out is left to the caller, who tries it
//! alone, after those before it, and elsewhere if need be.

use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::outcome::Taken;
use super::write::{Try, still_counts};
use crate::core::slot::SlotId;
use crate::node::cluster::{Cluster, Inner};
use crate::node::hedged::{HEDGE, LOOK_MAX};
use crate::node::local::{Added, Spreading, Wanted};
use crate::node::peers::Peer;
use crate::node::replica::place_of;
use crate::node::shards::spreading::{self, Turn};
use crate::node::{OpError, Terms, series};
use crate::shard::WriteContext;

/// The replicas that are to have a series.
struct Replicas<'a> {
    slot: SlotId,
    peers: Vec<Peer>,
    need: usize,
    all: &'a [crate::types::NodeId],
}

impl Cluster {
    /// Carries out adds of a user to one key in their order. The results are as [`series::told`] has them.
    pub async fn add_series(&self, adds: &[Wanted<'_>], terms: Terms) -> Vec<Result<Added, OpError>> {
        let inner = &self.inner;
        let Some(user) = adds.first().map(|add| add.user) else {
            return Vec::new();
        };
        let is_outside = inner.refuse_if_outside(user).is_err();
        if is_outside || inner.why_displaced().is_some() || inner.why_gathering().is_some() {
            return Vec::new();
        }
        let done = inner.add_series(adds, terms).await.into_iter();
        done.map(|done| inner.counted(user, done)).collect()
    }
}

impl Inner {
    async fn add_series(&self, adds: &[Wanted<'_>], terms: Terms) -> Vec<Result<Added, OpError>> {
        let lengths = adds.iter().map(|add| add.kind.text_bytes());
        let adds = adds.get(..series::together(lengths)).unwrap_or_default();
        let Some(first) = adds.first() else { return Vec::new() };
        let Ok(_writing) = self.begin_user_write(first) else {
            return Vec::new();
        };
        let (slot, _) = place_of(first.user, first.key);
        let layout = self.layout();
        let all = layout.placement.replicas(slot);
        if !all.contains(&self.me) || (all.len() > 1 && self.local.is_stalled(slot)) {
            return Vec::new();
        }
        let need = terms.consistency.needed(all.len());
        let done = if all.len() == 1 {
            self.local.write_series(adds.to_vec(), terms.deadline).await
        } else {
            let peers = self.up_peers(all);
            let replicas = Replicas { slot, peers, need, all };
            match timeout_at(terms.deadline, self.prepare_series(adds, &replicas)).await {
                Ok(Some(context)) => self.spread_series(adds, context, &replicas, terms).await,
                Ok(None) => Vec::new(),
                Err(_) => vec![Err(OpError::Deadline { maybe_applied: false })],
            }
        };
        if still_counts(all, self.layout().placement.replicas(slot)) {
            return done;
        }
        let unknown = |done: Result<Added, _>| done.and_then(|_| Err(self.no_quorum(need, 0, true)));
        done.into_iter().map(unknown).collect()
    }

    /// What all of them have to come after. None if one of them cannot be begun, or was taken before: that one has to wait for those before
    /// it.
    async fn prepare_series(&self, adds: &[Wanted<'_>], replicas: &Replicas<'_>) -> Option<WriteContext> {
        let Replicas { slot, peers, need, all } = replicas;
        // While a node has just taken over a seat, one more may be needed (`lives::named`).
        if peers.len() + 1 < *need || self.durable_need(*slot, *need) > *need {
            return None;
        }
        let (need, of) = (*need, all.len());
        // The time is the same for all of them; of each request id it has to be asked.
        let to_ask = adds
            .iter()
            .enumerate()
            .filter(|(at, add)| *at == 0 || add.request_id.is_some());
        let asked = to_ask.map(|(_, add)| self.prepare(add, *slot, peers, Try::Any, (need, of)));
        let asked = try_join_all(asked).await.ok()?;
        if asked.iter().any(|asked| asked.held.is_some()) {
            return None;
        }
        Some(WriteContext {
            after: asked.iter().map(|asked| asked.context.after).max()?,
            seen: None,
            // No later than what those who were asked have heard.
            asked_at: asked.iter().filter_map(|asked| asked.context.asked_at).min(),
        })
    }

    async fn spread_series(
        &self,
        adds: &[Wanted<'_>],
        context: WriteContext,
        replicas: &Replicas<'_>,
        terms: Terms,
    ) -> Vec<Result<Added, OpError>> {
        let Replicas { slot, peers, need, .. } = replicas;
        let (mut turns, mut puts) = (Vec::with_capacity(adds.len()), Vec::with_capacity(adds.len()));
        let mut ended = FuturesUnordered::new();
        for (at, wanted) in adds.iter().enumerate() {
            let (others, share, told) = spreading::begin(peers, *need);
            turns.push(others.turn());
            let request = (wanted.user, wanted.key, wanted.request_id);
            ended.push(async move {
                let taken = Taken::default();
                let outcome = self.outcome(request, told, peers, (*need, *need), &taken).await;
                (at, taken.told(outcome))
            });
            puts.push(Spreading {
                wanted: wanted.clone(),
                context: context.clone(),
                others,
                share,
            });
        }
        self.local.begin_series(puts.into_iter());
        let mut done = vec![None; adds.len()];
        let began = Instant::now();
        let next_look = || terms.deadline.min(Instant::now() + HEDGE);
        let mut look = pin!(sleep_until(next_look()));
        while done.iter().any(Option::is_none) {
            tokio::select! {
                biased;
                Some((at, outcome)) = ended.next() => {
                    done[at].get_or_insert(outcome);
                    continue;
                }
                () = &mut look => {}
            }
            if look.deadline() >= terms.deadline {
                withdraw(&turns, &mut done);
                done.iter_mut().for_each(|done| {
                    done.get_or_insert(Err(OpError::Deadline { maybe_applied: true }));
                });
                let mut told = series::told(done.into_iter().flatten().collect());
                if told.len() < adds.len() {
                    // The next one has no time left.
                    told.push(Err(OpError::Deadline { maybe_applied: false }));
                }
                return told;
            }
            let hangs = began.elapsed() >= LOOK_MAX && turns.iter().any(Turn::is_looked_up);
            if self.local.is_stalled(*slot) || hangs {
                withdraw(&turns, &mut done);
            }
            look.as_mut().reset(next_look());
        }
        series::told(done.into_iter().flatten().collect())
    }
}

/// Those that this node's shard has not begun with: it never will, for the first of them breaks the series off.
fn withdraw(turns: &[Turn], done: &mut [Option<Result<Added, OpError>>]) {
    for (turn, done) in turns.iter().zip(done) {
        if done.is_none() && turn.withdraw() {
            *done = Some(Err(OpError::ShardUnavailable { maybe_applied: false }));
        }
    }
}
