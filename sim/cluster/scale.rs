//! How a cluster behaves as it grows: nodes come together, idle, are joined by one more, serve requests, and lose that one again. What
//! that takes is one row of a table.
//!
//! Who knows of whom is read in the nodes themselves, at no cost in simulated time. Bytes are those of the simulated network between nodes, with
//! headers of IP, UDP and TCP, but without TCP's bare acknowledgements. A message is what one write gives to a connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kv_storage::node::Node;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::client::{HttpClient, Reply};
use super::net::{HostId, Traffic};
use super::node::{ADMIN, password};
use super::os;
use super::plan::SECOND_US;
use super::workload::{FIRST_CLIENT, Shared, credentials};

/// Until the last of what starting caused is over.
const SETTLE: Duration = Duration::from_secs(10);
/// How long is watched, with requests and without: whole rounds of all that is periodic, so that their difference is that of the requests.
const WATCH: Duration = Duration::from_secs(10);
/// What requests cause later: comparisons of clocks.
const AFTERMATH: Duration = Duration::from_secs(3);
const WAIT_US_MAX: u64 = 300 * SECOND_US;
const LOOK: Duration = Duration::from_millis(5);
const CLIENTS: u8 = 8;
/// How many values are written for each node, so that chance says little about who is the fullest; and in how many batches.
const FILL: usize = 200;
const FILL_BATCH: usize = 100;
const USER: &str = "user-0";
const VALUE_BYTES: usize = 100;

/// The nodes whose processes serve now, by their hosts.
#[derive(Clone, Default)]
pub struct Serving(Arc<Mutex<BTreeMap<HostId, Node>>>);

impl Serving {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<HostId, Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, id: HostId, node: Node) {
        self.nodes().insert(id, node);
    }

    pub fn remove(&self, id: HostId) {
        self.nodes().remove(&id);
    }

    /// Whether so many serve, and all of them know so many members and see so many of them alive.
    fn all_see(&self, count: usize, members: usize, alive: usize) -> bool {
        let nodes = self.nodes();
        let sees = |node: &Node| node.cluster().map(|cluster| cluster.seen());
        nodes.len() == count && nodes.values().all(|node| sees(node) == Some((members, alive)))
    }

    /// Ops of users that each node holds.
    fn ops(&self) -> Vec<u64> {
        let ops = |node: &Node| {
            let shards = node.figures().into_iter().filter(|shard| shard.name != "system");
            shards
                .map(|shard| shard.stats.sealed_ops + shard.stats.memtable_ops)
                .sum()
        };
        self.nodes().values().map(ops).collect()
    }

    fn slots(&self) -> Vec<u64> {
        let slots = |node: &Node| node.cluster().map_or(0, |cluster| cluster.slots());
        self.nodes().values().map(slots).collect()
    }
}

/// What the script asks of the world.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    Start(HostId),
    /// Its plug is pulled: nobody is told.
    PowerOff(HostId),
    /// Its machine goes down, and comes back with an empty disk.
    Empty(HostId),
    /// More than an hour, by all clocks.
    HourPasses,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    pub nodes: u64,
    /// From the start of all but one until each knew all others, seconds.
    pub together_s: f64,
    /// From the start of the last one until all knew it as a member and saw it alive.
    pub join_s: f64,
    /// From the end of its power until no other saw it alive.
    pub death_s: f64,
    /// Sent by each node, a second.
    pub gossip_bytes: f64,
    pub gossip_datagrams: f64,
    pub longest_datagram: u64,
    /// Idle, of each pair of nodes, a second: gossip, and their connections.
    pub pair_bytes: f64,
    /// The fullest node against the mean.
    pub fullest_slots: f64,
    pub fullest_ops: f64,
    /// Between nodes, of each request at quorum.
    pub add_messages: f64,
    pub add_bytes: f64,
    pub get_messages: f64,
    pub get_bytes: f64,
}

pub async fn run(shared: Shared) {
    let row = measure(&shared).await;
    let verdict = row.map(|row| *shared.row.lock().unwrap_or_else(PoisonError::into_inner) = Some(row));
    *shared.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
}

async fn measure(shared: &Shared) -> Result<Row, String> {
    let nodes = usize::from(shared.plan.nodes);
    let last = HostId(shared.plan.nodes - 1);
    let mut row = Row {
        nodes: nodes as u64,
        ..Row::default()
    };
    row.together_s = wait(shared, nodes - 1, nodes - 1, nodes - 1).await?;
    shared.order(Order::Start(last));
    row.join_s = wait(shared, nodes, nodes, nodes).await?;

    sleep(SETTLE).await;
    let (before, began_us) = (between_nodes(shared), os::now_us());
    sleep(WATCH).await;
    let idle = Rate::since(&before, &between_nodes(shared), began_us);
    let pairs = (nodes * (nodes - 1) / 2) as f64;
    row.gossip_bytes = idle.datagram_bytes / nodes as f64;
    row.gossip_datagrams = idle.datagrams / nodes as f64;
    row.pair_bytes = (idle.datagram_bytes + idle.stream_bytes) / pairs;

    let mut client = HttpClient::new(shared.network.on(HostId(FIRST_CLIENT)), Duration::from_secs(10));
    add_user(&mut client).await?;
    let requests = (30 * nodes).max(400);
    // Each node has looked up the user by then.
    burst(shared, nodes, "/get_value").await?;
    sleep(AFTERMATH).await;
    (row.add_messages, row.add_bytes) = cost(shared, requests, "/add_value", idle).await?;
    (row.get_messages, row.get_bytes) = cost(shared, requests, "/get_value", idle).await?;
    fill(&mut client, shared.plan.nodes).await?;
    sleep(AFTERMATH).await;
    row.fullest_slots = fullest(&shared.serving.slots());
    row.fullest_ops = fullest(&shared.serving.ops());

    shared.order(Order::PowerOff(last));
    row.death_s = wait(shared, nodes - 1, nodes, nodes - 1).await?;
    row.longest_datagram = shared.network.longest_datagram();
    Ok(row)
}

