//! What a node counts of its shards.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::local::Local;
use crate::shard::ShardStats;

/// Figures of one shard, for metrics.
#[derive(Debug, Clone, Default)]
pub struct ShardFigures {
    /// `system` for the system's own.
    pub name: String,
    pub serving: bool,
    pub waiting_requests: u64,
    pub restarts: u64,
    /// How long a commit takes now, on the mean.
    pub commit_time: Duration,
    pub stats: ShardStats,
}

/// Figures of the cache of decoded blocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct CacheFigures {
    pub hits: u64,
    pub misses: u64,
    /// Held now, overhead included.
    pub bytes: u64,
}

impl Local {
    pub fn cache_figures(&self) -> CacheFigures {
        let cache = self.block_cache();
        CacheFigures {
            hits: cache.hits(),
            misses: cache.misses(),
            bytes: cache.used_bytes(),
        }
    }

    /// Figures for metrics, as of the shards' last tick.
    pub fn figures(&self) -> Vec<ShardFigures> {
        let (doors, last) = (self.doors(), self.doors().len().saturating_sub(1));
        let name = |index: usize| match index == last {
            true => "system".to_owned(),
            false => index.to_string(),
        };
        let doors = doors.iter().enumerate();
        doors
            .map(|(index, door)| ShardFigures {
                name: name(index),
                serving: door.is_serving(),
                waiting_requests: door.permits.waiting() as u64,
                restarts: door.restarts.load(Ordering::Relaxed),
                commit_time: door.commit_time.mean(),
                stats: door.stats.lock().clone(),
            })
            .collect()
    }
}
