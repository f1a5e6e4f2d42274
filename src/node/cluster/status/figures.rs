//! What this node counts and sees, as `/metrics` shows it.
//!
//! How far a node is behind is told by what it lacked when it last compared its clock with a peer's, less what has come since. So it is
//! right at the moment that a copy ends, and ops that are merely on their way do not count for long. Bytes are an estimate: ops times the
//! mean size of an op.

use std::sync::atomic::Ordering;

use crate::core::clock::SlotClocks;
use crate::core::slot::SYSTEM_SLOT;
use crate::node::cluster::{Cluster, Inner};
use crate::node::peers::{Peer, PeerFigures, PeersFigures};
use crate::shard::ShardStats;
use crate::types::NodeId;

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
    /// How many members there are, and how many of them gossip sees alive.
    pub fn seen(&self) -> (usize, usize) {
        self.inner.seen()
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
        let (layout, view) = (self.layout(), self.members.view.borrow());
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

    pub(super) fn own_lag(&self) -> Option<LagFigures> {
        let seen = self.peers_seen();
        if seen.is_empty() && self.layout().table.is_up(self.me) {
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
    pub(super) fn unsynced_slots(&self) -> u64 {
        let slots = self.layout().slots_of(self.me) as u64;
        let system = slots > 0 && !self.votes(SYSTEM_SLOT);
        slots - self.voting_slots().min(slots) + u64::from(system)
    }

    /// Slots of users' data for which this node's word counts.
    fn voting_slots(&self) -> u64 {
        self.voting(self.layout().shared_with(self.me)) as u64
    }

    /// Why this node's word does not count everywhere, if it does not: its own disk, or others that know nothing of its life.
    fn why_not_counting(&self) -> Option<String> {
        let unsynced = self.unsynced_slots();
        if unsynced > 0 {
            return Some(uncounted(unsynced, self.layout().slots_of(self.me) as u64));
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

    pub(super) fn quarantined_segments(&self) -> u64 {
        let shards = self.local.figures();
        shards.iter().map(|shard| shard.stats.quarantined_files).sum()
    }
}

/// `unsynced` with the system's slot, `slots` without it.
fn uncounted(unsynced: u64, slots: u64) -> String {
    format!(
        "the node's word does not count for {unsynced} of its {} slots yet (the system's own among them)",
        slots + 1
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn of_its_slots_no_more_than_all_do_not_count() {
        let all = super::uncounted(1025, 1024);
        assert!(all.contains("for 1025 of its 1025 slots"), "{all}");
    }
}
