//! Whatever lies where: what is given is what the model holds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SLOTS: [u16; 4] = [0, 3, 4, 1024];

/// Memtables, of which only the first groups are durable; and segments.
struct Snapshot {
    memtables: Vec<SharedMemtable>,
    segments: Vec<Arc<Segment>>,
}

/// An op, and which sources hold it: bits 0 and 1 are memtables, bits 2 and 3 segments.
type Placed = (KeyedOp, u8);

/// Each dot is one op of one key, as dots are.
fn placed_ops() -> impl Strategy<Value = Vec<Placed>> {
    let one = (0usize..4, 1u64..4, 1u64..40, 1u8..16, 0u8..8, 0usize..60);
    proptest::collection::vec(one, 0..60).prop_map(|list| {
        let mut ops: BTreeMap<Dot, Placed> = BTreeMap::new();
        for (slot, origin, seq, places, kind, length) in list {
            let text = || "ä".repeat(length).into();
            let body = match kind {
                0 => Body::Part(text()),
                1 => {
                    let mut seen = Clock::default();
                    seen.insert_range(OriginId(origin), 1, seq);
                    Body::Clear(seen)
                }
                2 => Body::Spent {
                    cleared_at: WallMs(seq),
                },
                _ => Body::Value(text()),
            };
            let mut op = keyed(SLOTS[slot], length, origin, seq, body);
            op.op.request_id = (kind % 3 == 2).then_some(RequestId([kind; 16]));
            ops.entry(op.op.dot).or_insert((op, places));
        }
        ops.into_values().collect()
    })
}

impl Snapshot {
    /// Of the memtables' ops, the last `undurable` are not durable.
    fn of(placed: &[Placed], undurable: usize) -> (Self, Vec<KeyedOp>) {
        let disk = MemoryDisk::new();
        let mut held = Vec::new();
        let mut memtables = Vec::new();
        for bit in 0..2 {
            let ops: Vec<&KeyedOp> = placed
                .iter()
                .filter(|op| op.1 >> bit & 1 == 1)
                .map(|op| &op.0)
                .collect();
            let durable = ops.len().saturating_sub(undurable);
            let mut memtable = Memtable::new(LogKey::without_secret(bit), NameKey::new([1; 16]));
            for (index, op) in ops.iter().enumerate() {
                append(&mut memtable, op);
                if index + 1 == durable {
                    make_durable(&mut memtable);
                }
            }
            // Closed, but not durable yet.
            memtable.close_group();
            held.extend(ops[..durable].iter().map(|op| (*op).clone()));
            memtables.push(memtable.share());
        }
        let mut segments = Vec::new();
        for bit in 2..4 {
            let ops: Vec<KeyedOp> = placed
                .iter()
                .filter(|op| op.1 >> bit & 1 == 1)
                .map(|op| op.0.clone())
                .collect();
            segments.push(segment(&disk, bit, &ops, dots(&ops)));
            held.extend(ops);
        }
        held.sort_by_key(order);
        held.dedup();
        let snapshot = Self { memtables, segments };
        (snapshot, held)
    }

    fn scan(&self, wants: SlotClocks) -> OpScan {
        OpScan::new(self.memtables.clone(), self.segments.clone(), wants, WallMs(0)).with_cleared()
    }
}

fn any_wants() -> impl Strategy<Value = SlotClocks> {
    let range = (0usize..4, 1u64..4, 1u64..40, 0u64..30);
    proptest::collection::vec(range, 0..8).prop_map(|ranges| {
        let mut wants = SlotClocks::default();
        for (slot, origin, first, more) in ranges {
            wants.insert_range(SlotId(SLOTS[slot]), OriginId(origin), first, first + more);
        }
        wants
    })
}

