//! Work on the data folder of a node that does not run.

use super::NodeConfig;
use super::opening::{self, StartError};
use crate::env::Env;
use crate::shard::MergeError;

/// What was given up in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedLoss {
    pub dir: String,
    /// Ops; a loss that cannot be counted is one in every slot.
    pub lost_ops: u64,
    /// Users' records are kept there.
    pub is_of_system: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Open(#[from] StartError),
    #[error("{0} cannot be opened: see the log")]
    Unopened(String),
    #[error("the acceptance could not be written: {0}")]
    Write(#[from] MergeError),
}

/// Takes all that damage has destroyed for dropped, so that the damaged slots are read again, without it. Blocks on the disk; fails
/// while a node has the folder open.
pub fn accept_losses(env: &Env, config: &NodeConfig) -> Result<Vec<AcceptedLoss>, OfflineError> {
    let mut opened = opening::open(env, config)?;
    let mut accepted = Vec::new();
    let system = opened.identity.shards;
    for (index, (dir, shard)) in (0..).zip(opened.shards_mut()) {
        let is_of_system = index == system;
        let Some(shard) = shard else {
            return Err(OfflineError::Unopened(dir.display().to_string()));
        };
        // Nobody may have read what is damaged.
        shard.verify();
        // Damaged logs are sealed and set aside first: read again, they would count as lost again.
        shard.settle(env.wall.now());
        let lost_ops = shard.accept_loss()?;
        if lost_ops > 0 {
            accepted.push(AcceptedLoss {
                dir: dir.display().to_string(),
                lost_ops,
                is_of_system,
            });
        }
    }
    Ok(accepted)
}
