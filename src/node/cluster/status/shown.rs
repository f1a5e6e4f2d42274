//! What an admin is shown of the cluster: what each member says of itself, and what this one sees of it.
//!
//! How far a node is behind is told by what it lacked when it last compared its clock with a peer's, less what has come since. So it is
//! right at the moment that a copy ends, and ops that are merely on their way do not count for long. Bytes are an estimate: ops times the
//! mean size of an op.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::core::clock::SlotClocks;
use crate::core::slot::SYSTEM_SLOT;
use crate::node::cluster::members::MemberState;
use crate::node::cluster::{Cluster, Inner, MemberChange, MemberRefused};
use crate::node::peers::{Peer, PeerFigures, PeersFigures};
use crate::shard::ShardStats;
use crate::types::NodeId;
use crate::wire::{Request, Response};

const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What a member says of itself. What it does not know, or does not tell in its version, is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnStatus {
    pub slots: u64,
    /// Of these, for which its word does not count: it is new or damaged there, or was started and did not meet the others yet.
    pub unsynced_slots: u64,
    /// Absent while it has compared with nobody.
    pub lag_ops: Option<u64>,
    pub lag_bytes: Option<u64>,
    pub lag_seconds: Option<f64>,
    pub quarantined_segments: u64,
    pub wall_ms: u64,
    pub quorum_failures: Option<u64>,
    /// What comes in from other replicas.
    pub stream_ops_per_s: Option<f64>,
    pub stream_bytes_per_s: Option<f64>,
}

/// How far this node is behind others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LagFigures {
    pub ops: u64,
    /// As many times the mean size of an op; absent where no op was seen to take a mean of.
    pub bytes: Option<u64>,
    /// Since nothing was lacking, or since the start.
    pub seconds: f64,
}

/// What this node sees of a peer.
#[derive(Debug, Clone)]
pub struct PeerSeen {
    pub node: NodeId,
    pub link: PeerFigures,
    /// How far this node is behind it. Absent when that cannot be known: it is away, or was not compared with yet.
    pub lag: Option<LagFigures>,
    /// How far its wall clock is ahead.
    pub clock_skew_ms: Option<i64>,
}

/// One line of `kv cluster status`.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberStatus {
    pub node: NodeId,
    pub peer: std::net::SocketAddr,
    pub http: std::net::SocketAddr,
    pub zone: String,
    pub weight: u32,
    /// Absent for one that waits to be let in.
    pub state: Option<MemberState>,
    pub alive: bool,
    /// By this node's table.
    pub slots: usize,
    /// Absent when it does not answer.
    pub own: Option<OwnStatus>,
    /// How far its wall clock is ahead of this node's; absent when it does not answer.
    pub clock_skew_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ClusterStatus {
    pub name: String,
    /// Of the member that answers.
    pub node: NodeId,
    pub replication: usize,
    pub members: Vec<MemberStatus>,
}

/// Figures for metrics.
#[derive(Debug, Clone, Default)]
pub struct ClusterFigures {
    pub quorum_failures: u64,
    pub read_repairs: u64,
    pub forwarded: u64,
    pub hedged: u64,
    pub pulled_ops: u64,
    pub pulled_bytes: u64,
    pub taken_ops: u64,
    pub taken_bytes: u64,
    pub reconciled_slots: u64,
    pub refused_datagrams: Vec<(&'static str, u64)>,
    /// Of all connections between nodes that concern no single peer.
    pub links: PeersFigures,
    pub peers: Vec<PeerSeen>,
    pub unsynced_slots: u64,
    pub voting_slots: u64,
    pub quarantined_segments: u64,
    pub members: u64,
    /// As gossip sees them.
    pub members_alive: u64,
}

impl Cluster {
    pub async fn change_members(&self, change: MemberChange) -> Result<(), MemberRefused> {
        self.inner.change_members(change).await
    }

    pub async fn status(&self) -> ClusterStatus {
        self.inner.status().await
    }

    /// How many members there are, and how many of them gossip sees alive.
    pub fn seen(&self) -> (usize, usize) {
        self.inner.seen()
    }

    /// How many slots this node holds, without the system's.
    pub fn slots(&self) -> u64 {
        self.inner.own_status().slots
    }

    /// Why this node's word does not count everywhere, if it does not.
    pub fn why_not_counting(&self) -> Option<String> {
        self.inner.why_not_counting()
    }

