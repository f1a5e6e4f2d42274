//! The one place where the command line meets the node.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::{ClusterSettings, ServeConfig, processors};
use crate::env::Env;
use crate::http::FrontConfig;
use crate::net::{KeyRing, Tls, TlsPem};
use crate::node::{ClusterConfig, Limits, NodeConfig};
use crate::os;
use crate::server::{FirstAdmin, Server, ServerConfig, ServerError};
use crate::shard::ShardConfig;
use crate::users::{PasswordCost, UsersError};

use super::exit::usage;
use super::secret;

/// A node that serves, and whether anybody can log in.
pub struct Running {
    pub server: Server,
    pub has_users: bool,
}

/// Starts the node and its front; Ok when it serves.
pub async fn start(config: &ServeConfig, first_admin: Option<FirstAdmin>) -> anyhow::Result<Running> {
    let env = os::env();
    let cluster = match &config.cluster {
        Some(settings) => Some(cluster_config(settings, config.listen, &env)?),
        None => None,
    };
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
            cluster,
            limits: Limits::default(),
        },
        front: FrontConfig::default(),
        listen: config.listen,
        first_admin,
        password_cost: PasswordCost::default().on_processors(processors()),
    };
    let started = Server::start(env, server_config).await;
    let server = started.map_err(|error| match &error {
        ServerError::FirstAdmin(UsersError::Name(_)) => usage(error.to_string()),
        _ => error.into(),
    })?;
    // When even this cannot be read, the node serves what it can; `users` logs why.
    let has_users = !server.users().is_empty().await.unwrap_or(false);
    Ok(Running { server, has_users })
}

/// With the key read from its file.
fn cluster_config(settings: &ClusterSettings, http: SocketAddr, env: &Env) -> anyhow::Result<ClusterConfig> {
    let path = &settings.key_file;
    let unreadable = |error: io::Error| usage(format!("cannot read the cluster key file {}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    secret::warn_if_others_can_read(path, &file);
    let text = io::read_to_string(file).map_err(unreadable)?;
    let wrong = |error| usage(format!("the cluster key file {}: {error}", path.display()));
    let keys = KeyRing::parse(&text).map_err(wrong)?;
    let tls = match &settings.tls {
        Some(folder) => Some(read_tls(folder, env)?),
        None => None,
    };
    // The front may take every address; others reach it where they reach the node.
    let ip = match http.ip().is_unspecified() {
        true => settings.advertise.ip(),
        false => http.ip(),
    };
    Ok(ClusterConfig {
        listen: settings.listen,
        advertise: settings.advertise,
        http: SocketAddr::new(ip, http.port()),
        join: settings.join.clone(),
        founds: settings.founds,
        keys,
        tls,
        name: settings.name.clone(),
        zone: settings.zone.clone(),
        weight: settings.weight.into(),
        replication: settings.replication.into(),
    })
}

fn read_tls(folder: &Path, env: &Env) -> anyhow::Result<Tls> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| usage(format!("cannot read {}: {error}", path.display())))
    };
    let (certificate, key, authority) = (read("certificate.pem")?, read("key.pem")?, read("authority.pem")?);
    let pem = TlsPem {
        certificate: &certificate,
        key: &key,
        authority: &authority,
    };
    let wrong = |error| usage(format!("the certificates in {}: {error}", folder.display()));
    Tls::from_pem(pem, env.wall.clone()).map_err(wrong)
}
