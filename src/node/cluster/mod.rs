//! The node as a member of a cluster: who the others are, which of them hold what, and how requests are carried out by several of them.
//!
//! | file | job |
//! | --- | --- |
//! | `start` | starting a member |
//! | `table` | the member table: who belongs. Kept as records of the system's own key range, which every node holds |
//! | `layout` | the table and the placement that follows from it, watched for change |
//! | `gossip` | who is there |
//! | `gathering` | the first moments of a cluster, when user data would keep out who is still on the way |
//! | `gather` | asking several replicas, until enough of them answered |
//! | `write`, `read`, `elsewhere`, `taking`, `list` | the coordinator: what a request's level asks for |
//! | `seen` | what a later clear may remove |
//! | `forward` | requests for slots that this node does not hold |
//! | `tries` | the replicas that such a request was sent to |
//! | `serve`, `opened` | what this node answers to others; readers and pulls that they opened |
//! | `sync` | catching up: asking each peer for what this node lacks |
//! | `compare`, `pull` | its steps: what both hold, and taking what is lacking |
//! | `settled` | when that can be left out |
//! | `offer` | bringing to its replicas what was taken of a slot by the table from before |
//! | `clock_book` | what the others told of their clocks, and what all of them know |
//! | `heal` | when a slot that lost something is whole again |
//! | `give_up`, `at_work` | ops that nobody holds any more |
//! | `lives`, `lives_file` | which life of each member was met, and whether it runs on an older copy of its disk |
//! | `named` | whether what a new member has durably makes a quorum |
//! | `told` | what each peer told of its clocks, by which that shows |
//! | `join` | coming in, letting in, replacing |
//! | `asked` | what came of a round of asking |
//! | `standstill` | no user's write falls between two member tables |
//! | `asking` | who asks to be let in, and whose lost disk that shows |
//! | `strangers` | who is there and stands in no record: a table that is too old, or a second cluster |
//! | `place` | whose an address is, and a lost node's own seat |
//! | `observe` | what shows only over time: clocks of others, the rate of the stream |
//! | `status` | what an admin is shown |
//!
//! # How the guarantees are met
//!
//! A write at quorum *asks first*: a quorum of the slot's replicas say the highest time they know, and whether they hold the request id.
//! The op is stamped after all of these times, so it comes after every op that was acknowledged at a quorum before (G5), and its stamp never
//! has to be changed; an acknowledged request id is always found (G6). Then it is appended here and at the other live replicas, and
//! acknowledged when a quorum has it durably (G1), whichever these are. It goes at once to as many as a quorum takes, and two milliseconds later
//! to the others, so that more goes in one message (`node::spreading`). A clear also learns the quorum's clocks of the slot, and removes what they
//! cover, and with a value all parts that it may be made of (G7, `seen`).
//!
//! A read at quorum compares digests of the slot's clock. Equal clocks mean equal sets of ops. Where too few are equal, what each lacks of the key is
//! exchanged, durably, before it is read (G4); and of what comes in meanwhile nothing is shown without all that was acknowledged before it (G7).
//!
//! What a peer misses, because it was away or its queue was full, it asks for itself, by its clock (`sync`).
//!
//! Invariant: a replica's word counts (it *votes*) only if its disk holds all that it ever acknowledged of the slot: not while it is new, not
//! where it is damaged, not before the peer that asks, and whoever else it can reach, has seen that it is no older copy of itself (`lives`). What a
//! new one has durably makes a quorum only where all other replicas know that it is one (`named`).

mod asked;
mod asking;
mod at_work;
mod clock_book;
mod compare;
mod elsewhere;
mod forward;
mod gather;
mod gathering;
mod give_up;
mod gossip;
mod heal;
mod join;
mod layout;
mod list;
mod lives;
mod lives_file;
mod named;
mod observe;
mod offer;
mod opened;
mod place;
mod pull;
mod read;
mod seen;
mod serve;
mod settled;
mod standstill;
mod start;
mod status;
mod strangers;
mod sync;
mod table;
mod taking;
mod told;
mod tries;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::OpError;
use super::local::Local;
use super::membership::{ClusterView, Membership, MembershipError};
use super::peers::{Peer, Peers, PeersConfig};
use crate::core::slot::SlotId;
use crate::env::Env;
use crate::net::{Hello, KeyRing, Tls};
use crate::types::{NodeId, UserId};

use clock_book::ClockBook;
use layout::Layouts;
use lives::Lives;

pub use at_work::Task;
pub use elsewhere::Elsewhere;
pub use forward::{RemoteReader, is_worth_another};
pub use join::{MemberChange, MemberRefused};
pub use status::{ClusterFigures, ClusterStatus, LagFigures, MemberStatus, OwnStatus, PeerSeen};
pub use table::{MemberState, MemberTable};

/// How often the loops of a member look for what only time makes due.
const TICK: Duration = Duration::from_millis(500);

/// How a node takes part in a cluster; validated.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Takes gossip (UDP) and peers' connections (TCP).
    pub listen: SocketAddr,
    /// Where others reach that.
    pub advertise: SocketAddr,
    /// Where others reach the HTTP front.
    pub http: SocketAddr,
    /// Addresses of members to join.
    pub join: Vec<SocketAddr>,
    /// Founds a cluster if none of these belongs to one.
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

