//! What all connections of a node share, and who is let in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::figures::Counters;
use super::handshakes::{Handshakes, Place};
use super::meter::Meter;
use super::peer::Peer;
use super::{PeerService, PeersConfig};
use crate::env::Env;
use crate::net::{HandshakeError, Hello, KeyRing, Local, Tls, Versions};
use crate::node::log_limiter::LogLimiter;
use crate::types::NodeId;

/// Versions of the messages in `wire` that this node speaks.
pub const VERSIONS: Versions = Versions { lowest: 1, highest: 1 };

pub struct Shared {
    pub env: Env,
    pub service: Arc<dyn PeerService>,
    /// Every member but this node itself.
    pub links: ArcSwap<BTreeMap<NodeId, Peer>>,
    pub counters: Counters,
    /// Of all connections that are served.
    pub meter: Arc<Meter>,
    handshakes: Handshakes,
    /// Of members that are not known by their table yet.
    join: Vec<IpAddr>,
    /// Of each link.
    pub calls_max: usize,
    /// Numbers given to connections.
    pub connections: AtomicU64,
    tls: Option<Tls>,
    keys: KeyRing,
    node: NodeId,
    generation: u64,
    cluster: AtomicU64,
    complaints: LogLimiter,
}

/// The peer proved that it knows the key, but is not the one that was meant.
#[derive(Debug, thiserror::Error)]
pub enum WrongPeer {
    #[error("it is of a cluster with another name: check --cluster-name of both")]
    OtherCluster,
    #[error("it is another node: {0}")]
    OtherNode(NodeId),
    #[error("it has this node's own id")]
    Myself,
    #[error("there are too many others, and it did not get on")]
    TooMany,
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl Shared {
    pub fn new(env: Env, config: PeersConfig, service: Arc<dyn PeerService>) -> Self {
        Self {
            env,
            service,
            links: ArcSwap::default(),
            counters: Counters::default(),
            meter: Arc::default(),
            handshakes: Handshakes::default(),
            join: config.join.iter().map(|address| address.ip().to_canonical()).collect(),
            calls_max: config.calls_max,
            connections: AtomicU64::new(0),
            keys: config.keys,
            tls: config.tls,
            node: config.hello.node,
            generation: config.hello.generation,
            cluster: AtomicU64::new(config.hello.cluster),
            complaints: LogLimiter::default(),
        }
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    /// A place for the handshake of a connection from this address; None when all are in use.
    pub fn begin_handshake(&self, from: SocketAddr, meter: Arc<Meter>) -> Option<Place> {
        let from = from.ip().to_canonical();
        let links = self.links.load();
        let mut members = links.values().map(|peer| peer.0.address.lock().ip().to_canonical());
        let is_member = self.join.contains(&from) || members.any(|member| member == from);
        self.handshakes.begin(from, is_member, meter)
    }

    pub fn set_cluster(&self, cluster: u64) {
        self.cluster.store(cluster, Relaxed);
    }

    pub fn local(&self) -> Local {
        Local {
            keys: self.keys.clone(),
            tls: self.tls.clone(),
            versions: VERSIONS,
            hello: Hello {
                node: self.node,
                generation: self.generation,
                cluster: self.cluster.load(Relaxed),
            },
            entropy: self.env.entropy.clone(),
        }
    }

    /// A node that is of no cluster yet may speak to any, and be spoken to.
    pub fn check(&self, peer: &Hello, expected: Option<NodeId>) -> Result<(), WrongPeer> {
        let own = self.cluster.load(Relaxed);
        if peer.cluster != own && peer.cluster != 0 && own != 0 {
            return Err(WrongPeer::OtherCluster);
        }
        if peer.node == self.node {
            return Err(WrongPeer::Myself);
        }
        match expected {
            Some(expected) if expected != peer.node => Err(WrongPeer::OtherNode(peer.node)),
            _ => Ok(()),
        }
    }

    /// Whether a complaint about someone who is not let in may be logged.
    pub fn may_complain(&self) -> bool {
        self.complaints.is_due()
    }
}
