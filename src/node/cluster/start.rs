//! Starting a member: its peers, its table, its gossip, and the tasks that run as long as it does.

use super::*;
use crate::net::Hello;
use crate::node::Limits;
use crate::node::local::Life;
use crate::node::peers::PeersConfig;

/// What tells one cluster's connections from another's.
fn cluster_number(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

fn peers_config(config: &ClusterConfig, life: &Life, calls_max: usize) -> PeersConfig {
    PeersConfig {
        listen: config.listen,
        join: config.join.clone(),
        keys: config.keys.clone(),
        tls: config.tls.clone(),
        hello: Hello {
            node: life.node,
            generation: life.starts,
            cluster: cluster_number(&config.name),
        },
        calls_max,
    }
}

/// The order counts: the simulation's trace hangs on it.
fn spawn_tasks(inner: &Arc<Inner>) {
    let mut tasks = inner.tasks.lock();
    tasks.push(tokio::spawn(members::gossip::run(inner.clone())));
    tasks.push(tokio::spawn(members::layout::watch(
        inner.clone(),
        inner.members.view.subscribe(),
    )));
    tasks.push(tokio::spawn(members::join::run(inner.clone())));
    tasks.push(tokio::spawn(catch_up::sync::run(inner.clone())));
    tasks.push(tokio::spawn(catch_up::give_up::run(inner.clone())));
    tasks.push(tokio::spawn(catch_up::heal::run(inner.clone())));
    tasks.push(tokio::spawn(status::observe::run(inner.clone())));
    tasks.push(tokio::spawn(members::strangers::run(inner.clone())));
    tasks.push(tokio::spawn(members::gathering::run(inner.clone())));
}

impl Cluster {
    pub async fn start(env: Env, local: Local, config: ClusterConfig, limits: Limits) -> Result<Self, ClusterError> {
        let life = local.life();
        let door = serve::Door::default();
        let peers = Peers::start(
            env.clone(),
            peers_config(&config, &life, limits.peer_calls),
            Arc::new(door.clone()),
            local.supervisor().get_cell(),
        )
        .await
        .map_err(|source| ClusterError::Peers {
            address: config.listen,
            source,
        })?;
        // Port 0 was asked for: gossip takes the same number.
        let listen = peers.local_addr();
        let mut config = config;
        if config.advertise.port() == 0 {
            config.advertise.set_port(listen.port());
        }
        let inner = Arc::new(Inner {
            lives: Lives::open(&env, &local).await,
            named: lives::Named::default(),
            clocks: ClockBook::new(life.is_new),
            env,
            local,
            me: life.node,
            config,
            peers,
            members: Members::default(),
            counters: Counters::default(),
            observed: status::Observed::default(),
            serving: serve::Opened::default(),
            tasks: Mutex::default(),
            next_number: AtomicU64::new(1),
            taking: coordinator::Taking::default(),
            at_work: AtWork::default(),
            pages: limits.pages,
            dots_bytes_max: AtomicUsize::new(catch_up::DOTS_BYTES_MAX),
        });
        if let Err(error) = inner.load_table().await {
            // Its peers know who they are, and bring back what is damaged.
            tracing::error!(%error, "the member table is asked for anew");
        }
        // Not before it knows its table: others would take it for a node without a cluster.
        door.open(&inner);
        inner.start_gossip(life.starts).await?;
        spawn_tasks(&inner);
        Ok(Self { inner })
    }
}
