//! What a merge and an export read of a memtable: its keys in order, their ops, and the dots it holds.

use super::{Memtable, RecordHeader};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Dot, Op};
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::core::stamp::OriginId;
use crate::store::order::rank_of;
use crate::types::{Key, UserId};

/// A key of a memtable, as `sorted_keys` gives it. Ops that the key gets later are not among its ops.
#[derive(Debug, Clone)]
pub struct MemoryKey {
    pub slot: SlotId,
    pub user: UserId,
    pub key: Key,
    last: u32,
    in_order: bool,
}

/// An op of a memtable, without its text and the rest of it: a list that alone fills a log has tens of thousands.
#[derive(Debug, Clone, Copy)]
pub struct MemoryOp(u32);

impl Memtable {
    /// Every key in (slot, user, key) order.
    pub fn sorted_keys(&self) -> Vec<MemoryKey> {
        self.sorted_keys_of(|_| true)
    }

    /// Every key of the slots that are `wanted`, in (slot, user, key) order.
    pub fn sorted_keys_of(&self, wanted: impl Fn(SlotId) -> bool) -> Vec<MemoryKey> {
        let mut keys: Vec<_> = self
            .keys
            .iter()
            .filter_map(|held| {
                let (record, header, _) = self.record(held.last)?;
                let slot = header.dot.slot;
                wanted(slot).then(|| ((slot, header.user(record), header.key(record)), held))
            })
            .collect();
        keys.sort_unstable_by_key(|(name, _)| *name);
        let text = std::str::from_utf8;
        let mut last_user: Option<UserId> = None;
        keys.into_iter()
            .filter_map(|((slot, user, key), held)| {
                // Neighbours mostly share their user: one name in memory is enough.
                let user = match last_user.take().filter(|last| last.as_str().as_bytes() == user) {
                    Some(last) => last,
                    None => UserId::from_stored(text(user).ok()?),
                };
                last_user = Some(user.clone());
                Some(MemoryKey {
                    slot,
                    user,
                    key: Key::new(text(key).ok()?).ok()?,
                    last: held.last,
                    in_order: held.in_order,
                })
            })
            .collect()
    }

    /// The ops of a key that `sorted_keys` gave, in their order, all of them: `op_of_sorted` reads each.
    pub fn ops_of_sorted(&self, key: &MemoryKey) -> Vec<MemoryOp> {
        self.in_order(key, self.chain(Some(key.last)))
    }

    pub fn op_of_sorted(&self, op: MemoryOp) -> Option<Op> {
        self.op(op.0, self.groups.len())
    }

    /// Of the ops of a key that `sorted_keys` gave, those in the first `groups` groups that are `wanted`, in their order.
    pub fn some_ops_of_sorted(
        &self,
        key: &MemoryKey,
        groups: usize,
        wanted: impl Fn(&RecordHeader) -> bool,
    ) -> Vec<Op> {
        let is_wanted = |entry: &u32| self.record(*entry).is_some_and(|(_, header, _)| wanted(&header));
        let ops = self.in_order(key, self.chain(Some(key.last)).filter(is_wanted));
        ops.into_iter().filter_map(|op| self.op(op.0, groups)).collect()
    }

    /// Entries of the key's chain, newest first, as ops in their order.
    fn in_order(&self, key: &MemoryKey, entries: impl Iterator<Item = u32>) -> Vec<MemoryOp> {
        let mut ops: Vec<_> = entries.map(MemoryOp).collect();
        // The chain leads from the newest op to the oldest, and mostly that is their order, reversed.
        ops.reverse();
        if !key.in_order {
            ops.sort_by_key(|op| self.op_of_sorted(*op).as_ref().map(rank_of));
        }
        ops
    }

    /// Whether it holds an op of the key with one of these dots, durable or not.
    pub fn holds_any(&self, user: &UserId, key: &Key, dots: &Clock) -> bool {
        let last = self.find(user, key).map(|held| held.last);
        let is_one = |head: RecordHeader| dots.contains(head.dot.origin, head.dot.seq);
        self.chain(last)
            .any(|entry| self.record(entry).is_some_and(|(_, head, _)| is_one(head)))
    }

    /// The heads of the slot's ops in the first `groups` groups, in no particular order.
    pub fn heads_of_slot(&self, slot: SlotId, groups: usize) -> impl Iterator<Item = RecordHeader> + '_ {
        let headers = (0..self.entries.len() as u32).filter_map(|entry| self.record(entry));
        let held = headers.filter(move |(_, header, group)| header.dot.slot == slot && (*group as usize) < groups);
        held.map(|(_, header, _)| header)
    }

    /// The dots that it holds.
    pub fn covered(&self) -> SlotClocks {
        let mut clocks = SlotClocks::default();
        // In the order they were appended, the ops of one origin in a slot are mostly one run of sequences, with those of a few other
        // origins between them.
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); usize::from(SYSTEM_SLOT.0) + 1];
        for entry in 0..self.entries.len() as u32 {
            let Some((_, header, _)) = self.record(entry) else {
                continue;
            };
            let Dot { origin, slot, seq } = header.dot;
            let Some(runs) = runs.get_mut(usize::from(slot.0)) else {
                clocks.insert(slot, origin, seq);
                continue;
            };
            match runs.iter_mut().find(|run| run.origin == origin) {
                Some(run) if run.last.checked_add(1) == Some(seq) => run.last = seq,
                Some(run) => {
                    clocks.insert_range(slot, origin, run.first, run.last);
                    (run.first, run.last) = (seq, seq);
                }
                None => runs.push(Run {
                    origin,
                    first: seq,
                    last: seq,
                }),
            }
        }
        for (slot, runs) in runs.into_iter().enumerate() {
            for Run { origin, first, last } in runs {
                clocks.insert_range(SlotId(slot as u16), origin, first, last);
            }
        }
        clocks
    }
}

/// Sequences of one origin in one slot.
#[derive(Debug, Clone, Copy)]
struct Run {
    origin: OriginId,
    first: u64,
    last: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::op::Body;
    use crate::core::stamp::HybridTime;
    use crate::store::log::LogKey;
    use crate::store::names::NameKey;

    proptest! {
        #[test]
        fn it_covers_every_dot_it_holds_and_no_other(dots in proptest::collection::vec((1u64..3, 0u16..3, 1u64..9), 0..60)) {
            let mut memtable = Memtable::new(LogKey::without_secret(1), NameKey::new([1; 16]));
            let mut covered = SlotClocks::default();
            let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
            for (index, (origin, slot, seq)) in dots.into_iter().enumerate() {
                // Mostly one behind the other, as they come about.
                let seq = if index % 3 == 0 { seq } else { index as u64 + 10 };
                let op = Op {
                    dot: Dot { origin: OriginId(origin), slot: SlotId(slot * 512), seq },
                    time: HybridTime(index as u64),
                    request_id: None,
                    body: Body::Value("v".into()),
                };
                memtable.append(&user, &key, &op);
                covered.insert(op.dot.slot, op.dot.origin, op.dot.seq);
            }
            prop_assert_eq!(memtable.covered(), covered);
        }
    }
}
