//! The settings of a node that is part of a cluster.
//!
//! Invariant: without `cluster_listen` there is no cluster, and then no other setting of one may be given: a node that was meant to
//! join must not start alone without a word.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ConfigError, Setting, Settings, address, path, whole};
use crate::types::{CLUSTER_NAME_BYTES_MAX, WEIGHT_MAX};

pub const CLUSTER_NAME_DEFAULT: &str = "kv";
pub const ZONE_DEFAULT: &str = "default";
pub const WEIGHT_DEFAULT: u16 = 100;
pub const REPLICATION_DEFAULT: u8 = 3;
/// More replicas cost every write more than they can gain it.
pub const REPLICATION_MAX: u8 = 7;

/// What makes a node part of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Nodes that speak with other keys, or of another name, are strangers.
    pub name: String,
    /// Gossip over UDP and peers over TCP, at the same port.
    pub listen: SocketAddr,
    /// Where the other nodes reach this one.
    pub advertise: SocketAddr,
    /// Nodes to ask for the cluster, without this one.
    pub join: Vec<SocketAddr>,
    /// A new node founds a cluster, if none of those that it asks belongs to one: it was told to join nobody, or stands first among them.
    pub founds: bool,
    pub key_file: PathBuf,
    /// Folder with `certificate.pem`, `key.pem` and `authority.pem`, for mutual TLS between nodes.
    pub tls: Option<PathBuf>,
    /// What fails together: no two replicas of a key are in one zone while there are enough zones.
    pub zone: String,
    /// Share of the data, against the weights of the other nodes.
    pub weight: u16,
    /// Replicas of each key; counts only when the cluster is founded.
    pub replication: u8,
}

/// All but `cluster_listen`.
const OTHERS: [Setting; 8] = [
    Setting::Advertise,
    Setting::Join,
    Setting::ClusterKeyFile,
    Setting::ClusterTls,
    Setting::Zone,
    Setting::Weight,
    Setting::Replication,
    Setting::ClusterName,
];

impl Settings {
    /// None: a node of its own. `clients` is the address that clients are taken at.
    pub(super) fn cluster(&self, clients: SocketAddr) -> Result<Option<ClusterSettings>, ConfigError> {
        if !self.has(Setting::ClusterListen) {
            return match OTHERS.into_iter().find(|setting| self.has(*setting)) {
                Some(given) => Err(ConfigError::NoCluster {
                    given,
                    given_by: self.source_of(given),
                }),
                None => Ok(None),
            };
        }
        let given_by = self.source_of(Setting::ClusterListen);
        if !self.has(Setting::ClusterKeyFile) {
            return Err(ConfigError::NoClusterKey { given_by });
        }
        let listen = self.get(Setting::ClusterListen, "", port_given)?;
        if listen.ip().is_unspecified() && !self.has(Setting::Advertise) {
            return Err(ConfigError::NothingToAdvertise { listen, given_by });
        }
        let on_one_ip = listen.ip() == clients.ip() || listen.ip().is_unspecified() || clients.ip().is_unspecified();
        if on_one_ip && listen.port() == clients.port() {
            return Err(ConfigError::SharedAddress {
                clients,
                clients_by: self.source_of(Setting::Listen),
                nodes: listen,
                nodes_by: given_by,
            });
        }
        let advertise = self.get(Setting::Advertise, &listen.to_string(), reachable)?;
        let mut join = self.get(Setting::Join, "", addresses)?;
        let is_own = |node: &SocketAddr| *node == advertise || *node == listen;
        let founds = join.first().is_none_or(is_own);
        join.retain(|node| !is_own(node));
        Ok(Some(ClusterSettings {
            name: self.get(Setting::ClusterName, CLUSTER_NAME_DEFAULT, name)?,
            listen,
            advertise,
            join,
            founds,
            key_file: self.get(Setting::ClusterKeyFile, "", path)?,
            tls: match self.has(Setting::ClusterTls) {
                true => Some(self.get(Setting::ClusterTls, "", path)?),
                false => None,
            },
            zone: self.get(Setting::Zone, ZONE_DEFAULT, name)?,
            weight: self.get(Setting::Weight, &WEIGHT_DEFAULT.to_string(), |text| {
                whole(text, 1, WEIGHT_MAX)
            })?,
            replication: self.get(Setting::Replication, &REPLICATION_DEFAULT.to_string(), |text| {
                whole(text, 1, REPLICATION_MAX)
            })?,
        }))
    }
}

/// The other nodes must know the port before this one has bound it.
fn port_given(text: &str) -> Result<SocketAddr, String> {
    match address(text)? {
        address if address.port() == 0 => Err("the port must not be 0: the other nodes have to know it".to_owned()),
        address => Ok(address),
    }
}

fn reachable(text: &str) -> Result<SocketAddr, String> {
    match port_given(text)? {
        address if address.ip().is_unspecified() => {
            Err("no node can be reached at this address; write the one of this machine".to_owned())
        }
        address => Ok(address),
    }
}

fn addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    let each = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    let mut all = Vec::new();
    for address in each.map(reachable) {
        let address = address?;
        if !all.contains(&address) {
            all.push(address);
        }
    }
    Ok(all)
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > CLUSTER_NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "write 1 to {CLUSTER_NAME_BYTES_MAX} bytes of text without control characters"
        ));
    }
    Ok(text.to_owned())
}
