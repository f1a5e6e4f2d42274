//! The node as a member of a cluster: who the others are, which of them hold what, and how requests are carried out by several of them.
//!
//! | part | what it is |
//! | --- | --- |
//! | `calls` | requests to peers, and what their answers mean |
//! | `members` | who belongs: the member table, gossip, founding, joining, replacing |
//! | `clocks` | what the peers told of their clocks |
//! | `lives` | whose word counts: lives of members, and older copies of their disks |
//! | `coordinator` | reads, writes and lists at the level that a request asks for |
//! | `catch_up` | asking each peer for what this node lacks; healing what damage took |
//! | `serve` | what this node answers to its peers |
//! | `status` | what an admin is shown |
//!
//! Beside them, for all of them: `start` starts a member, `at_work` tells when what was begun has ended, `counters` are counted.
//!
//! Imports point one way, and a test enforces it: `calls <- members <- clocks <- lives <- coordinator <- catch_up <-
//! serve <- status` (an arrow points from what is used to its user). `Inner` holds a member's state, one field per
//! part, and all parts add methods to it. Through these methods, and not through imports, a few calls go against the
//! arrow: `members` asks `clocks` and `lives` whether this node is new or known, and writes records through the
//! `coordinator`; `catch_up` counts for `status`; and `serve` tells peers what `status` shows.
//!
//! # How the guarantees are met
//!
//! A write at quorum *asks first*: a quorum of the slot's replicas say the highest time they know, and whether they hold the request id.
//! The op is stamped after all of these times, so it comes after every op that was acknowledged at a quorum before (G5), and its stamp never
//! has to be changed; an acknowledged request id is always found (G6). Then it is appended here and at the other live replicas, and
//! acknowledged when a quorum has it durably (G1), whichever these are. It goes at once to as many as a quorum takes, and two milliseconds later
//! to the others, so that more goes in one message (`node::shards::spreading`). A clear also learns the quorum's clocks of the slot, and removes what they
//! cover, and with a value all parts that it may be made of (G7, `coordinator::seen`).
//!
//! A read at quorum compares digests of the slot's clock. Equal clocks mean equal sets of ops. Where too few are equal, what each lacks of the key is
//! exchanged, durably, before it is read (G4); and of what comes in meanwhile nothing is shown without all that was acknowledged before it (G7).
//!
//! What a peer misses, because it was away or its queue was full, it asks for itself, by its clock (`catch_up`).
//!
//! Invariant: a replica *votes* (its word counts) for a slot only if its disk holds everything that it ever
//! acknowledged there. So it does not vote while it is new, where it is damaged, or before the asking peer and all
//! others that it can reach have confirmed that its disk is not rolled back (`lives`). What a new one has durably
//! counts towards a quorum only where all other replicas know that it is a replica (`lives::named`).

mod at_work;
mod calls;
mod catch_up;
mod clocks;
mod coordinator;
mod counters;
mod lives;
mod members;
mod serve;
mod start;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::local::Local;
use super::membership::MembershipError;
use super::pages::Pages;
use super::peers::{Peer, Peers};
use crate::env::Env;
use crate::net::{KeyRing, Tls};
use crate::types::NodeId;

use at_work::AtWork;
use clocks::ClockBook;
use counters::{Counters, count};
use lives::Lives;
use members::Members;

pub use at_work::Task;
pub use calls::is_worth_another;
pub use coordinator::{Elsewhere, RemoteReader};
pub use members::{MemberChange, MemberRefused, MemberState, MemberTable};
pub use status::{ClusterFigures, ClusterStatus, LagFigures, MemberStatus, OwnStatus, PeerSeen};

/// How often the loops of a member look for what only time makes due.
const TICK: Duration = Duration::from_millis(500);

/// How a node takes part in a cluster; validated.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Takes gossip (UDP) and peers' connections (TCP).
    pub listen: SocketAddr,
    /// The address at which others reach it.
    pub advertise: SocketAddr,
    /// The address at which clients and other nodes reach the HTTP front.
    pub http: SocketAddr,
    /// Addresses of members to join.
    pub join: Vec<SocketAddr>,
    /// Whether to found a cluster if none of these belongs to one.
    pub founds: bool,
    pub keys: KeyRing,
    /// Certificates for the connections between nodes, instead of the key; gossip goes by the key all the same.
    pub tls: Option<Tls>,
    pub name: String,
    pub zone: String,
    pub weight: u32,
    /// Replicas of each slot. Counts only when the cluster is founded.
    pub replication: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("cannot take connections of other nodes at {address}, the address of --cluster-listen: {source}")]
    Peers {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the member table cannot be read or written: {0}")]
    Table(String),
}

/// Cheap to clone; all clones are the same member.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

/// What the parts of a member share.
struct Inner {
    env: Env,
    local: Local,
    me: NodeId,
    config: ClusterConfig,
    peers: Peers,
    members: Members,
    clocks: ClockBook,
    lives: Lives,
    taking: coordinator::Taking,
    named: lives::Named,
    /// About how many bytes of dots go into one message, or into one clear.
    dots_bytes_max: AtomicUsize,
    pages: Pages,
    serving: serve::Opened,
    observed: status::Observed,
    counters: Counters,
    at_work: AtWork,
    /// Numbers readers and pulls of this node at its peers.
    next_number: AtomicU64,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Cluster {
    /// To be held while a request is carried out.
    pub fn begin_request(&self) -> Task {
        self.inner.at_work.begin()
    }

    /// Whether this node belongs to the cluster, by the table as it knows it.
    pub fn is_member(&self) -> bool {
        self.inner.layout().table.is_up(self.inner.me)
    }

    /// Why it does not.
    pub fn why_no_member(&self) -> String {
        self.inner.why_no_member()
    }

    /// Why it takes no user data, if it does not: yet, or because there is another cluster.
    pub fn why_no_data(&self) -> Option<String> {
        let inner = &self.inner;
        let why = inner.why_unknown().or_else(|| inner.why_other_cluster());
        why.or_else(|| inner.why_gathering())
    }

    pub async fn stop(&self) {
        for task in std::mem::take(&mut *self.inner.tasks.lock()) {
            task.abort();
        }
        self.inner.stop_gossip().await;
        self.inner.peers.stop().await;
    }
}

impl Inner {
    /// Those of `replicas` that are other nodes and connected, in the order in which to ask them: peers that answer before silent ones, and
    /// otherwise in a circle of all ids from this node on. So each node mostly speaks to one other, and much goes into one message.
    fn up_peers(&self, replicas: &[NodeId]) -> Vec<Peer> {
        let others = replicas.iter().filter(|node| **node != self.me);
        let mut peers: Vec<Peer> = others
            .filter_map(|node| self.peers.get(*node))
            .filter(|peer| peer.is_up() && self.lives.is_introduced(peer.node()))
            .collect();
        sort_by_preference(&mut peers, self.me, |peer| (peer.node(), peer.waiting()));
        peers
    }
}

/// Peers that answer come first; otherwise in a circle of ids from `me` on. `seen` is called once for each: how long its oldest request
/// waits changes while they are sorted.
fn sort_by_preference<P>(peers: &mut [P], me: NodeId, seen: impl Fn(&P) -> (NodeId, Duration)) {
    peers.sort_by_cached_key(|peer| {
        let (node, waiting) = seen(peer);
        // A frozen peer shows by a request that waits for long.
        (waiting > calls::SLOW, node < me, node)
    });
}

#[cfg(test)]
pub mod tests;
