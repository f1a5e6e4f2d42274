//! Going through all of a memtable: for listing keys, and for what its clears saw.

use super::Memtable;
use crate::core::clock::Clock;
use crate::core::op::Body;
use crate::core::slot::SlotId;
use crate::types::{Key, UserId};

impl Memtable {
    /// The user's keys that `wanted` accepts, each with its slot, in no particular order. Only keys with a durable op.
    pub fn keys_of(
        &self,
        user: &UserId,
        durable_groups: usize,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Vec<(SlotId, Key)> {
        let user = user.as_str().as_bytes();
        let mut keys = Vec::new();
        for held in &self.keys {
            let Some((record, header, _)) = self.record(held.last) else {
                continue;
            };
            if header.user(record) != user {
                continue;
            }
            let Ok(key) = std::str::from_utf8(header.key(record)) else {
                continue;
            };
            let durable = |entry: u32| {
                self.entries
                    .get(entry as usize)
                    .is_some_and(|held| (held.group as usize) < durable_groups)
            };
            if wanted(key)
                && self.chain(Some(held.last)).any(durable)
                && let Ok(key) = Key::new(key)
            {
                keys.push((header.dot.slot, key));
            }
        }
        keys
    }

    /// What each durable clear saw, with its key.
    pub fn cleared_keys(&self, durable_groups: usize) -> impl Iterator<Item = ((SlotId, UserId, Key), Clock)> + '_ {
        self.clears.iter().filter_map(move |&entry| {
            let Body::Clear(seen) = self.op(entry, durable_groups)?.body else {
                return None;
            };
            let (record, header, _) = self.record(entry)?;
            let user = std::str::from_utf8(header.user(record)).ok()?;
            let key = Key::new(std::str::from_utf8(header.key(record)).ok()?).ok()?;
            Some(((header.dot.slot, UserId::from_stored(user), key), seen))
        })
    }
}