fn any_look() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(1000), Just(scan::LOOK_BYTES_MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_scan_gives_every_wanted_op_once_and_in_order(
        placed in placed_ops(), undurable in 0usize..6, wants in any_wants(), budget in 0usize..2000, look in any_look(),
    ) {
        let (snapshot, held) = Snapshot::of(&placed, undurable);
        let wanted = |op: &&KeyedOp| wants.contains(op.op.dot.slot, op.op.dot.origin, op.op.dot.seq);
        let expected: Vec<KeyedOp> = held.iter().filter(wanted).cloned().collect();
        let mut scan = snapshot.scan(wants.clone()).looking_at(look);
        // What comes after the snapshot is not in it.
        for table in &snapshot.memtables {
            append(&mut table.write(), &keyed(3, 1, 1, 1_000, Body::Value("late".into())));
            make_durable(&mut table.write());
        }
        prop_assert_eq!(drain(&mut scan, budget).unwrap(), expected);
    }

    #[test]
    fn every_clear_that_saw_something_wanted_comes_before_all_that_it_removed(
        placed in placed_ops(), undurable in 0usize..6, wants in any_wants(), budget in 0usize..2000, only_wanted in any::<bool>(),
        look in any_look(),
    ) {
        let (snapshot, held) = Snapshot::of(&placed, undurable);
        let is_wanted = |op: &KeyedOp| wants.contains(op.op.dot.slot, op.op.dot.origin, op.op.dot.seq);
        let mut cleared: BTreeMap<_, Clock> = BTreeMap::new();
        let (mut expected, mut others) = (Vec::new(), Vec::new());
        for op in &held {
            match &op.op.body {
                Body::Clear(seen) => {
                    cleared.entry((&op.user, &op.key)).or_default().join(seen);
                    let saw_wanted = wants.get(op.op.dot.slot).is_some_and(|wanted| seen.meets(wanted));
                    if is_wanted(op) || saw_wanted && !only_wanted {
                        expected.push(op.clone());
                    }
                }
                _ if is_wanted(op) => others.push(op),
                _ => {}
            }
        }
        for KeyedOp { user, key, op } in others {
            let nothing = Clock::default();
            let left = left_by(cleared.get(&(user, key)).unwrap_or(&nothing), op.clone(), WallMs(0));
            expected.extend(left.map(|op| KeyedOp { user: user.clone(), key: key.clone(), op }));
        }
        let scan = OpScan::new(snapshot.memtables.clone(), snapshot.segments.clone(), wants.clone(), WallMs(0)).looking_at(look);
        let mut scan = if only_wanted { scan.only_wanted() } else { scan };
        // Clears that come after the snapshot remove nothing of it.
        for (name, user) in USERS.iter().enumerate() {
            let mut all = Clock::default();
            (1..4).for_each(|origin| all.insert_range(OriginId(origin), 1, 50));
            for slot in SLOTS {
                let clear = keyed(slot, name, 9, 1_000 + name as u64, Body::Clear(all.clone()));
                let mut memtable = snapshot.memtables[0].write();
                append(&mut memtable, &KeyedOp { user: UserId::from_stored(user), ..clear });
                make_durable(&mut memtable);
            }
        }
        prop_assert_eq!(drain(&mut scan, budget).unwrap(), expected);
    }

    #[test]
    fn what_a_slot_holds_is_told_by_kind(placed in placed_ops(), undurable in 0usize..6, slot in 0usize..4) {
        let (snapshot, held) = Snapshot::of(&placed, undurable);
        let slot = SlotId(SLOTS[slot]);
        let told = held_dots(&snapshot.memtables, &snapshot.segments, slot).unwrap();
        let of_kind = |is: fn(&Body) -> bool| {
            dots(held.iter().filter(|op| is(&op.op.body))).remove_slot(slot).unwrap_or_default()
        };
        prop_assert_eq!(told.covered, of_kind(|_| true));
        let cleared = |op: &&KeyedOp| {
            held.iter().any(|other| match &other.op.body {
                Body::Clear(seen) => (&other.user, &other.key) == (&op.user, &op.key) && seen.contains(op.op.dot.origin, op.op.dot.seq),
                _ => false,
            })
        };
        let texts = held.iter().filter(|op| matches!(op.op.body, Body::Part(_) | Body::Value(_)));
        let standing = dots(texts.filter(|op| !cleared(op))).remove_slot(slot).unwrap_or_default();
        prop_assert_eq!(told.texts, standing);
        prop_assert_eq!(told.clears, of_kind(|body| matches!(body, Body::Clear(_))));
        prop_assert_eq!(told.spent, of_kind(|body| matches!(body, Body::Spent { .. })));
    }

    #[test]
    fn a_peer_gets_what_it_lacks_of_a_key(placed in placed_ops(), known in any_wants(), budget in 0usize..500) {
        let (snapshot, held) = Snapshot::of(&placed, 0);
        for slot in SLOTS.map(SlotId) {
            for (user, key) in [("", "a"), ("u", "a"), ("v", "b")] {
                let (user, key) = (UserId::from_stored(user), Key::new(&format!("{key}{}", slot.0)).unwrap());
                let source = source(&snapshot.memtables, &snapshot.segments, slot, (&user, &key));
                let mut known = known.get(slot).cloned().unwrap_or_default();
                let of_key = held.iter().filter(|op| (&op.user, &op.key) == (&user, &key));
                let mut cleared = Clock::default();
                for op in of_key.clone() {
                    if let Body::Clear(seen) = &op.op.body {
                        cleared.join(seen);
                    }
                }
                let lacking = of_key.filter(|op| !known.contains(op.op.dot.origin, op.op.dot.seq));
                let (clears, others): (Vec<&KeyedOp>, Vec<&KeyedOp>) =
                    lacking.partition(|op| matches!(op.op.body, Body::Clear(_)));
                let expected: Vec<Op> = clears
                    .into_iter()
                    .chain(others)
                    .filter_map(|op| left_by(&cleared, op.op.clone(), WallMs(0)))
                    .collect();
                let mut export = KeyExport::new(source.clone(), known.clone(), WallMs(0));
                let (mut given, mut more) = (Vec::new(), true);
                while more {
                    let ops;
                    (ops, more) = export.next_page(budget).unwrap();
                    given.extend(ops);
                }
                prop_assert_eq!(&given, &expected);
                let mut given = Vec::new();
                loop {
                    let (ops, more) = ops_of_key_lacking(&source, &known, budget, WallMs(0)).unwrap();
                    prop_assert!(!more || !ops.is_empty());
                    for op in ops {
                        known.insert(op.dot.origin, op.dot.seq);
                        given.push(op);
                    }
                    if !more {
                        break;
                    }
                }
                prop_assert_eq!(given, expected);
            }
        }
    }
}
