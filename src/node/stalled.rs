//! Shards whose disk hangs under a sync: their actors do nothing else meanwhile.

use std::time::Duration;

use super::hedged::HEDGE;
use super::local::Local;
use crate::core::slot::SlotId;

/// Then the node is not ready: others are to be asked.
const TOLD_AFTER: Duration = Duration::from_secs(5);

impl Local {
    /// Whether the slot's shard waits for its disk for longer than it should, so that another replica is quicker.
    pub fn is_stalled(&self, slot: SlotId) -> bool {
        self.doors()[self.door_of(slot)].commit_time.waiting() > HEDGE
    }

    /// Why that keeps the node from being of use, if it lasts.
    pub fn why_stalled(&self) -> Option<String> {
        let longest = self.doors().iter().map(|door| door.commit_time.waiting()).max();
        let longest = longest.filter(|longest| *longest > TOLD_AFTER)?;
        let seconds = longest.as_secs();
        Some(format!("the disk has kept writes waiting for {seconds} s"))
    }
}
