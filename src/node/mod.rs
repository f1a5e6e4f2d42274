//! A node: the actors, and the handle through which everything above talks to them. The only module that names ractor.
//!
//! | part | what it is |
//! | --- | --- |
//! | `handle` | the handle of a running node: what the front and the users' service call |
//! | `folder`, `opening`, `offline` | the data folder: its lock and the node's name; opening it; work on it while no node runs |
//! | `shards` | the actors that hold the node's shards, and what is on its way to them |
//! | `jobs`, `turns` | jobs of shards on threads that may block; turns of reads that wait for the disk |
//! | `stalled` | shards whose disk hangs under a sync |
//! | `local`, `series` | what this node does with its own shards; adds to one key that go together |
//! | `replica`, `lacking` | what it does for other members; what one of them lacks of a key |
//! | `hedged` | reads of its own disk, or of another replica's where that fails or is slow |
//! | `watcher` | tells of changes of the system's own keys |
//! | `membership` | the gossip that tells which other nodes there are; nothing else names chitchat |
//! | `peers` | the connections with them |
//! | `cluster` | what the members do together |
//! | `terms`, `error`, `figures`, `log_limiter` | how far a request has to reach; what can become of it; what is counted; complaints that must not fill the log |

pub mod cluster;
pub mod error;
mod figures;
pub mod folder;
pub mod handle;
mod hedged;
mod jobs;
mod lacking;
pub mod local;
mod log_limiter;
pub mod membership;
pub mod offline;
mod opening;
mod pages;
pub mod peers;
pub mod replica;
pub mod series;
mod shards;
mod stalled;
mod terms;
mod turns;
mod watcher;

use std::path::PathBuf;

use crate::shard::ShardConfig;

pub use crate::store::keys::KeyPage;
pub use crate::store::reader::Fragment;
pub use cluster::{Cluster, ClusterConfig, MemberChange};
pub use error::OpError;
pub use figures::{CacheFigures, ShardFigures};
use folder::identity::Role;
pub use handle::Node;
pub use hedged::ValueReader;
pub use local::{Added, Life, Local};
pub use opening::StartError;
pub use pages::Pages;
pub use series::Add;
pub use shards::permits::Limits;
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
