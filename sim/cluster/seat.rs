//! The seat of a member that is only cut off is given away, and that member runs on.
//!
//! The one that loses its seat is a host beyond those that belong in the end; of these the last one is empty, and gets it. The disk of another one hangs, so that it
//! hears of that late. For a while it and the loser hear each other, and nobody else: by their tables they are a quorum.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::client::Reply;
use super::env::Pace;
use super::history::Loss;
use super::net::HostId;
use super::node::ADMIN;
use super::os;
use super::plan::{Plan, SECOND_US};
use super::workload::{Client, credentials};
use super::world::World;

/// Who is asked to give the seat away, and whose disk hangs.
const GIVER: HostId = HostId(0);
const SLOW: HostId = HostId(1);
/// Longer than an empty node takes to come in.
const HANGS_MS_MAX: u64 = 15_000;
const ASK_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy)]
pub enum Step {
    CutOff,
    /// The loser hears the slow one again; those who know of the change hear nobody.
    Swap,
}

/// After the faults have begun.
pub const STEPS: [(u64, Step); 2] = [(SECOND_US, Step::CutOff), (9 * SECOND_US, Step::Swap)];

impl Plan {
    /// Who loses its seat, and who gets it.
    pub fn loser_and_heir(&self) -> Option<(HostId, HostId)> {
        self.gives_seat.then(|| (HostId(self.nodes), HostId(self.nodes - 1)))
    }

    /// Who belongs at first.
    pub fn first_hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        let change = self.loser_and_heir();
        let heir = change.map(|(_, heir)| heir);
        let hosts = (0..self.nodes).map(HostId).filter(move |host| Some(*host) != heir);
        hosts.chain(change.map(|(loser, _)| loser))
    }
}

fn both_ways(one: HostId, others: &[HostId]) -> Vec<(HostId, HostId)> {
    let others = others.iter().filter(|other| **other != one);
    others.flat_map(|other| [(one, *other), (*other, one)]).collect()
}

impl World {
    pub fn change_seats(&mut self, step: Step, now_us: u64) {
        let Some((loser, heir)) = self.plan.loser_and_heir() else {
            return;
        };
        let all: Vec<HostId> = self.nodes.iter().map(|node| node.id).collect();
        let block = |links: Vec<(HostId, HostId)>, blocked| {
            for (from, to) in links {
                self.network.change_link(from, to, |link| link.blocked = blocked);
            }
        };
        match step {
            Step::CutOff => {
                block(both_ways(loser, &all), true);
                self.nodes[usize::from(SLOW.0)].pace.set(Pace {
                    slow_percent: 100,
                    slow_ms_max: HANGS_MS_MAX,
                });
                self.restart_us.insert(heir, now_us.div_ceil(1000) * 1000);
                self.trouble(None, now_us, self.plan.faults_end_us);
                // Nobody looks at it any more.
                self.without_seat = Some(loser);
                self.recorder.lost_disk(loser.0, Loss::All);
            }
            Step::Swap => {
                block(both_ways(loser, &[SLOW]), false);
                block(both_ways(SLOW, &[GIVER, heir]), true);
                block(both_ways(GIVER, &[heir]), true);
            }
        }
    }
}

impl Client {
    /// Until the seat is given away, or is no more to be had.
    pub async fn give_seat(mut self) {
        let Some((loser, _)) = self.shared.plan.loser_and_heir() else {
            return;
        };
        while os::now_us() < self.shared.plan.faults_end_us && !self.has_given_seat(loser).await {
            sleep(ASK_PAUSE).await;
        }
    }

    async fn has_given_seat(&mut self, loser: HostId) -> bool {
        let mut body = json!({"user": credentials(ADMIN)});
        let Reply::Status(200, status) = self.http.call(GIVER.0, "/cluster/status", &body).await else {
            return false;
        };
        let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
        let of_loser = format!("{}:", loser.ip());
        let is_loser = |member: &&Json| member["peer"].as_str().is_some_and(|peer| peer.starts_with(&of_loser));
        let Some(old) = members.iter().find(is_loser) else {
            return true;
        };
        let new = members.iter().find(|member| member["state"] == "joining");
        let Some(new) = new.filter(|_| old["state"] == "up") else {
            return old["state"] != "up";
        };
        body["old"] = old["node"].clone();
        body["new"] = new["node"].clone();
        let replaced = self.http.call(GIVER.0, "/cluster/replace", &body).await;
        matches!(replaced, Reply::Status(200, _))
    }
}
