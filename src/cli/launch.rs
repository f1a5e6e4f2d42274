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
    let front = front_config(config, os::limits::raise_open_files())?;
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
        front,
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

/// With no more connections than the process may have open beside its files.
fn front_config(config: &ServeConfig, open_files: io::Result<Option<u64>>) -> anyhow::Result<FrontConfig> {
    let mut front = FrontConfig::default();
    let open_files = match open_files {
        Ok(open_files) => open_files,
        Err(error) => {
            tracing::warn!(%error, "how many files may be open is not known");
            return Ok(front);
        }
    };
    let room = os::limits::connections_within(open_files, config.shards, config.cluster.is_some())?;
    if room < front.connections_max {
        front.connections_max = room;
        tracing::warn!(
            open_files,
            connections_max = room,
            "few files may be open (ulimit -n), so fewer connections of clients are taken than usual"
        );
    }
    Ok(front)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn no_more_connections_are_taken_than_the_limit_of_open_files_leaves() {
        let config = Settings::default().into_config().unwrap();
        let max = |files| front_config(&config, Ok(files)).map(|front| front.connections_max);
        let usual = FrontConfig::default().connections_max;
        assert_eq!((max(None).unwrap(), max(Some(1 << 20)).unwrap()), (usual, usual));
        assert!((256..900).contains(&max(Some(1024)).unwrap()));
        assert!(max(Some(12)).unwrap_err().to_string().contains("ulimit -n"));
        let unknown = front_config(&config, Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(unknown.unwrap().connections_max, usual);
    }
}