    pub fn figures(&self) -> ClusterFigures {
        self.inner.figures()
    }
}

impl Inner {
    fn seen(&self) -> (usize, usize) {
        let (layout, view) = (self.layouts.current(), self.view.borrow());
        let alive = |node: NodeId| view.nodes.get(&node).is_some_and(|seen| seen.alive);
        let members = layout.table.up().map(|(node, _)| alive(node));
        members.fold((0, 0), |(members, alive), is_alive| {
            (members + 1, alive + usize::from(is_alive))
        })
    }

    fn figures(&self) -> ClusterFigures {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let (members, members_alive) = self.seen();
        ClusterFigures {
            members: members as u64,
            members_alive: members_alive as u64,
            quorum_failures: read(&counters.quorum_failures),
            read_repairs: read(&counters.read_repairs),
            forwarded: read(&counters.forwarded),
            hedged: read(&counters.hedged),
            pulled_ops: read(&counters.pulled_ops),
            pulled_bytes: read(&counters.pulled_bytes),
            taken_ops: read(&counters.taken_ops),
            taken_bytes: read(&counters.taken_bytes),
            reconciled_slots: read(&counters.reconciled_slots),
            refused_datagrams: self.refused_datagrams(),
            links: self.peers.figures(),
            peers: self.peers_seen(),
            unsynced_slots: self.unsynced_slots(),
            voting_slots: self.voting_slots(),
            quarantined_segments: self.quarantined_segments(),
        }
    }

    fn peers_seen(&self) -> Vec<PeerSeen> {
        let (held, op_bytes) = (self.local.clocks(), self.mean_op_bytes());
        let seen = |peer: Peer| PeerSeen {
            node: peer.node(),
            link: peer.figures(),
            lag: self.lag_behind(&peer, &held, op_bytes),
            clock_skew_ms: self.observed.skew_ms(&peer),
        };
        self.peers.all().into_iter().map(seen).collect()
    }

    fn lag_behind(&self, peer: &Peer, held: &SlotClocks, op_bytes: Option<f64>) -> Option<LagFigures> {
        let lag = self.clocks.lag(peer.node(), held)?;
        // That of one that is away: what it was known to have is lacking as before, but it may have more.
        (peer.is_up() || lag.ops > 0).then(|| LagFigures {
            ops: lag.ops,
            bytes: match lag.ops {
                0 => Some(0),
                ops => op_bytes.map(|bytes| (ops as f64 * bytes) as u64),
            },
            seconds: lag.time.as_secs_f64(),
        })
    }

    /// Of what came from other replicas; where nothing did, of what is on the disk.
    fn mean_op_bytes(&self) -> Option<f64> {
        let taken = &self.counters;
        let (ops, bytes) = (
            taken.taken_ops.load(Ordering::Relaxed),
            taken.taken_bytes.load(Ordering::Relaxed),
        );
        let (ops, bytes) = match ops {
            0 => {
                let shards = self.local.figures();
                let sum = |figure: fn(&ShardStats) -> u64| shards.iter().map(|shard| figure(&shard.stats)).sum();
                (sum(|stats| stats.sealed_ops), sum(|stats| stats.segment_bytes))
            }
            ops => (ops, bytes),
        };
        (ops > 0).then(|| bytes as f64 / ops as f64)
    }

    fn own_lag(&self) -> Option<LagFigures> {
        let seen = self.peers_seen();
        if seen.is_empty() && self.layouts.current().table.is_up(self.me) {
            return Some(LagFigures::default());
        }
        // One that is there and was not compared with may have anything.
        if seen.iter().any(|peer| peer.link.is_up && peer.lag.is_none()) {
            return None;
        }
        // What several peers hold of it is lacking once.
        let lags = seen.into_iter().filter_map(|peer| peer.lag);
        lags.reduce(|a, b| LagFigures {
            ops: a.ops.max(b.ops),
            bytes: a.bytes.max(b.bytes),
            seconds: a.seconds.max(b.seconds),
        })
    }

    /// Slots for which this node's word does not count, the system's own among them.
    fn unsynced_slots(&self) -> u64 {
        let slots = self.layouts.current().slots_of(self.me) as u64;
        let system = slots > 0 && !self.votes(SYSTEM_SLOT);
        slots - self.voting_slots().min(slots) + u64::from(system)
    }

