//! The calls on the cluster itself. All need an admin.
//!
//! A change of the members is asked of one node at a time; when that fails or stays silent, of the next: done twice it is the same as once, and a
//! member that knows it is done says so. One that does not know it yet may refuse it; then it is looked at what is so.

use serde::Serialize;

use crate::api::{AskClusterStatus, ClusterStatus, MemberState, RemoveNode, ReplaceNode, Status, path};

use super::Client;
use super::error::ClientError;
use super::repeat::{Again, Repeat};

impl Client {
    /// The members, as the node that answers sees them.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, ClientError> {
        let body = AskClusterStatus {
            user: Some(self.user()),
        };
        self.post(path::CLUSTER_STATUS, &body, Repeat::READ).await
    }

    /// Takes a node out of the cluster, for good.
    pub async fn cluster_remove(&self, node: &str) -> Result<(), ClientError> {
        let body = RemoveNode {
            node: node.into(),
            user: Some(self.user()),
        };
        let is_done = |status: &ClusterStatus| is_in_state(status, node, MemberState::Removed);
        self.change_cluster(path::CLUSTER_REMOVE, &body, is_done).await
    }

    /// Gives the place of `old`, which is lost, to the empty node `new`.
    pub async fn cluster_replace(&self, old: &str, new: &str) -> Result<(), ClientError> {
        let body = ReplaceNode {
            old: old.into(),
            new: new.into(),
            user: Some(self.user()),
        };
        let is_done = |status: &ClusterStatus| {
            is_in_state(status, old, MemberState::Removed) && is_in_state(status, new, MemberState::Up)
        };
        self.change_cluster(path::CLUSTER_REPLACE, &body, is_done).await
    }

    async fn change_cluster(
        &self,
        path: &str,
        body: &impl Serialize,
        is_done: impl FnOnce(&ClusterStatus) -> bool,
    ) -> Result<(), ClientError> {
        let repeat = Repeat {
            again: Again::InTurn,
            ..Repeat::SAFE
        };
        let changed: Result<Status, _> = self.post(path, body, repeat).await;
        match changed {
            Err(refused @ ClientError::Refused { .. }) => {
                let status = self.cluster_status().await;
                if status.is_ok_and(|status| is_done(&status)) {
                    Ok(())
                } else {
                    Err(refused)
                }
            }
            changed => changed.map(|_| ()),
        }
    }
}

fn is_in_state(status: &ClusterStatus, node: &str, state: MemberState) -> bool {
    let mut members = status.members.iter();
    members.any(|member| member.node == node && member.state == state)
}
