//! Before the clients begin: the nodes come together, and the users are made.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::operator::Operator;
use super::{Client, SETUP_US_MAX, credentials};
use crate::cluster::client::Reply;
use crate::cluster::node::{ADMIN, password};
use crate::cluster::os;
use crate::cluster::plan::Topology;
use crate::cluster::record::user_name;

impl Client {
    /// Makes the users, everywhere where they are needed.
    pub(super) async fn set_up(&mut self) -> Result<(), String> {
        let plan = self.shared.plan.clone();
        let nodes = match plan.topology {
            Topology::Separate => 0..plan.nodes,
            Topology::Cluster => 0..1,
        };
        self.wait_for_all().await?;
        if let Some(leaves) = plan.leaves {
            let rng = self.rng.fork();
            Operator::new(&self.shared, rng).remove_and_welcome(leaves).await?;
            self.wait_for_all().await?;
        }
        for node in nodes {
            for user in 0..plan.load.users {
                self.add_user(node, user).await?;
            }
        }
        Ok(())
    }

    async fn wait_for_all(&mut self) -> Result<(), String> {
        let is_cluster = self.shared.plan.topology == Topology::Cluster;
        for node in (0..self.shared.plan.nodes).filter(|_| is_cluster) {
            self.wait_for_members(node).await?;
        }
        Ok(())
    }

    /// Until this node knows all others as members. Some of them may still copy what the others hold, where nobody loses a disk: of the copies
    /// that a quorum needs, all but those that are lost have to be there first.
    async fn wait_for_members(&mut self, node: u8) -> Result<(), String> {
        let body = json!({"user": credentials(ADMIN)});
        loop {
            let reply = self.http.call(node, "/cluster/status", &body).await;
            if let Reply::Status(200, status) = &reply {
                let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
                let up = members
                    .iter()
                    .filter(|member| member["state"] == "up" && member["alive"] == true);
                let counts =
                    |member: &&Json| self.shared.plan.lossy_nodes == 0 || member["unsynced_slots"].as_u64() == Some(0);
                if up.filter(counts).count() == usize::from(self.shared.plan.nodes) {
                    return Ok(());
                }
            }
            if os::now_us() > SETUP_US_MAX {
                return Err(format!("the cluster did not come together: node {node} says {reply:?}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn add_user(&mut self, node: u8, user: u8) -> Result<(), String> {
        let name = user_name(user);
        let body = json!({"name": name, "password_hash": password(&name), "user": credentials(ADMIN)});
        loop {
            match self.http.call(node, "/users/add", &body).await {
                Reply::Status(200 | 409, _) => return Ok(()),
                reply if os::now_us() > SETUP_US_MAX => return Err(format!("{name} could not be made: {reply:?}")),
                _ => sleep(Duration::from_millis(200)).await,
            }
        }
    }
}
