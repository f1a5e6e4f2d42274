//! A node: the actors, and the handle through which everything above talks to them. The only module that names ractor.
//!
//! `supervisor` starts one `shard_actor` per shard and one for the system's own key range, and starts a dead one again from its
//! files. `permits` bounds what waits in mailboxes. `identity` is the data folder's lock and name, which `identity_keeper` writes while
//! the node runs. `membership` is the gossip that tells which other nodes there are; nothing else names chitchat. `watcher` tells of
//! changes of the system's own keys.
//! `spreading` brings an op to the other replicas. `series` are adds to one key that go together. `refused` are ops that are taken from nobody. `hedged` reads
//! this node's disk, or another replica's where that fails or is slow. `stalled` are shards whose disk hangs under a sync.

mod checked_json;
pub mod cluster;
mod commit_time;
pub mod error;
mod figures;
pub mod handle;
mod hedged;
pub mod identity;
mod identity_keeper;
mod inbox;
mod jobs;
mod lacking;
pub mod local;
pub mod membership;
mod messages;
mod news;
pub mod offline;
mod opening;
pub mod peers;
mod permits;
mod refused;
pub mod replica;
mod seldom;
mod series;
mod shard_actor;
mod spreading;
mod stalled;
mod supervisor;
mod terms;
mod turns;
mod watcher;

use std::path::PathBuf;

use crate::shard::ShardConfig;
use crate::store::whole_file;

pub use crate::store::keys::KeyPage;
pub use crate::store::reader::Fragment;
pub use cluster::{Cluster, ClusterConfig, MemberChange};
pub use error::OpError;
pub use figures::{CacheFigures, ShardFigures};
pub use handle::Node;
pub use hedged::ValueReader;
use identity::Role;
pub use local::{Added, Life, Local};
pub use opening::StartError;
pub use permits::Limits;
pub use series::Add;
pub use terms::Terms;
pub use watcher::SystemWatcher;

/// Memory for blocks of sealed segments when nothing else is asked for.
pub const CACHE_BYTES_DEFAULT: u64 = 64 << 20;

/// What a node is started with; validated.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The data folder.
    pub data: PathBuf,
    /// Number of shards of a folder that is made now; an existing one keeps its own.
    pub shards: u16,
    pub cache_bytes: u64,
    pub shard: ShardConfig,
    /// Absent for a node that stands alone.
    pub cluster: Option<ClusterConfig>,
    pub limits: Limits,
}

impl NodeConfig {
    fn role(&self) -> Role {
        match &self.cluster {
            None => Role::Alone,
            Some(_) => Role::Member,
        }
    }

    /// One shard; the rest as it is by default.
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            shards: 1,
            cache_bytes: CACHE_BYTES_DEFAULT,
            shard: ShardConfig::default(),
            cluster: None,
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests;
