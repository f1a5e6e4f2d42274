//! Going through all of a memtable: for listing keys, and for what its clears saw.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Memtable, SharedMemtable};
use crate::core::clock::Clock;
use crate::core::op::Body;
use crate::core::slot::SlotId;
use crate::store::log::RecordHeader;
use crate::types::{Key, UserId};

type Name = (SlotId, UserId, Key);

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
    pub fn cleared_keys(&self, durable_groups: usize) -> impl Iterator<Item = (Name, Clock)> + '_ {
        let records = self.clear_records(durable_groups);
        records.filter_map(|record| cleared_key(&record))
    }

    fn clear_records(&self, durable_groups: usize) -> impl Iterator<Item = Bytes> + '_ {
        let record = move |&entry: &u32| self.record_of(entry, durable_groups);
        self.clears.iter().filter_map(record)
    }
}

/// What the clears saw in the first groups of these memtables, so many of each, by key.
pub fn cleared_in(memtables: &[(SharedMemtable, usize)]) -> BTreeMap<Name, Clock> {
    let mut cleared: BTreeMap<_, Clock> = BTreeMap::new();
    for (memtable, groups) in memtables {
        // Decoded when the shard can append to it again.
        let records: Vec<Bytes> = memtable.read().clear_records(*groups).collect();
        for (name, seen) in records.iter().filter_map(cleared_key) {
            cleared.entry(name).or_default().join(&seen);
        }
    }
    cleared
}

#[cfg(test)]
thread_local! {
    /// How many clears were decoded for what they saw.
    pub static DECODED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn cleared_key(record: &Bytes) -> Option<(Name, Clock)> {
    #[cfg(test)]
    DECODED.set(DECODED.get() + 1);
    let header = RecordHeader::decode_trusted(record)?;
    let Body::Clear(seen) = header.op(record)?.body else {
        return None;
    };
    let user = std::str::from_utf8(header.user(record)).ok()?;
    let key = Key::new(std::str::from_utf8(header.key(record)).ok()?).ok()?;
    Some(((header.dot.slot, UserId::from_stored(user), key), seen))
}
