//! Notices of system keys that changed on this disk, whether by a request here or by an op that came from another node.
//!
//! Invariant: the watcher hears of every change, once it shows on this disk and never before, whatever became of the request that made it.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use super::OpError;
use super::local::{Added, Local};
use super::shards::messages::Work;
use super::shards::permits::Permit;
use crate::core::op::KeyedOp;
use crate::types::Key;

/// How often, and how far apart, to look whether a shard was reopened.
const REOPENED_LOOKS: usize = 100;
const REOPENED_PAUSE: Duration = Duration::from_millis(200);

/// Hears of each changed key. It must not keep its thread for long.
pub type SystemWatcher = Box<dyn Fn(&Key) + Send + Sync>;

#[derive(Default)]
pub(super) struct Watcher(OnceLock<SystemWatcher>);

impl Watcher {
    fn tell(&self, keys: &BTreeSet<Key>) {
        if let Some(watcher) = self.0.get() {
            keys.iter().for_each(watcher);
        }
    }
}

/// Those of the system's that these ops change.
pub(super) fn changed_keys(ops: &[KeyedOp]) -> BTreeSet<Key> {
    let changed = ops.iter().filter(|op| op.user.is_system());
    changed.map(|op| op.key.clone()).collect()
}

impl Local {
    /// From here on this one hears. Only the first one counts.
    pub(super) fn watch_system(&self, watcher: SystemWatcher) {
        // Set once, when the node is started.
        let _ = self.watcher().0.set(watcher);
    }

    /// Puts work that changes these keys of the system's; with some, it goes on to its end though nobody waits any more.
    pub(super) async fn put_watched(
        &self,
        index: usize,
        work: Work,
        permit: Permit,
        changed: BTreeSet<Key>,
    ) -> Result<Added, OpError> {
        if changed.is_empty() {
            return self.put(index, work, permit).await;
        }
        let local = self.clone();
        let put = tokio::spawn(async move {
            let done = local.put(index, work, permit).await;
            local.watcher().tell(&changed);
            if done.is_err() {
                tokio::spawn(local.tell_when_reopened(index, changed));
            }
            done
        });
        // It died with the write half done.
        put.await
            .unwrap_or(Err(OpError::ShardUnavailable { maybe_applied: true }))
    }

    /// What was not acknowledged may show all the same, once its shard was reopened.
    async fn tell_when_reopened(self, index: usize, changed: BTreeSet<Key>) {
        for _ in 0..REOPENED_LOOKS {
            tokio::time::sleep(REOPENED_PAUSE).await;
            if self.doors().get(index).is_some_and(|door| door.is_serving()) {
                break;
            }
        }
        self.watcher().tell(&changed);
    }
}
