//! Coming in, letting in, and taking somebody's place.
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

use super::change::MemberRefused;
use super::join_round::JoinRound;
use super::place::Noticed;
use super::strangers::SHOWING_MAX;
use super::table::{MemberState, MemberTable, Record};
use crate::core::slot::SYSTEM_SLOT;
use crate::node::OpError;
use crate::node::cluster::{Inner, TICK};
use crate::types::{NodeId, WEIGHT_MAX};
use crate::wire::{Admission, Response};

/// Rounds of being refused after which somebody should look: 5 seconds. In a new cluster, those who refuse are still coming in themselves.
const REFUSED_ROUNDS_MAX: u32 = 10;

/// Sees to it that this node belongs, for as long as it runs.
pub(in crate::node::cluster) async fn run(inner: Arc<Inner>) {
    let (mut asking_since, mut refused_rounds, mut said) = (None, 0, None);
    let (mut outside_rounds, mut is_warned, mut was_in) = (0, false, false);
    let mut noticed = Noticed::default();
    loop {
        inner.notice_twin(&mut noticed);
        // A node asks again and again as long as its own disk does not have the whole table: it would wait for members that are none any more.
        let has_table = !inner.clocks.is_new() && inner.local.is_whole(SYSTEM_SLOT);
        let wants_in = !inner.layout().table.is_up(inner.me) || !has_table;
        let mut asked = JoinRound::default();
        if wants_in {
            let since: &mut Instant = asking_since.get_or_insert_with(Instant::now);
            asked = inner.ask_in().await;
            let for_long = since.elapsed();
            if let Some(why) = &asked.refused {
                refused_rounds += 1;
                match should_warn(refused_rounds, said.as_ref() != Some(why)) {
                    Some(true) => tracing::warn!(why, "not let into the cluster; it is asked again"),
                    Some(false) => tracing::info!(why, "not let into the cluster yet; it is asked again"),
                    None => {}
                }
                said.clone_from(&asked.refused);
            }
            if asked.admitted || asked.refused_by_nobody() {
                (refused_rounds, said) = (0, None);
            }
            if asked.admitted {
                (outside_rounds, is_warned) = (0, false);
            }
            outside_rounds += 1;
            if let (Some(why), None, false, REFUSED_ROUNDS_MAX..) = (asked.why(), &said, is_warned, outside_rounds) {
                is_warned = true;
                tracing::warn!(
                    why,
                    "none of those that are asked lets this node into the cluster; they are asked again"
                );
            }
            let no_cluster = said.is_none() && asked.shows_no_cluster(for_long);
            if no_cluster && inner.may_found(for_long).await {
                inner.found_new().await;
            }
            if no_cluster {
                inner.take_own_place().await;
            }
        } else {
            inner.tell_address(&mut noticed).await;
        }
        if !wants_in && !was_in {
            tracing::info!(node = %inner.me, "this node is in the cluster");
            if let Some(what) = inner.overruled_settings() {
                tracing::warn!("--zone and --weight count only when a node joins: this one keeps {what}");
            }
        }
        was_in = !wants_in;
        // Who refused it and is silent now may be right still; of a round in which somebody refuses it, all is told.
        let why = said.clone().filter(|_| asked.refused.is_none());
        let why = why.or_else(|| inner.why_lost(&mut noticed).filter(|_| asked.refused.is_none()));
        let why = why.or_else(|| asked.why()).or_else(|| inner.why_not_founded());
        *inner.members.why_not_in.lock() = why;
        tokio::time::sleep(TICK).await;
    }
}

/// None when it was said.
fn should_warn(refused_rounds: u32, is_new: bool) -> Option<bool> {
    let is_time = refused_rounds == REFUSED_ROUNDS_MAX;
    (is_new || is_time).then_some(refused_rounds >= REFUSED_ROUNDS_MAX)
}

impl Inner {
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

    pub(super) async fn found_new(&self) {
        match self.found().await {
            Ok(()) => {
                self.lives.set_known();
                if self.local.set_whole().await.is_ok() {
                    self.clocks.set_whole();
                }
                tracing::info!(node = %self.me, "founded a cluster");
            }
            Err(error) => tracing::error!(%error, "cannot found a cluster; it is tried again"),
        }
    }

    /// Lets a node in, or says why not.
    pub(in crate::node::cluster) async fn admit(&self, admission: Admission) -> Result<Response, MemberRefused> {
        let _one = self.members.changing.lock().await;
        let table = self.layout().table.clone();
        let node = NodeId(admission.node);
        let wrong = |what: &str| MemberRefused::Store(OpError::Peer(format!("not an address: {what}")));
        let mut record = Record {
            node: node.to_string(),
            peer: admission.peer.parse().map_err(|_| wrong(&admission.peer))?,
            http: admission.http.parse().map_err(|_| wrong(&admission.http))?,
            zone: admission.zone,
            weight: admission.weight.clamp(1, WEIGHT_MAX.into()),
            state: MemberState::Up,
            seat: table.next_seat(),
            replaces: None,
            replication: table.replication() as u32,
        };
        self.members.join_requests.note(node, record.peer, admission.is_new);
        // One that still copies what the others hold, and was restarted, knows only by its disk that there are others.
        let belonged = || !self.local.clock(SYSTEM_SLOT).is_ok_and(|clock| clock.is_empty());
        if table.is_empty() && self.clocks.is_new() && !belonged() {
            return Err(MemberRefused::NotMember);
        }
        // It would hand out what it has of the table for the whole of it.
        if self.clocks.is_new() {
            return Err(MemberRefused::ComingIn(self.me));
        }
        if !table.is_up(self.me) {
            return Err(MemberRefused::NotWhole(self.me));
        }
        let at_address = table.up().filter(|(_, held)| held.peer == record.peer);
        let before = at_address.filter(|(other, _)| *other != node).last();
        if let Some((other, _)) = before
            && (other == self.me || self.peers.get(other).is_some_and(|peer| peer.is_up()))
        {
            return Err(MemberRefused::Taken(record.peer, other));
        }
        if before.is_some() && !table.is_up(node) {
            self.check_is_at(node, record.peer).await?;
        }
        match table.get(node) {
            Some(held) if held.state == MemberState::Up => {
                let (seat, weight) = (held.seat, held.weight);
                let (zone, replaces) = (held.zone.clone(), held.replaces.clone());
                record = Record {
                    seat,
                    zone,
                    weight,
                    replaces,
                    ..record
                };
                if before.is_some() {
                    // Two at one address: gossip knows where this one is.
                    record.peer = held.peer;
                }
            }
            // Another one had its address since, and is gone in turn.
            Some(held) if held.state == MemberState::Removed && before.is_none() => {
                return Err(MemberRefused::Removed(node));
            }
            None if !admission.is_new && before.is_none() => return Err(MemberRefused::NotEmpty(node)),
            _ if !admission.is_new => return Ok(Response::StartOver),
            _ => {
                if let Some((lost, held)) = before {
                    record.seat = held.seat;
                    record.replaces = Some(lost.to_string());
                } else {
                    self.check_no_data(&table).await?;
                }
            }
        }
        if table.get(node) != Some(&record) {
            self.add_record(&record).await?;
            if let Some(lost) = &record.replaces {
                tracing::warn!(lost, %node, "an empty node takes the seat of the one that had its address");
            }
        }
        Ok(Response::Admitted {
            cluster: self.config.name.clone(),
            records: self.own_records().await?,
        })
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
