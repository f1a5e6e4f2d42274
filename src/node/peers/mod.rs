//! The connections between nodes, as requests and their responses.
//!
//! Every node dials each of the others and makes its own requests on that connection; those of the others come on the connections that
//! it accepted. `link` is what callers see of one peer, `dial` keeps its connection and `connection` is one of these; `serving` is one that
//! was accepted. Messages gather in a `batch` while the last one is on its way. The actors (`supervisor`, `replicator`, `listener`) only own
//! tasks and start them again.
//!
//! Invariant: nobody waits for a peer that is not there. A call is refused at once without a connection or with too much waiting, and
//! fails when its connection ends; a connection on which the peer owes an answer and shows no sign of life ends within seconds.

mod answers;
mod batch;
mod connection;
mod dial;
mod error;
mod figures;
mod handshakes;
mod link;
mod listener;
mod meter;
mod on_answer;
mod owned_task;
mod peer;
mod pending;
mod replicator;
mod serving;
mod shared;
mod supervisor;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use ractor::{Actor, ActorCell, ActorRef};
use tokio::sync::oneshot;

use crate::env::{BoxFuture, Env};
use crate::net::{Hello, KeyRing, Tls};
use crate::types::NodeId;
use crate::wire::{Request, Response};
use link::Link;
use shared::Shared;
use supervisor::{PeersArguments, PeersMessage, PeersSupervisor};

pub use batch::Hurry;
pub use error::CallError;
pub use figures::{PeerFigures, PeersFigures};
pub use link::CALLS_BYTES_MAX;
pub use peer::{Call, Peer};
pub use pending::CALLS_MAX;

/// What answers the requests of others. `Ping` is answered before it gets here.
pub trait PeerService: Send + Sync + 'static {
    /// An answer that needs no waiting, given on the spot.
    fn answer_now(&self, from: NodeId, request: &Request) -> Option<Response>;
    /// Everything else. `connection` numbers the connection: what a peer opened on it (readers, pulls) ends with it. The future is dropped
    /// when the connection ends first. Those of `Ask`, `Append`, `Digest` and `Compare` are polled by the connection's own task: they must
    /// not keep it for long; each other one has a task of its own.
    fn answer(&self, from: NodeId, connection: u64, request: Request) -> BoxFuture<'static, Response>;
    /// Once for each connection.
    fn connection_ended(&self, from: NodeId, connection: u64);
}

pub struct PeersConfig {
    pub listen: SocketAddr,
    /// Addresses of members before any are known.
    pub join: Vec<SocketAddr>,
    pub keys: KeyRing,
    /// Certificates instead of the key.
    pub tls: Option<Tls>,
    /// Who this node says it is; cluster 0 while it is of none.
    pub hello: Hello,
    /// Requests to one peer that may wait for an answer; no more than `CALLS_MAX`.
    pub calls_max: usize,
}

/// All peers of this node. Clones share them.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
    actor: ActorRef<PeersMessage>,
    address: SocketAddr,
    /// Held while the links are changed.
    changing: Arc<Mutex<()>>,
}

impl Peers {
    /// Listens, and dials whoever `set_members` names. One actor is started under `supervisor`; it has the others below itself. The
    /// supervisor hears of its end when it is stopped too.
    pub async fn start(
        env: Env,
        config: PeersConfig,
        service: Arc<dyn PeerService>,
        supervisor: ActorCell,
    ) -> io::Result<Self> {
        let socket = env.net.listen(config.listen).await?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared::new(env, config, service));
        let arguments = PeersArguments {
            shared: shared.clone(),
            address,
            socket,
        };
        let started = Actor::spawn_linked(None, PeersSupervisor, arguments, supervisor).await;
        let (actor, _) = started.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            shared,
            actor,
            address,
            changing: Arc::default(),
        })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// For a node that has joined a cluster after it started. Counts for later connections.
    pub fn set_cluster(&self, cluster: u64) {
        self.shared.set_cluster(cluster);
    }

    /// From now on there is a link to each of these but this node itself, and to nobody else. A link that stays keeps its connection
    /// unless its address is another one.
    pub fn set_members(&self, members: &BTreeMap<NodeId, SocketAddr>) {
        let changing = self.changing.lock();
        let before = self.shared.links.load_full();
        let mut links = BTreeMap::new();
        for (node, address) in members {
            if *node == self.shared.node() {
                continue;
            }
            let peer = before.get(node).cloned();
            let peer = peer.unwrap_or_else(|| Peer(Arc::new(Link::new(*node, *address, self.shared.calls_max))));
            *peer.0.address.lock() = *address;
            links.insert(*node, peer);
        }
        self.shared.links.store(Arc::new(links));
        drop(changing);
        // Fails only when all is being stopped.
        let _ = self.actor.cast(PeersMessage::Fit);
    }

    /// The link to this node, connected or not; none if it is no member.
    pub fn get(&self, node: NodeId) -> Option<Peer> {
        self.shared.links.load().get(&node).cloned()
    }

    /// In the order of their ids.
    pub fn all(&self) -> Vec<Peer> {
        self.shared.links.load().values().cloned().collect()
    }

    /// Makes one request to whoever is at `address`, on a connection of its own, and says who that was.
    pub async fn call_address(
        &self,
        address: SocketAddr,
        request: Request,
        timeout: Duration,
    ) -> Result<(NodeId, Response), CallError> {
        dial::call_address(&self.shared, address, &request, timeout).await
    }

    pub fn figures(&self) -> PeersFigures {
        let counters = &self.shared.counters;
        PeersFigures {
            serving: counters.serving.load(Relaxed),
            accepted: counters.accepted.get(),
            refused: counters.refused.get(),
            wrong_peers: counters.wrong_peers.get(),
            garbage: counters.garbage.get(),
            requests: counters.requests.get(),
            bytes_received: self.shared.meter.received(),
            bytes_sent: self.shared.meter.sent(),
        }
    }

    /// Ends all connections, both ways, and everything that ran for them.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.actor.cast(PeersMessage::Stop { done }).is_ok() {
            let _ = stopped.await;
        }
    }
}

#[cfg(test)]
mod tests;
