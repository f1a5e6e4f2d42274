//! What an admin is shown of the cluster: what each member says of itself, and what this one sees of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::node::cluster::members::MemberState;
use crate::node::cluster::{Cluster, Inner, MemberChange, MemberRefused};
use crate::node::peers::Peer;
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

impl Cluster {
    pub async fn change_members(&self, change: MemberChange) -> Result<(), MemberRefused> {
        self.inner.change_members(change).await
    }

    pub async fn status(&self) -> ClusterStatus {
        self.inner.status().await
    }

    /// How many slots this node holds, without the system's.
    pub fn slots(&self) -> u64 {
        self.inner.own_status().slots
    }
}

impl Inner {
    fn own_status(&self) -> OwnStatus {
        let lag = self.own_lag();
        let rate = self.observed.stream_rate();
        OwnStatus {
            slots: self.layout().slots_of(self.me) as u64,
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
        let layout = self.layout();
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
