//! The one place where the command line meets the node.

use crate::config::ServeConfig;
use crate::http::FrontConfig;
use crate::node::NodeConfig;
use crate::os;
use crate::server::{FirstAdmin, Server, ServerConfig};
use crate::shard::ShardConfig;
use crate::users::PasswordCost;

/// A node that serves, and whether anybody can log in.
pub struct Running {
    pub server: Server,
    pub has_users: bool,
}

/// Starts the node and its front; Ok when it serves.
pub async fn start(config: &ServeConfig, first_admin: Option<FirstAdmin>) -> anyhow::Result<Running> {
    let open_files = os::limits::raise_open_files();
    tracing::debug!(?open_files, "open files allowed");
    let server_config = ServerConfig {
        node: NodeConfig {
            data: config.data.clone(),
            shards: config.shards,
            cache_bytes: config.block_cache_bytes,
            shard: ShardConfig {
                log_bytes: config.active_segment_bytes,
                ..ShardConfig::default()
            },
        },
        front: FrontConfig::default(),
        listen: config.listen,
        first_admin,
        password_cost: PasswordCost::default(),
    };
    let server = Server::start(os::env(), server_config).await?;
    // When even this cannot be read, the node serves what it can; `users` logs why.
    let has_users = !server.users().is_empty().await.unwrap_or(false);
    Ok(Running { server, has_users })
}
