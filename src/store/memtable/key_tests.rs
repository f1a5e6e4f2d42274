use proptest::prelude::*;

use super::*;
use crate::core::op::{Body, Dot};
use crate::core::slot::{KeyHash, slot_of};
use crate::core::stamp::{HybridTime, OriginId};
use crate::store::log::LogKey;
use crate::store::names::NameKey;

fn op(origin: u64, seq: u64, time: u64) -> Op {
    Op {
        dot: Dot {
            origin: OriginId(origin),
            slot: slot_of(
                &UserId::new("u").unwrap(),
                KeyHash::of(&UserId::new("u").unwrap(), &Key::new("k").unwrap()),
            ),
            seq,
        },
        time: HybridTime(time),
        request_id: None,
        body: Body::Value(format!("{origin}.{seq}").into()),
    }
}

/// An op of key "k" or of another, by its origin and time; every so many ops the group is closed.
#[derive(Debug, Clone)]
struct Step {
    other: bool,
    origin: u64,
    time: u64,
    closes: bool,
}

prop_compose! {
    fn any_step(sorted: bool)(other in any::<bool>(), origin in 1u64..3, time in 1u64..50, closes in any::<bool>()) -> Step {
        let origin = if sorted { 1 } else { origin };
        Step { other, origin, time, closes }
    }
}

fn tables(sorted: bool) -> impl Strategy<Value = Vec<Vec<Step>>> {
    let table = proptest::collection::vec(any_step(sorted), 0..20);
    proptest::collection::vec(table, 0..4)
}

fn check(tables: Vec<Vec<Step>>, sorted: bool) -> Result<(), TestCaseError> {
    let (user, key, other) = (
        UserId::new("u").unwrap(),
        Key::new("k").unwrap(),
        Key::new("o").unwrap(),
    );
    let mut expected = Vec::new();
    let (mut seq, mut clock, mut left_open) = (0, 0, 0);
    let mut made = Vec::new();
    for (number, steps) in tables.into_iter().enumerate() {
        let mut memtable = Memtable::new(LogKey::without_secret(number as u64), NameKey::new([1; 16]));
        let mut open = Vec::new();
        for step in steps {
            seq += 1;
            clock += step.time;
            let op = op(step.origin, seq, if sorted { clock } else { step.time * 1000 + seq });
            let name = if step.other { &other } else { &key };
            memtable.append(&user, name, &op);
            open.extend((!step.other).then_some(op));
            if step.closes {
                memtable.close_group();
                let closed = memtable.closed_groups();
                memtable.set_durable(closed);
                expected.append(&mut open);
            }
        }
        left_open += open.len();
        made.push(memtable.share());
    }
    expected.sort_by_key(Op::stamp);
    let held = MemoryOps::of(&made, (&user, &key), Memtable::durable_groups);
    prop_assert_eq!((held.len(), held.is_empty()), (expected.len(), expected.is_empty()));
    // Those of the open group come when they are asked for.
    let open_too = |memtable: &Memtable| memtable.closed_groups() + 1;
    let all = MemoryOps::of(&made, (&user, &key), open_too);
    prop_assert_eq!(all.iter().count(), expected.len() + left_open);
    // What is added later is not in it.
    for table in &made {
        let mut memtable = table.write();
        memtable.append(&user, &key, &op(1, 1000, 1));
        memtable.close_group();
        let closed = memtable.closed_groups();
        memtable.set_durable(closed);
    }
    prop_assert_eq!(held.iter().collect::<Vec<_>>(), expected);
    Ok(())
}

proptest! {
    #[test]
    fn ops_in_order_come_out_in_order(tables in tables(true)) {
        check(tables, true)?;
    }

    #[test]
    fn ops_in_any_order_come_out_sorted(tables in tables(false)) {
        check(tables, false)?;
    }

    /// Ops as replicas get them: of several origins, in any order, and again and again; some are what a peer has left of them.
    #[test]
    fn a_copy_comes_out_once_and_what_is_left_of_a_cleared_op_stands(
        given in proptest::collection::vec((1u64..4, 1u64..8, any::<bool>(), any::<bool>()), 0..40),
        cuts in (0usize..40, 0usize..40),
    ) {
        let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
        let mut tables: Vec<_> = (0..3).map(|number| Memtable::new(LogKey::without_secret(number), NameKey::new([1; 16]))).collect();
        let mut expected = std::collections::BTreeMap::new();
        for (index, (origin, seq, spent, closes)) in given.into_iter().enumerate() {
            let mut op = op(origin, seq, seq * 10);
            if spent {
                op.body = Body::Spent { cleared_at: crate::types::WallMs(3) };
            }
            let table = &mut tables[usize::from(index >= cuts.0) + usize::from(index >= cuts.1)];
            table.append(&user, &key, &op);
            if closes {
                table.close_group();
            }
            let rank = crate::store::order::rank_of;
            let held = expected.entry((op.stamp(), op.dot)).or_insert_with(|| op.clone());
            if rank(&op) < rank(held) {
                *held = op;
            }
        }
        for table in &mut tables {
            table.close_group();
        }
        let tables: Vec<_> = tables.into_iter().map(Memtable::share).collect();
        let held = MemoryOps::of(&tables, (&user, &key), Memtable::closed_groups);
        prop_assert_eq!(held.iter().collect::<Vec<_>>(), expected.into_values().collect::<Vec<_>>());
        let mut known = Clock::default();
        known.insert_range(OriginId(1), 2, 5);
        known.insert_range(OriginId(3), 1, 9);
        let lacking: Vec<Op> = held.iter().filter(|op| !known.contains(op.dot.origin, op.dot.seq)).collect();
        prop_assert_eq!(held.lacking(&known).iter().collect::<Vec<_>>(), lacking);
        let until = held.iter().nth(2).map(|op| op.stamp());
        let is_within = |op: &Op| {
            let is_left = matches!(op.body, Body::Spent { .. });
            is_left || known.contains(op.dot.origin, op.dot.seq) || Some(op.stamp()) <= until
        };
        let within: Vec<Op> = held.iter().filter(is_within).collect();
        prop_assert_eq!(held.within(&known, until).iter().collect::<Vec<_>>(), within);
        prop_assert_eq!(held.last_stamp(), held.iter().last().map(|op| op.stamp()));
    }
}