struct Inner {
    env: Env,
    local: Local,
    me: NodeId,
    config: ClusterConfig,
    peers: Peers,
    membership: Mutex<Option<Membership>>,
    /// What gossip saw last.
    view: watch::Sender<ClusterView>,
    layouts: Layouts,
    clocks: ClockBook,
    lives: Lives,
    named: named::Named,
    counters: Counters,
    observed: observe::Observed,
    serving: opened::Opened,
    /// Why this node is not let in, as it was told or knows itself.
    why_not_in: Mutex<Option<String>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stopping: AtomicBool,
    /// Numbers readers and pulls of this node at its peers.
    next_number: AtomicU64,
    asking: asking::Asking,
    taking: taking::Taking,
    at_work: at_work::AtWork,
    gathering: gathering::Gathering,
    standstill: standstill::Standstill,
    strangers: strangers::Strangers,
    /// About how many bytes of dots go into one message, or into one clear.
    dots_bytes_max: AtomicUsize,
    /// Held by whoever changes the member table.
    changing: tokio::sync::Mutex<()>,
}

/// What went wrong or was repaired, since the start.
#[derive(Debug, Default)]
struct Counters {
    quorum_failures: AtomicU64,
    read_repairs: AtomicU64,
    forwarded: AtomicU64,
    hedged: AtomicU64,
    pulled_ops: AtomicU64,
    pulled_bytes: AtomicU64,
    /// Ops that came from other replicas, live, for a read, or to catch up.
    taken_ops: AtomicU64,
    taken_bytes: AtomicU64,
    reconciled_slots: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Cluster {
    /// To be held while a request is carried out.
    pub fn begin(&self) -> Task {
        self.inner.at_work.begin()
    }

    /// Whether this node belongs to the cluster, by the table as it knows it.
    pub fn is_member(&self) -> bool {
        self.inner.layouts.current().table.is_up(self.inner.me)
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
        self.inner.stopping.store(true, Ordering::Release);
        for task in std::mem::take(&mut *self.inner.tasks.lock()) {
            task.abort();
        }
        let membership = self.inner.membership.lock().take();
        if let Some(membership) = membership {
            membership.stop().await;
        }
        self.inner.peers.stop().await;
    }
}

impl Inner {
    /// Whether this node's own word counts for the slot.
    fn votes(&self, slot: SlotId) -> bool {
        !self.clocks.is_new()
            && self.local.is_whole(slot)
            && self.is_known()
            && self.was_told(slot)
            && self.may_vote_by_table()
    }

    /// The same, for a request of a peer: it has to know this node's life, and both have to be replicas by this node's table. One that was
    /// replaced, and runs on, gets no quorum, and one that goes by an older table counts on nobody who held the slot by that.
    fn votes_for(&self, slot: SlotId, peer: NodeId) -> bool {
        self.votes(slot) && self.knows_replica(slot, peer)
    }

    fn knows_replica(&self, slot: SlotId, peer: NodeId) -> bool {
        let are_replicas = || {
            let layout = self.layouts.current();
            let replicas = layout.placement.replicas(slot);
            replicas.contains(&peer) && replicas.contains(&self.me)
        };
        self.lives.is_introduced(peer) && are_replicas()
    }

    /// Whether what this node lists counts.
    fn may_list(&self) -> bool {
        !self.clocks.is_new() && self.is_known() && self.told_all() && self.may_vote_by_table()
    }

    /// Refuses what a client asks of a member that was removed: it hears of no change of users any more, and who goes on using it should not.
    /// Of one that may be no more than a part of its cluster. And what is a user's, where another cluster may hold what this one lacks.
    fn refuse_if_outside(&self, user: &UserId) -> Result<(), OpError> {
        if self.layouts.current().table.is_removed(self.me) {
            return Err(OpError::NotReady(self.why_no_member()));
        }
        if let Some(why) = self.why_unknown() {
            return Err(OpError::NotReady(why));
        }
        match self.why_other_cluster().filter(|_| !user.is_system()) {
            Some(why) => Err(OpError::NotReady(why)),
            None => Ok(()),
        }
    }

    fn why_no_member(&self) -> String {
        if self.layouts.current().table.is_removed(self.me) {
            return MemberRefused::Removed(self.me).to_string();
        }
        let why = self.why_not_in.lock().clone();
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        format!("the node was not let into the cluster yet{why}")
    }

    /// Who is there, by gossip.
    fn view(&self) -> ClusterView {
        self.view.borrow().clone()
    }

    fn refused_datagrams(&self) -> Vec<(&'static str, u64)> {
        let membership = self.membership.lock();
        let counters = membership.as_ref().map(Membership::counters);
        counters
            .map(|counters| counters.refused.by_reason().collect())
            .unwrap_or_default()
    }

    /// The other replicas of these that are connected, those first that are to be asked first: those that answer, in a circle of all from this node
    /// on. So each node mostly speaks to one other, and much goes into one message.
    fn up_peers(&self, replicas: &[NodeId]) -> Vec<Peer> {
        let others = replicas.iter().filter(|node| **node != self.me);
        let mut peers: Vec<Peer> = others
            .filter_map(|node| self.peers.get(*node))
            .filter(|peer| peer.is_up() && self.lives.is_introduced(peer.node()))
            .collect();
        // A frozen peer shows by a request that waits for long.
        peers.sort_by_key(|peer| (peer.waiting() > gather::SLOW, peer.node() < self.me, peer.node()));
        peers
    }
}

#[cfg(test)]
mod tests;
