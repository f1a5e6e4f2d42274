//! What a merge and an export read of a memtable: its keys in order, their ops, and the dots it holds.

use super::{Memtable, RecordHeader};
use crate::core::clock::{Clock, SeqSet, SlotClocks};
use crate::core::op::{Dot, Op};
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::core::stamp::OriginId;
use crate::store::order::Rank;
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

    /// The `wanted` ones of the key's ops in the first `groups` groups, in their order. `sorted_keys` gave the key.
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
            // By their heads: no op is made to be compared.
            ops.sort_by_cached_key(|op| self.rank(op.0));
        }
        ops
    }

    /// The rank of this entry's op.
    pub(super) fn rank(&self, entry: u32) -> Option<Rank> {
        let (_, header, _) = self.record(entry)?;
        Some((header.stamp(), header.dot.seq, !header.is_spent()))
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
        // origins between them. But those that a peer sent came in the order of their keys.
        let mut of_slots: Vec<Vec<Runs>> = vec![Vec::new(); usize::from(SYSTEM_SLOT.0) + 1];
        for entry in 0..self.entries.len() as u32 {
            let Some((_, header, _)) = self.record(entry) else {
                continue;
            };
            let Dot { origin, slot, seq } = header.dot;
            let Some(of_slot) = of_slots.get_mut(usize::from(slot.0)) else {
                clocks.insert(slot, origin, seq);
                continue;
            };
            match of_slot.iter_mut().find(|runs| runs.origin == origin) {
                Some(runs) => runs.add(seq),
                None => of_slot.push(Runs {
                    origin,
                    ended: Vec::new(),
                    run: (seq, seq),
                }),
            }
        }
        for (slot, of_slot) in of_slots.into_iter().enumerate() {
            for runs in of_slot {
                clocks.join_origin(SlotId(slot as u16), runs.origin, &runs.into_set());
            }
        }
        clocks
    }
}

/// Sequences of one origin in one slot, as they came.
#[derive(Debug, Clone)]
struct Runs {
    origin: OriginId,
    ended: Vec<(u64, u64)>,
    /// First and last of the one that may go on.
    run: (u64, u64),
}

impl Runs {
    fn add(&mut self, seq: u64) {
        if self.run.1.checked_add(1) == Some(seq) {
            self.run.1 = seq;
        } else {
            self.ended.push(std::mem::replace(&mut self.run, (seq, seq)));
        }
    }

    /// Sorted first: as they came, each might move half of the others.
    fn into_set(self) -> SeqSet {
        let mut runs = self.ended;
        runs.push(self.run);
        runs.sort_unstable();
        let mut set = SeqSet::default();
        for (first, last) in runs {
            set.insert_range(first, last);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::ops_made;
    use super::*;
    use crate::core::clock::MOVED;
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

    /// Ops of one key, each of (origin, sequence, time), all in closed groups.
    fn filled(ops: impl IntoIterator<Item = (u64, u64, u64)>) -> Memtable {
        let mut memtable = Memtable::new(LogKey::without_secret(1), NameKey::new([1; 16]));
        let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
        for (origin, seq, time) in ops {
            let op = Op {
                dot: Dot {
                    origin: OriginId(origin),
                    slot: SlotId(7),
                    seq,
                },
                time: HybridTime(time),
                request_id: None,
                body: Body::Value(format!("{origin} {seq}").into()),
            };
            memtable.append(&user, &key, &op);
        }
        memtable.close_group();
        memtable
    }

    #[test]
    fn what_a_peer_sent_in_the_order_of_its_keys_is_no_dearer_to_tell() {
        const OPS: u64 = 20_000;
        // In no order: the factor is prime. And of every other sequence, so that no two are one range.
        let memtable = filled((0..OPS).map(|index| (1, 1 + 2 * (index * 7_919 % OPS), 10 + index)));
        let before = MOVED.get();
        let covered = memtable.covered();
        assert!(MOVED.get() - before < OPS, "{} ranges were moved", MOVED.get() - before);
        assert_eq!(covered.count(), OPS);
    }

    #[test]
    fn to_put_ops_in_their_order_makes_none_of_them() {
        const OPS: u64 = 100;
        let memtable = filled((0..OPS).map(|index| (1 + index % 2, 1 + index, 1 + index * 37 % OPS)));
        let [key] = &memtable.sorted_keys()[..] else { panic!() };
        let before = ops_made();
        let ops = memtable.ops_of_sorted(key);
        assert_eq!(ops_made(), before);
        let times = |ops: &[Op]| ops.iter().map(|op| op.time.0).collect::<Vec<_>>();
        let in_order: Vec<u64> = (1..=OPS).collect();
        let ops: Vec<Op> = ops.into_iter().filter_map(|op| memtable.op_of_sorted(op)).collect();
        assert_eq!(times(&ops), in_order);
        let before = ops_made();
        let some = memtable.some_ops_of_sorted(key, 1, |header| header.dot.origin == OriginId(2));
        assert_eq!((some.len() as u64, ops_made() - before), (OPS / 2, OPS / 2));
        assert!(some.is_sorted_by_key(|op| op.time));
    }
}
