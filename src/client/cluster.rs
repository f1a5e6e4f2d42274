//! The calls on the cluster itself. All need an admin.
//!
//! Invariant: what may have taken effect is not sent again: a second `remove` would be told that there is no such member.

use serde::Serialize;

use crate::api::{AskClusterStatus, ClusterStatus, RemoveNode, ReplaceNode, Status, path};

use super::Client;
use super::course::Repeat;
use super::error::ClientError;

impl Client {
    /// The members, as the node that answers sees them.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, ClientError> {
        let body = AskClusterStatus {
            user: Some(self.user()),
        };
        self.post(path::CLUSTER_STATUS, &body, Repeat::Safe).await
    }

    /// Takes a node out of the cluster, for good.
    pub async fn cluster_remove(&self, node: &str) -> Result<(), ClientError> {
        let body = RemoveNode {
            node: node.into(),
            user: Some(self.user()),
        };
        self.change_cluster(path::CLUSTER_REMOVE, &body).await
    }

    /// Gives the place of `old`, which is lost, to the empty node `new`.
    pub async fn cluster_replace(&self, old: &str, new: &str) -> Result<(), ClientError> {
        let body = ReplaceNode {
            old: old.into(),
            new: new.into(),
            user: Some(self.user()),
        };
        self.change_cluster(path::CLUSTER_REPLACE, &body).await
    }

    async fn change_cluster(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        let _: Status = self.post(path, body, Repeat::Unsafe).await?;
        Ok(())
    }
}
