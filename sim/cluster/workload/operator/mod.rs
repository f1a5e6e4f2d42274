//! The operator: gives the places of members that are lost for good to the new nodes that came instead, and now and then asks for what must be refused.
//!
//! It knows what an operator knows: which machine stands where, and what the nodes say of the members when they are asked. It asks through any node, again and
//! again, until it is told that it is done; what it heard is judged by `check::members`.

mod table;
mod wrong;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::{SETUP_US_MAX, Shared, credentials};
use crate::cluster::client::{HttpClient, Reply};
use crate::cluster::history::{Change, Table, Trouble};
use crate::cluster::net::HostId;
use crate::cluster::node::{ADMIN, Node};
use crate::cluster::os;
use crate::cluster::plan::{Plan, SECOND_US};
use crate::cluster::scale::Order;
use crate::rng::Rng;

use table::Seen;

const MACHINE: HostId = HostId(242);
/// How long one answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A node that is empty, and can reach who is asked, asks twice a second.
const NOT_EMPTY_US_MAX: u64 = 10 * SECOND_US;
/// So long after a node has its place calls may still be held up by its loss.
const HELD_UP_US: u64 = 3 * SECOND_US;

/// The one that it asks from, if there is an operator.
pub fn machine(plan: &Plan) -> Option<HostId> {
    plan.has_operator().then_some(MACHINE)
}

/// Which machine stands where, and which of them are to take the place of a lost one. Clones are the same.
#[derive(Clone, Default)]
pub struct Machines(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Where the others reach each node.
    peers: Vec<SocketAddr>,
    /// Nodes without a place, and since when.
    lost: BTreeMap<u8, u64>,
}

impl Machines {
    pub fn new(nodes: &[Node]) -> Self {
        let peers = nodes.iter().map(|node| node.peer).collect();
        let lost = BTreeMap::new();
        Self(Arc::new(Mutex::new(Known { peers, lost })))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new one stands there instead, from `at_us` on.
    pub fn lose(&self, id: HostId, peer: SocketAddr, at_us: u64) {
        let mut known = self.known();
        known.peers[usize::from(id.0)] = peer;
        known.lost.entry(id.0).or_insert(at_us);
    }

    pub fn all_have_places(&self) -> bool {
        self.known().lost.is_empty()
    }

    fn peer(&self, host: u8) -> SocketAddr {
        self.known().peers[usize::from(host)]
    }

    /// The node that stands there has its place, unless it is another one by now. Gives since when it had none.
    fn take_place(&self, host: u8, peer: SocketAddr) -> Option<u64> {
        let mut known = self.known();
        let is_there = known.peers[usize::from(host)] == peer;
        is_there.then(|| known.lost.remove(&host)).flatten()
    }
}

pub struct Operator {
    shared: Shared,
    http: HttpClient,
    rng: Rng,
    /// Of each machine, who was asked to be replaced last, and by whom.
    asked: BTreeMap<u8, (String, String)>,
    /// Since when a new node is not taken because it does not ask as an empty one.
    not_empty_since_us: Option<u64>,
    /// What was told to be done.
    done: Vec<(String, String)>,
}

impl Operator {
    pub fn new(shared: &Shared, rng: Rng) -> Self {
        Self {
            shared: shared.clone(),
            http: HttpClient::new(shared.network.on(MACHINE), TIMEOUT),
            rng,
            asked: BTreeMap::new(),
            not_empty_since_us: None,
            done: Vec::new(),
        }
    }

