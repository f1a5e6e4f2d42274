//! What an admin is shown of the cluster: what each member says of itself, and what this one sees of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::table::MemberState;
use super::{Cluster, Inner, MemberChange, MemberRefused};
use crate::core::slot::SYSTEM_SLOT;
use crate::node::peers::{PeerFigures, PeersFigures};
use crate::types::NodeId;
use crate::wire::{Request, Response};

const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnStatus {
    pub slots: u64,
    /// Slots of which it does not hold all that it should, as far as it knows.
    pub unsynced_slots: u64,
    pub lag_ops: u64,
    pub lag_bytes: u64,
    pub lag_seconds: f64,
    pub quarantined_segments: u64,
    pub wall_ms: u64,
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
    /// Absent when it does not answer.
    pub own: Option<OwnStatus>,
    /// Its wall clock against this node's.
    pub clock_skew_ms: i64,
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
    pub reconciled_slots: u64,
    pub refused_datagrams: Vec<(&'static str, u64)>,
    /// Of all connections between nodes that concern no single peer.
    pub links: PeersFigures,
    /// Of each peer: the link, and how many ops this node lacks of it.
    pub peers: Vec<(NodeId, bool, PeerFigures, u64)>,
    pub unsynced_slots: u64,
}

impl Cluster {
    pub async fn change_members(&self, change: MemberChange) -> Result<(), MemberRefused> {
        self.inner.change_members(change).await
    }

    pub async fn status(&self) -> ClusterStatus {
        self.inner.status().await
    }

    pub fn figures(&self) -> ClusterFigures {
        self.inner.figures()
    }
}

impl Inner {
    fn figures(&self) -> ClusterFigures {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        ClusterFigures {
            quorum_failures: read(&counters.quorum_failures),
            read_repairs: read(&counters.read_repairs),
            forwarded: read(&counters.forwarded),
            hedged: read(&counters.hedged),
            pulled_ops: read(&counters.pulled_ops),
            pulled_bytes: read(&counters.pulled_bytes),
            reconciled_slots: read(&counters.reconciled_slots),
            refused_datagrams: self.refused_datagrams(),
            links: self.peers.figures(),
            peers: self
                .peers
                .all()
                .into_iter()
                .map(|peer| {
                    let lag_ops = self.clocks.lag_ops(peer.node());
                    (peer.node(), peer.is_up(), peer.figures(), lag_ops)
                })
                .collect(),
            unsynced_slots: self.own_status().unsynced_slots,
        }
    }

    fn own_status(&self) -> OwnStatus {
        let layout = self.layouts.current();
        let held = layout.placement.slots_of(self.me);
        // Everybody holds the system's.
        let slots = held.filter(|slot| *slot != SYSTEM_SLOT).count() as u64;
        let quarantined = self
            .local
            .figures()
            .iter()
            .map(|shard| shard.stats.quarantined_files)
            .sum();
        let lags = self
            .peers
            .all()
            .into_iter()
            .map(|peer| self.clocks.lag_ops(peer.node()));
        OwnStatus {
            slots,
            unsynced_slots: match self.clocks.is_new() {
                true => slots,
                false => self.local.lost().slots().count() as u64,
            },
            // What several peers hold of it is lacking once.
            lag_ops: lags.max().unwrap_or(0),
            lag_bytes: 0,
            lag_seconds: 0.0,
            quarantined_segments: quarantined,
            wall_ms: self.env.wall.now().0,
        }
    }

    pub(super) fn own_status_json(&self) -> String {
        serde_json::to_string(&self.own_status()).unwrap_or_default()
    }

    async fn status(&self) -> ClusterStatus {
        let layout = self.layouts.current();
        let view = self.view();
        let members = layout.table.members().map(|(node, record)| async move {
            let own = self.status_of(node).await;
            let now = self.env.wall.now().0 as i64;
            MemberStatus {
                node,
                peer: record.peer,
                http: record.http,
                zone: record.zone.clone(),
                weight: record.weight,
                state: Some(record.state),
                alive: own.is_some(),
                clock_skew_ms: own.as_ref().map_or(0, |own| own.wall_ms as i64 - now),
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
            own: None,
            clock_skew_ms: 0,
        }));
        ClusterStatus {
            name: self.config.name.clone(),
            node: self.me,
            replication: layout.table.replication(),
            members,
        }
    }

    async fn status_of(&self, node: NodeId) -> Option<OwnStatus> {
        if node == self.me {
            return Some(self.own_status());
        }
        let call = self.peers.get(node)?.call(Request::Status).ok()?;
        match tokio::time::timeout(ANSWER_MAX, call).await {
            Ok(Ok(Response::Status(text))) => serde_json::from_str(&text).ok(),
            _ => None,
        }
    }
}
