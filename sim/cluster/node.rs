//! One node: its machine, its disk and clock, and the lives of its process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use kv_storage::env::Env;
use kv_storage::net::KeyRing;
use kv_storage::node::{ClusterConfig, NodeConfig};
use kv_storage::server::{FirstAdmin, Server, ServerConfig};
use kv_storage::types::UserId;
use kv_storage::users::PasswordCost;
use tokio::sync::Notify;

use super::env::{PacedBlocking, SeededEntropy, SharedPace, Wall};
use super::host::Host;
use super::net::{HostId, Network};
use super::plan::{Plan, Topology};
use super::scale::Serving;
use crate::disk::{Mount, SimDisk};
use crate::engine::DATA_DIR;
use crate::rng::Rng;

/// Where clients reach every node.
pub const CLIENT_PORT: u16 = 8000;
/// Where nodes reach each other, while no machine of theirs was lost.
const PEER_PORT: u16 = 7000;
/// Of how many nodes each is told.
const JOIN_MAX: usize = 8;
pub const ADMIN: &str = "admin";

/// Of a user; each has another one.
pub fn password(user: &str) -> String {
    format!("secret of {user}")
}

/// How far a process has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Starting,
    Serving,
    /// It was asked to stop, and did.
    Stopped,
    /// It ended by itself, or never came up.
    Failed(String),
}

struct Process {
    host: Host,
    mount: Mount,
    status: Arc<Mutex<Status>>,
    stop: Arc<Notify>,
}

pub struct Node {
    pub id: HostId,
    /// Where the others reach it.
    pub peer: SocketAddr,
    pub disk: SimDisk,
    pub wall: Arc<Wall>,
    pub pace: SharedPace,
    /// Not run before.
    pub paused_until_us: Option<u64>,
    rng: Rng,
    serving: Serving,
    process: Option<Process>,
}

impl Node {
    pub fn new(id: HostId, plan: &Plan, serving: Serving, mut rng: Rng) -> Self {
        let (offset_ms, drift_ppm) = plan.skews[usize::from(id.0)];
        let pace = SharedPace::default();
        pace.set(plan.pace);
        Self {
            id,
            peer: (id.ip(), PEER_PORT).into(),
            disk: SimDisk::new(rng.next()),
            wall: Arc::new(Wall::new(offset_ms, drift_ppm)),
            pace,
            paused_until_us: None,
            rng,
            serving,
            process: None,
        }
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Another machine stands here from now on, at another address, and with an empty disk.
    pub fn stand_elsewhere(&mut self) {
        self.disk.wipe();
        self.peer.set_port(self.peer.port() + 1);
    }

    /// A new process, at a whole millisecond. `peers`: where all nodes are, as whoever starts it knows.
    pub fn start(&mut self, network: &Network, plan: &Plan, peers: &[SocketAddr]) {
        let mount = self.disk.mount();
        let env = Env {
            disk: Arc::new(mount.clone()),
            net: Arc::new(network.on(self.id)),
            wall: self.wall.clone(),
            entropy: Arc::new(SeededEntropy::new(self.rng.fork())),
            blocking: Arc::new(PacedBlocking::new(self.rng.fork(), self.pace.clone())),
        };
        let (status, stop) = (Arc::new(Mutex::new(Status::Starting)), Arc::new(Notify::new()));
        let host = Host::new();
        let (serving, id) = (self.serving.clone(), self.id);
        let started = move |server: &Server| serving.add(id, server.node().clone());
        host.spawn(serve(
            env,
            server_config(plan, self.id, peers),
            started,
            status.clone(),
            stop.clone(),
        ));
        self.process = Some(Process {
            host,
            mount,
            status,
            stop,
        });
    }

    pub fn status(&self) -> Option<Status> {
        let process = self.process.as_ref()?;
        Some(process.status.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether the disk's planned crash has come.
    pub fn lost_power(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| self.disk.is_dead(&process.mount))
    }

    pub fn run(&mut self) {
        if let Some(process) = &mut self.process {
            process.host.run();
        }
    }

    pub fn timer_us(&self) -> Option<u64> {
        let due = self.process.as_ref()?.host.timer_us?;
        Some(due.max(self.paused_until_us.unwrap_or(0)))
    }

    pub fn ask_to_stop(&self) {
        if let Some(process) = &self.process {
            process.stop.notify_one();
        }
    }

    /// Everything that the process was doing ends where it stands. The network and the disk must know of it already.
    pub fn end(&mut self) {
        self.paused_until_us = None;
        self.serving.remove(self.id);
        self.process = None;
    }
}

async fn serve(
    env: Env,
    config: ServerConfig,
    started: impl FnOnce(&Server),
    status: Arc<Mutex<Status>>,
    stop: Arc<Notify>,
) {
    let set = |new| *status.lock().unwrap_or_else(PoisonError::into_inner) = new;
    let mut server = match Server::start(env, config).await {
        Ok(server) => server,
        Err(error) => return set(Status::Failed(error.to_string())),
    };
    started(&server);
    set(Status::Serving);
    tokio::select! {
        biased;
        why = server.failed() => return set(Status::Failed(why)),
        () = stop.notified() => {}
    }
    server.stop().await;
    set(Status::Stopped);
}

/// The one place that says how a node is configured.
fn server_config(plan: &Plan, id: HostId, peers: &[SocketAddr]) -> ServerConfig {
    ServerConfig {
        node: NodeConfig {
            shards: plan.shards,
            cache_bytes: 1 << 20,
            shard: plan.shard.clone(),
            limits: plan.bounds.node,
            cluster: (plan.topology == Topology::Cluster).then(|| cluster_config(plan, id, peers)),
            ..NodeConfig::new(DATA_DIR.into())
        },
        front: plan.bounds.front.clone(),
        listen: (id.ip(), CLIENT_PORT).into(),
        first_admin: Some(FirstAdmin {
            user: UserId::new(ADMIN).expect("a short name"),
            password_hash: password(ADMIN),
        }),
        // What it takes to guess them is no subject of the simulation.
        password_cost: PasswordCost::new(8, 1).expect("within Argon2's limits"),
    }
}

/// Each is told of others, and the first founds the cluster if there is none.
fn cluster_config(plan: &Plan, id: HostId, peers: &[SocketAddr]) -> ClusterConfig {
    let own = peers[usize::from(id.0)];
    let others = peers.iter().take(JOIN_MAX).copied().filter(|other| *other != own);
    ClusterConfig {
        listen: own,
        advertise: own,
        http: (id.ip(), CLIENT_PORT).into(),
        join: others.collect(),
        founds: id == HostId(0),
        keys: KeyRing::parse(&"5e".repeat(32)).expect("64 hexadecimal digits are a key"),
        tls: None,
        name: "simulated".to_owned(),
        zone: match plan.zones {
            1 => String::new(),
            zones => format!("zone-{}", id.0 % zones),
        },
        weight: 100,
        replication: plan.replication.into(),
    }
}
