//! Reading: snapshots that go on by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shard;
use crate::core::op::Op;
use crate::core::slot::{KeyHash, SlotId};
use crate::store::filter::key_tag;
use crate::store::keys::{KeyLister, KeyQuery};
use crate::store::reader::KeySource;
use crate::types::{Key, UserId};

/// Data of these slots is lost on this disk: the answer is with a peer, and never "not found".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{lost_ops} ops of slots {first_slot} to {last_slot} were lost to damage on this node's disk; see its log and `kv segment`"
)]
pub struct Damaged {
    pub first_slot: u16,
    pub last_slot: u16,
    pub lost_ops: u64,
}

impl Shard {
    /// A snapshot of one key: all that is durable now.
    pub fn key(&self, slot: SlotId, hash: KeyHash, user: &UserId, key: &Key) -> Result<KeySource, Damaged> {
        if let Some(lost) = self.lost.get(slot) {
            return Err(Damaged {
                first_slot: slot.0,
                last_slot: slot.0,
                lost_ops: lost.count(),
            });
        }
        Ok(self.source(slot, hash, user, key))
    }

    pub(super) fn source(&self, slot: SlotId, hash: KeyHash, user: &UserId, key: &Key) -> KeySource {
        let tag = key_tag(hash);
        KeySource {
            slot,
            user: user.clone(),
            key: key.clone(),
            memory: self.memory_ops(hash, user, key),
            segments: self
                .segments
                .iter()
                .filter(|segment| segment.may_hold(tag))
                .cloned()
                .collect(),
        }
    }

    fn memory_ops(&self, hash: KeyHash, user: &UserId, key: &Key) -> Arc<[Op]> {
        let mut ops = Vec::new();
        for (memtable, durable) in self.memtables() {
            memtable.ops_of(hash, user, key, durable, &mut ops);
        }
        ops.sort_by_key(Op::stamp);
        ops.into()
    }

    /// A snapshot to list keys from.
    pub fn keys(&self, query: KeyQuery) -> Result<KeyLister, Damaged> {
        if let (Some((first, _)), Some((last, _))) = (self.lost.slots().next(), self.lost.slots().last()) {
            return Err(Damaged {
                first_slot: first.0,
                last_slot: last.0,
                lost_ops: self.lost.count(),
            });
        }
        let mut found = BTreeMap::new();
        for (memtable, durable) in self.memtables() {
            for (slot, key) in memtable.keys_of(&query.user, durable, |key| query.accepts(key)) {
                found.insert(key, slot);
            }
        }
        // The page can hold no more than `limit`; later keys wait for the next page.
        let kept: BTreeMap<_, _> = found
            .iter()
            .take(query.limit)
            .map(|(key, slot)| {
                let hash = KeyHash::of(&query.user, key);
                (key.clone(), (*slot, self.memory_ops(hash, &query.user, key)))
            })
            .collect();
        let memory_cut = (found.len() > kept.len())
            .then(|| kept.keys().next_back().cloned())
            .flatten();
        Ok(KeyLister {
            query,
            slots: self.place.slots.clone(),
            segments: self.segments.clone(),
            memory: kept,
            memory_cut,
        })
    }

    /// A read met damage in this segment: it will be rewritten without the damaged part.
    pub fn report_damage(&mut self, segment: u64) {
        if self.segments.iter().any(|held| held.number() == segment) {
            self.damaged_segments.insert(segment);
            self.upkeep_due = true;
        }
    }
}