    /// Slots of users' data for which this node's word counts.
    fn voting_slots(&self) -> u64 {
        let layout = self.layouts.current();
        let own = layout.placement.slots_of(self.me);
        own.filter(|slot| *slot != SYSTEM_SLOT && self.votes(*slot)).count() as u64
    }

    /// Why this node's word does not count everywhere, if it does not: its own disk, or others that know nothing of its life.
    fn why_not_counting(&self) -> Option<String> {
        let slots = self.layouts.current().slots_of(self.me);
        let unsynced = self.unsynced_slots();
        if unsynced > 0 {
            return Some(format!(
                "the node's word does not count for {unsynced} of its {slots} slots yet"
            ));
        }
        let peers = self.peers.all();
        let mut strange = peers
            .iter()
            .filter(|peer| peer.is_up() && !self.lives.is_introduced(peer.node()));
        let peer = strange.next()?.node();
        Some(format!(
            "the member {peer} has not recorded that the node was started: its word does not count there yet"
        ))
    }

    fn quarantined_segments(&self) -> u64 {
        let shards = self.local.figures();
        shards.iter().map(|shard| shard.stats.quarantined_files).sum()
    }

    fn own_status(&self) -> OwnStatus {
        let lag = self.own_lag();
        let rate = self.observed.stream_rate();
        OwnStatus {
            slots: self.layouts.current().slots_of(self.me) as u64,
            unsynced_slots: self.unsynced_slots(),
            lag_ops: lag.map(|lag| lag.ops),
            lag_bytes: lag.and_then(|lag| lag.bytes),
            lag_seconds: lag.map(|lag| lag.seconds),
            quarantined_segments: self.quarantined_segments(),
            wall_ms: self.env.wall.now().0,
            quorum_failures: Some(self.counters.quorum_failures.load(Ordering::Relaxed)),
            stream_ops_per_s: rate.map(|rate| rate.ops_per_s),
            stream_bytes_per_s: rate.map(|rate| rate.bytes_per_s),
        }
    }

    pub(in crate::node::cluster) fn own_status_json(&self) -> String {
        serde_json::to_string(&self.own_status()).unwrap_or_default()
    }

    async fn status(&self) -> ClusterStatus {
        let layout = self.layouts.current();
        let view = &self.view();
        let slots_of = |node| layout.slots_of(node);
        let members = layout.table.members().map(|(node, record)| async move {
            let link = self.peers.get(node);
            let own = match &link {
                _ if node == self.me => Some(self.own_status()),
                Some(peer) => self.status_of(peer).await,
                None => None,
            };
            let clock_skew_ms = match &link {
                _ if node == self.me => Some(0),
                Some(peer) => self.observed.skew_ms(peer),
                None => None,
            };
            // Who has moved is where gossip sees it.
            let seen = view.nodes.get(&node).filter(|seen| seen.alive);
            let (peer, http) = seen.map_or((record.peer, record.http), |seen| (seen.about.peer, seen.about.http));
            MemberStatus {
                node,
                peer,
                http,
                zone: record.zone.clone(),
                weight: record.weight,
                state: Some(record.state),
                alive: own.is_some(),
                slots: slots_of(node),
                clock_skew_ms: clock_skew_ms.filter(|_| own.is_some()),
                own,
            }
        });
        let mut members = join_all(members).await;
        let waiting = view
            .nodes
            .iter()
            .filter(|(node, seen)| seen.alive && layout.table.get(**node).is_none());
        members.extend(waiting.map(|(node, seen)| MemberStatus {
            node: *node,
            peer: seen.about.peer,
            http: seen.about.http,
            zone: seen.about.zone.clone(),
            weight: 0,
            state: None,
            alive: true,
            slots: 0,
            own: None,
            clock_skew_ms: None,
        }));
        ClusterStatus {
            name: self.config.name.clone(),
            node: self.me,
            replication: layout.table.replication(),
            members,
        }
    }

    /// What the peer says of itself, if it answers. Its wall clock is noted.
    pub(super) async fn status_of(&self, peer: &Peer) -> Option<OwnStatus> {
        let asked_at = Instant::now();
        let call = peer.call(Request::Status).ok()?;
        let Ok(Ok(Response::Status(text))) = tokio::time::timeout(ANSWER_MAX, call).await else {
            return None;
        };
        let status: OwnStatus = serde_json::from_str(&text).ok()?;
        let now = self.env.wall.now();
        self.observed.note_wall(peer, status.wall_ms, now.0, asked_at);
        Some(status)
    }
}