/// How long it takes until all see that.
async fn wait(shared: &Shared, count: usize, members: usize, alive: usize) -> Result<f64, String> {
    let began_us = os::now_us();
    while !shared.serving.all_see(count, members, alive) {
        if os::now_us() - began_us > WAIT_US_MAX {
            return Err(format!(
                "{count} nodes do not all see {alive} of {members} members alive"
            ));
        }
        sleep(LOOK).await;
    }
    Ok((os::now_us() - began_us) as f64 / SECOND_US as f64)
}

fn between_nodes(shared: &Shared) -> Traffic {
    let mut sum = Traffic::default();
    for ((from, to), traffic) in shared.network.traffic() {
        if from != to && from.0.max(to.0) < FIRST_CLIENT {
            sum.packets += traffic.packets;
            sum.bytes += traffic.bytes;
            sum.datagrams += traffic.datagrams;
            sum.datagram_bytes += traffic.datagram_bytes;
        }
    }
    sum
}

/// Each second, between all nodes.
#[derive(Clone, Copy)]
struct Rate {
    messages: f64,
    stream_bytes: f64,
    datagrams: f64,
    datagram_bytes: f64,
}

impl Rate {
    fn since(before: &Traffic, after: &Traffic, began_us: u64) -> Self {
        let seconds = (os::now_us() - began_us) as f64 / SECOND_US as f64;
        let of = |count: fn(&Traffic) -> u64| (count(after) - count(before)) as f64 / seconds;
        Self {
            messages: of(|traffic| traffic.packets - traffic.datagrams),
            stream_bytes: of(|traffic| traffic.bytes - traffic.datagram_bytes),
            datagrams: of(|traffic| traffic.datagrams),
            datagram_bytes: of(|traffic| traffic.datagram_bytes),
        }
    }
}

/// Messages and bytes between nodes for each request, beyond what passes in the same time without any.
async fn cost(shared: &Shared, requests: usize, path: &'static str, idle: Rate) -> Result<(f64, f64), String> {
    let (before, began_us) = (between_nodes(shared), os::now_us());
    burst(shared, requests, path).await?;
    sleep(AFTERMATH).await;
    let spent = Duration::from_micros(os::now_us() - began_us);
    let windows = spent.div_duration_f64(WATCH).ceil();
    sleep(WATCH.mul_f64(windows) - spent).await;
    let seconds = (os::now_us() - began_us) as f64 / SECOND_US as f64;
    let rate = Rate::since(&before, &between_nodes(shared), began_us);
    let each = |busy: f64, idle: f64| (busy - idle) * seconds / requests as f64;
    Ok((
        each(rate.messages, idle.messages),
        each(rate.stream_bytes, idle.stream_bytes),
    ))
}

/// Some clients at once, each with one request after the other, through the nodes in turn.
async fn burst(shared: &Shared, requests: usize, path: &'static str) -> Result<(), String> {
    let client = |number: u8| {
        let shared = shared.clone();
        async move {
            let mut client = HttpClient::new(
                shared.network.on(HostId(FIRST_CLIENT + number)),
                Duration::from_secs(10),
            );
            for at in (usize::from(number)..requests).step_by(CLIENTS.into()) {
                let mut body = json!({"user": credentials(USER), "key": format!("key-{at}")});
                if path == "/add_value" {
                    body["value"] = "v".repeat(VALUE_BYTES).into();
                }
                let node = (at % usize::from(shared.plan.nodes)) as u8;
                match client.call(node, path, &body).await {
                    Reply::Status(200, _) => {}
                    reply => return Err(format!("{path} at node {node}: {reply:?}")),
                }
            }
            Ok(())
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    for done in futures_util::future::join_all(clients).await {
        done?;
    }
    Ok(())
}

/// Values of keys of their own.
async fn fill(client: &mut HttpClient, nodes: u8) -> Result<(), String> {
    for first in (0..FILL * usize::from(nodes)).step_by(FILL_BATCH) {
        let add = |at| json!({"op": "add_value", "key": format!("fill-{at}"), "value": "v"});
        let operations: Vec<Json> = (first..first + FILL_BATCH).map(add).collect();
        let body = json!({"operations": operations, "user": credentials(USER)});
        let node = (first / FILL_BATCH % usize::from(nodes)) as u8;
        match client.call(node, "/batch", &body).await {
            Reply::Status(200, _) => {}
            reply => return Err(format!("a batch at node {node}: {reply:?}")),
        }
    }
    Ok(())
}

async fn add_user(client: &mut HttpClient) -> Result<(), String> {
    let body = json!({"name": USER, "password_hash": password(USER), "user": credentials(ADMIN)});
    let mut reply = client.call(0, "/users/add", &body).await;
    for _ in 0..20 {
        if let Reply::Status(200 | 409, _) = reply {
            return Ok(());
        }
        sleep(Duration::from_millis(500)).await;
        reply = client.call(0, "/users/add", &body).await;
    }
    Err(format!("the user could not be made: {reply:?}"))
}

fn fullest(held: &[u64]) -> f64 {
    let mean = held.iter().sum::<u64>() as f64 / held.len().max(1) as f64;
    held.iter().max().map_or(0.0, |most| *most as f64 / mean.max(1.0))
}