    /// Until the clients are told to stop, and every node has its place.
    pub async fn run(mut self) -> Result<(), String> {
        let mut stopped_us = None;
        loop {
            let lost = self.shared.machines.known().lost.keys().next().copied();
            let is_over = self.shared.stop.load(Relaxed);
            match lost {
                None if is_over => return self.end().await,
                Some(host) => self.try_to_replace(host).await?,
                None => {}
            }
            if self.rng.percent(20) {
                self.ask_wrongly().await?;
            }
            let now_us = os::now_us();
            if is_over && now_us - *stopped_us.get_or_insert(now_us) > self.shared.plan.converge_us {
                return Err(format!(
                    "all is well, and no node has the place of the lost node {lost:?}"
                ));
            }
            let pause_ms = self.rng.between(100, 1_000);
            sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    fn draw_node(&mut self) -> u8 {
        self.rng.below(self.shared.plan.nodes.into()) as u8
    }

    /// One try, through any node.
    async fn try_to_replace(&mut self, host: u8) -> Result<(), String> {
        let node = self.draw_node();
        let peer = self.shared.machines.peer(host);
        let Some(seen) = self.look(node, false).await? else {
            return Ok(());
        };
        let Some(new) = seen.comes_from(peer, &mut self.rng) else {
            return Ok(());
        };
        let was_asked = self.asked.get(&host).is_some_and(|(_, asked)| *asked == new.node);
        match seen.had_place_of(peer) {
            Some(old) => _ = self.asked.insert(host, (old.node.clone(), new.node.clone())),
            // A try without an answer did it, and is asked for again.
            None if new.is_up() && was_asked => {}
            // It took the place of one that had its address already.
            None => {
                if new.is_up() {
                    self.has_place(host, peer);
                }
                return Ok(());
            }
        }
        // There is somebody who could be given a wrong place.
        if self.rng.percent(30) {
            self.ask_wrongly().await?;
        }
        let (old, new) = self.asked[&host].clone();
        // Whoever is asked may know less or more than the one that showed its table.
        let through = if self.rng.percent(70) { node } else { self.draw_node() };
        if self.ask(through, &old, Some(&new), false).await? {
            self.done.push((old, new));
            self.has_place(host, peer);
        }
        self.empty_if_it_stays(host);
        Ok(())
    }

    /// Damage may have taken its name from a node that was in no cluster yet: it is to be started with an empty folder, say those that are asked.
    fn empty_if_it_stays(&mut self, host: u8) {
        let now_us = os::now_us();
        if self
            .not_empty_since_us
            .is_some_and(|since_us| now_us - since_us > NOT_EMPTY_US_MAX)
        {
            self.not_empty_since_us = None;
            self.shared.order(Order::Empty(HostId(host)));
        }
    }

    fn has_place(&mut self, host: u8, peer: SocketAddr) {
        self.not_empty_since_us = None;
        if let Some(from_us) = self.shared.machines.take_place(host, peer) {
            let to_us = os::now_us() + HELD_UP_US;
            let node = Some(host);
            self.shared.recorder.trouble(Trouble { node, from_us, to_us });
        }
    }

    /// Has a member removed, or replaced by this one, and tells whether that was done. An answer that no admin can be given is an error.
    async fn ask(&mut self, node: u8, gone: &str, new: Option<&str>, is_wrong: bool) -> Result<bool, String> {
        let (path, body) = match new {
            Some(new) => ("/cluster/replace", json!({"old": gone, "new": new})),
            None => ("/cluster/remove", json!({"node": gone})),
        };
        let is_done = match self.call(node, path, body).await {
            Reply::Status(200, _) => true,
            Reply::Status(409, body) if !is_wrong && body["detail"].to_string().contains("as an empty node") => {
                self.not_empty_since_us.get_or_insert(os::now_us());
                false
            }
            Reply::Status(404 | 409 | 500 | 503 | 507, _) | Reply::NotSent(_) | Reply::NoAnswer(_) => false,
            reply => return Err(format!("node {node} answers an operator's {path} with {reply:?}")),
        };
        let change = Change {
            at_us: os::now_us(),
            node,
            gone: gone.to_owned(),
            new: new.map(str::to_owned),
            is_wrong,
            is_done,
        };
        self.shared.recorder.change(|history| history.changes.push(change));
        Ok(is_done)
    }

    async fn call(&mut self, node: u8, path: &str, mut body: Json) -> Reply {
        body["user"] = credentials(ADMIN);
        self.http.call(node, path, &body).await
    }

    /// What the node says of the members; nothing if it does not answer well.
    async fn look(&mut self, node: u8, is_last: bool) -> Result<Option<Seen>, String> {
        let seen = match self.call(node, "/cluster/status", json!({})).await {
            Reply::Status(200, status) => {
                Seen::of(&status).ok_or(format!("node {node} has no such status: {status}"))?
            }
            _ => return Ok(None),
        };
        let table = Table {
            at_us: os::now_us(),
            node,
            own: seen.own.clone(),
            up: seen.up().map(|member| member.node.clone()).collect(),
            is_last,
        };
        self.shared.recorder.change(|history| history.tables.push(table));
        Ok(Some(seen))
    }

    /// Before anybody stores anything: the node is removed, and comes again with an empty disk.
    pub async fn remove_and_welcome(mut self, host: u8) -> Result<(), String> {
        let nodes = self.shared.plan.nodes;
        let peer = self.shared.machines.peer(host);
        let removed = loop {
            let node = self.draw_node();
            let seen = self.look(node, false).await?;
            let at_peer = seen.and_then(|seen| {
                seen.up()
                    .find(|member| member.peer == peer)
                    .map(|member| member.node.clone())
            });
            if let Some(member) = at_peer.or_else(|| self.asked.get(&host).map(|(member, _)| member.clone())) {
                self.asked.insert(host, (member.clone(), String::new()));
                if self.ask(node, &member, None, false).await? {
                    break member;
                }
            }
            self.pause_in_setup("is not removed", host).await?;
        };
        // It may not have heard of it yet; then it does the same.
        let another = self.draw_node();
        self.ask(another, &removed, None, false).await?;
        self.shared.order(Order::Empty(HostId(host)));
        for node in 0..nodes {
            loop {
                let seen = self.look(node, false).await?;
                let is_in =
                    |seen: &Seen| seen.up().count() == usize::from(nodes) && seen.up().all(|up| up.node != removed);
                if seen.as_ref().is_some_and(is_in) {
                    break;
                }
                self.pause_in_setup("does not come in again", host).await?;
            }
        }
        Ok(())
    }

    async fn pause_in_setup(&self, what: &str, host: u8) -> Result<(), String> {
        if os::now_us() > SETUP_US_MAX {
            return Err(format!("nobody stores anything yet, and node {host} {what}"));
        }
        sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    /// All is well: every node knows the same members, and what is done is done when it is asked for again.
    async fn end(&mut self) -> Result<(), String> {
        let until_us = os::now_us() + self.shared.plan.converge_us;
        let nodes = self.shared.plan.nodes;
        let up = loop {
            let mut tables = Vec::new();
            for node in 0..nodes {
                tables.extend(self.look(node, false).await?);
            }
            let are_in = |seen: &Seen| seen.ids() == tables[0].ids() && seen.ids().contains(&seen.own);
            if tables.len() == usize::from(nodes) && tables.iter().all(are_in) {
                break tables[0].ids();
            }
            self.pause_before(until_us, "the nodes do not know the same members")
                .await?;
        };
        for (old, new) in self.done.clone() {
            // It may have been lost itself since.
            for node in 0..nodes {
                while up.contains(&new) && !self.ask(node, &old, Some(&new), false).await? {
                    self.pause_before(until_us, "a replacement that is done is refused")
                        .await?;
                }
            }
        }
        self.ask_wrongly().await?;
        for node in 0..nodes {
            while self.look(node, true).await?.is_none() {
                self.pause_before(until_us, "a node does not tell its members").await?;
            }
        }
        Ok(())
    }

    async fn pause_before(&self, until_us: u64, what: &str) -> Result<(), String> {
        if os::now_us() > until_us {
            return Err(format!("all is well, and {what}"));
        }
        sleep(Duration::from_millis(500)).await;
        Ok(())
    }
}
