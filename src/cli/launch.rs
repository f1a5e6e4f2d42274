//! The one place where the command line meets the node.

use std::net::SocketAddr;

use crate::config::ServeConfig;

/// The user that is made when there is none of that name.
pub struct FirstAdmin {
    pub user: crate::types::UserId,
    pub password_hash: String,
}

/// A node that serves.
pub struct Running {
    /// What it listens on: the port is the real one also where port 0 was asked for.
    pub address: SocketAddr,
    /// Whether anybody can log in.
    pub has_users: bool,
}

/// Starts the node and its front; Ok when it serves.
pub async fn start(config: &ServeConfig, first_admin: Option<FirstAdmin>) -> anyhow::Result<Running> {
    let _ = (config, first_admin.map(|admin| (admin.user, admin.password_hash)));
    anyhow::bail!("this build holds no node")
}

impl Running {
    /// Returns, with the reason, when the node can no longer serve. Dropping the future is fine.
    pub async fn failed(&mut self) -> anyhow::Error {
        std::future::pending().await
    }

    /// Takes no new requests, finishes what is in flight, and closes the files.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(())
    }
}
