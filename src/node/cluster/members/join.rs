//! Coming in.
//!
//! Nodes join freely while the cluster holds no user data. After that a node can only take the seat of another one: an empty node that comes
//! from the address of a lost one takes its seat by itself, any other when an admin says so.
//!
//! Who founds: a node that is told to join nobody, when gossip shows nobody for a while who may belong to a cluster; or one that stands first in its
//! own list of those to join, when the others say that they belong to none. So the same list can be given to all, and a founder that has lost its
//! disk finds its cluster again: with a list it founds no second one because the others are down, or cut off from it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::join_round::JoinRound;
use super::place::Noticed;
use super::strangers::SHOWING_MAX;
use super::table::MemberTable;
use crate::core::slot::SYSTEM_SLOT;
use crate::node::cluster::{ClusterError, Inner, TICK};

/// Rounds of being refused after which somebody should look: 5 seconds. In a new cluster, those who refuse are still coming in themselves.
const REFUSED_ROUNDS_MAX: u32 = 10;

/// What came of asking so far.
#[derive(Default)]
struct Joining {
    since: Option<Instant>,
    /// Rounds, one after the other, in which somebody refused this node, and why the last one did.
    refused_rounds: u32,
    refused: Option<String>,
    /// Why a cluster that was to be founded is not.
    not_founded: Option<String>,
    /// Rounds since it was let in last.
    outside_rounds: u32,
    is_warned: bool,
}

impl Joining {
    fn note(&mut self, round: &JoinRound) {
        if let Some(why) = &round.refused {
            self.refused_rounds += 1;
            match should_warn(self.refused_rounds, self.refused.as_ref() != Some(why)) {
                Some(true) => tracing::warn!(why, "not let into the cluster; it is asked again"),
                Some(false) => tracing::info!(why, "not let into the cluster yet; it is asked again"),
                None => {}
            }
            self.refused.clone_from(&round.refused);
        }
        if round.admitted || round.refused_by_nobody() {
            (self.refused_rounds, self.refused) = (0, None);
        }
        if round.admitted {
            (self.outside_rounds, self.is_warned) = (0, false);
        }
        self.outside_rounds += 1;
        if let (Some(why), None, false, REFUSED_ROUNDS_MAX..) =
            (round.why(), &self.refused, self.is_warned, self.outside_rounds)
        {
            self.is_warned = true;
            tracing::warn!(
                why,
                "none of those that are asked lets this node into the cluster; they are asked again"
            );
        }
    }
}

/// Sees to it that this node belongs, for as long as it runs.
pub(in crate::node::cluster) async fn run(inner: Arc<Inner>) {
    let (mut joining, mut noticed, mut was_in) = (Joining::default(), Noticed::default(), false);
    loop {
        inner.notice_twin(&mut noticed);
        // A node asks again and again as long as its own disk does not have the whole table: it would wait for members that are none any more.
        let has_table = !inner.clocks.is_new() && inner.local.is_whole(SYSTEM_SLOT);
        let is_in = inner.layout().table.is_up(inner.me) && has_table;
        let round = if is_in {
            inner.tell_address(&mut noticed).await;
            JoinRound::default()
        } else {
            inner.join(&mut joining).await
        };
        if is_in && !was_in {
            inner.say_in();
        }
        was_in = is_in;
        *inner.members.why_not_in.lock() = inner.why_not_in(&round, &joining, &mut noticed);
        tokio::time::sleep(TICK).await;
    }
}

/// None when it was said.
fn should_warn(refused_rounds: u32, is_new: bool) -> Option<bool> {
    let is_time = refused_rounds == REFUSED_ROUNDS_MAX;
    (is_new || is_time).then_some(refused_rounds >= REFUSED_ROUNDS_MAX)
}

impl Inner {
    /// Asks to be let in, once; founds a cluster where there is none.
    async fn join(&self, joining: &mut Joining) -> JoinRound {
        let since = *joining.since.get_or_insert_with(Instant::now);
        let round = self.ask_in().await;
        let for_long = since.elapsed();
        joining.note(&round);
        let mut not_founded = None;
        if joining.refused.is_none() && round.shows_no_cluster(for_long) {
            if self.may_found(for_long).await {
                not_founded = self.found_new().await.err().map(|error| error.to_string());
            }
            self.take_own_place().await;
        }
        if not_founded.is_some() && not_founded != joining.not_founded {
            tracing::error!(error = not_founded, "cannot found a cluster; it is tried again");
        }
        joining.not_founded = not_founded;
        round
    }

    fn say_in(&self) {
        tracing::info!(node = %self.me, "this node is in the cluster");
        if let Some(what) = self.overruled_settings() {
            tracing::warn!("--zone and --weight count only when a node joins: this one keeps {what}");
        }
    }

    /// Why this node is not in, if somebody or something says so.
    fn why_not_in(&self, round: &JoinRound, joining: &Joining, noticed: &mut Noticed) -> Option<String> {
        if let Some(why) = &joining.not_founded {
            return Some(format!("no cluster can be founded: {why}"));
        }
        let of_before = joining.refused.clone().or_else(|| self.why_lost(noticed));
        // Of a round in which somebody refuses it, all is told. Who refused it before and is silent now may be right still.
        let why = of_before.filter(|_| round.refused.is_none());
        why.or_else(|| round.why()).or_else(|| self.why_not_founded())
    }

    /// Whether this node is to found a cluster, where nobody who was asked for so long belongs to one.
    async fn may_found(&self, for_long: Duration) -> bool {
        if !self.config.founds || !self.layout().table.is_empty() {
            return false;
        }
        // With a list, those in it have said so.
        !self.config.join.is_empty() || for_long >= SHOWING_MAX && self.knows_no_others().await
    }

    /// Whether this disk has never heard of other members. It may hold a part of what it was to copy, and be started without a list now.
    async fn knows_no_others(&self) -> bool {
        if !self.local.is_whole(SYSTEM_SLOT) {
            return false;
        }
        let records = self.own_records().await;
        records.is_ok_and(|records| MemberTable::of(&records).members().all(|(node, _)| node == self.me))
    }

    /// Why a node that was told to join nobody, and that nobody refuses, is in no cluster.
    fn why_not_founded(&self) -> Option<String> {
        let is_lone = self.config.join.is_empty() && self.layout().table.is_empty();
        is_lone.then(|| {
            let wait_s = SHOWING_MAX.as_secs();
            format!(
                "it was told to join nobody, and founds a cluster when nobody with its key shows for {wait_s} s; a folder that was a member's \
                 needs --join"
            )
        })
    }

    pub(super) async fn found_new(&self) -> Result<(), ClusterError> {
        self.found().await?;
        self.lives.set_known();
        if self.local.set_whole().await.is_ok() {
            self.clocks.set_whole();
        }
        tracing::info!(node = %self.me, "founded a cluster");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_warned_of_once_when_it_lasts() {
        let told = |is_new: fn(u32) -> bool| (1..=30).filter_map(move |round| should_warn(round, is_new(round)));
        let lasting: Vec<bool> = told(|round| round == 1).collect();
        assert_eq!(lasting, [false, true]);
        let changing: Vec<bool> = told(|round| [1, 3, 20].contains(&round)).collect();
        assert_eq!(changing, [false, false, true, true]);
    }
}
