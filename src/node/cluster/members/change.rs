//! Changes of the member table that an admin asks for, and why the table is not changed.

use std::net::SocketAddr;

use super::table::{MemberState, MemberTable, Record};
use crate::node::OpError;
use crate::node::cluster::Inner;
use crate::planted::{Bug, planted};
use crate::types::NodeId;

/// A change of the member table that an admin asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    Remove(NodeId),
    Replace { old: NodeId, new: NodeId },
}

impl MemberChange {
    /// Who does not answer any more by the word of whoever asks for this.
    fn lost(self) -> Option<NodeId> {
        match self {
            Self::Remove(_) => None,
            Self::Replace { old, .. } => Some(old),
        }
    }

    /// Whether the table says already what this would make it say.
    fn is_done(self, table: &MemberTable) -> bool {
        match self {
            Self::Remove(node) => table.is_removed(node),
            Self::Replace { old, new } => table.is_removed(old) && table.is_up(new) && table.has_replaced(new, old),
        }
    }
}

/// Why the member table is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberRefused {
    #[error("this node is not a member of the cluster yet")]
    NotMember,
    #[error("node {0} belongs, or belonged, to a cluster, but its own copy of the member table is not whole")]
    NotWhole(NodeId),
    #[error("node {0} is still coming in itself")]
    ComingIn(NodeId),
    #[error("the address {0} is that of the member {1}, which is there")]
    Taken(SocketAddr, NodeId),
    #[error(
        "node {1} says that it is reached at {0}, which is a member's address, and node {2} is: give each node its own --advertise"
    )]
    Elsewhere(SocketAddr, NodeId, NodeId),
    #[error(
        "node {1} says that it is reached at {0}, which is the address of a member that is away, and nobody is: check its --advertise"
    )]
    NotReached(SocketAddr, NodeId),
    #[error("node {0} does not ask to be let in as an empty node: start it with --join and an empty data folder")]
    NotAsking(NodeId),
    #[error("there is no member {0}")]
    Unknown(NodeId),
    #[error("the member {0} is there: only a lost one can be replaced; stop it first")]
    There(NodeId),
    #[error("node {0} was removed from the cluster; start it with an empty data folder to join as a new one")]
    Removed(NodeId),
    #[error("node {0} holds data and is no member: start it with an empty data folder to join")]
    NotEmpty(NodeId),
    #[error("node {0} is a member already")]
    Member(NodeId),
    #[error("node {0} was not seen: start it first, with --join and an empty data folder")]
    NotSeen(NodeId),
    #[error(
        "the member {0} does not answer, and may hold user data: a node can join, or go, when all members are up and none holds any"
    )]
    Silent(NodeId),
    #[error("the cluster holds user data: a node can only take a lost one's place, with `kv cluster replace OLD NEW`")]
    HoldsData,
    #[error("node {0} is the last member: without it there is no cluster")]
    Last(NodeId),
    #[error(transparent)]
    Store(#[from] OpError),
}

impl Inner {
    /// Changes the member table as an admin asks.
    pub(in crate::node::cluster) async fn change_members(&self, change: MemberChange) -> Result<(), MemberRefused> {
        let _one = self.members.changing.lock().await;
        if !self.layout().table.is_up(self.me) {
            return Err(MemberRefused::NotMember);
        }
        let settled = self.settle_table(change.lost()).await;
        let table = self.layout().table.clone();
        // Asked twice, through this node or another one.
        if change.is_done(&table) {
            return Ok(settled?);
        }
        if !table.is_up(self.me) {
            return Err(MemberRefused::NotMember);
        }
        let up = |node| table.get(node).filter(|record| record.state == MemberState::Up);
        let record = match change {
            MemberChange::Remove(node) => {
                let held = up(node).ok_or(MemberRefused::Unknown(node))?;
                if table.up().all(|(member, _)| member == node) {
                    return Err(MemberRefused::Last(node));
                }
                if !planted(Bug::RemovedWithData) {
                    self.check_no_data(&table).await?;
                }
                Record {
                    state: MemberState::Removed,
                    ..held.clone()
                }
            }
            MemberChange::Replace { old, new } => {
                let known = || table.get(old).filter(|_| planted(Bug::PlaceGivenTwice));
                let held = up(old).or_else(known).ok_or(MemberRefused::Unknown(old))?;
                match table.get(new).map(|record| record.state) {
                    Some(MemberState::Up) => return Err(MemberRefused::Member(new)),
                    Some(MemberState::Removed) => return Err(MemberRefused::Removed(new)),
                    Some(MemberState::Displaced) | None => {}
                }
                if old == self.me || self.peers.get(old).is_some_and(|peer| peer.is_up()) {
                    return Err(MemberRefused::There(old));
                }
                if !self.members.join_requests.is_empty_node(new) {
                    return Err(MemberRefused::NotAsking(new));
                }
                let view = self.view();
                let seen = view.nodes.get(&new).ok_or(MemberRefused::NotSeen(new))?;
                Record {
                    node: new.to_string(),
                    peer: seen.about.peer,
                    http: seen.about.http,
                    zone: seen.about.zone.clone(),
                    state: MemberState::Up,
                    replaces: Some(old.to_string()),
                    ..held.clone()
                }
            }
        };
        Ok(self.add_record(&record).await?)
    }
}
