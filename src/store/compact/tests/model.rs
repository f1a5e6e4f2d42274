//! Whatever is merged with whatever, in any order: every key's view stays what the model says, and nothing that was told is forgotten.

use proptest::prelude::*;

use super::*;
use crate::core::key_ops::KeyOps;
use crate::store::reader::taken;

const ORIGINS: u64 = 3;

/// An op; which of five sources hold it; and which of these hold what is left of it instead, as a peer may have sent it.
type Placed = (KeyedOp, u8, u8);

/// In the order of cause and effect: a clear has seen nothing that comes after it. Stamps and places follow no order.
fn placed_ops() -> impl Strategy<Value = Vec<Placed>> {
    let one = (
        (0usize..3, 1..=ORIGINS, 0u8..10),
        (1u8..32, any::<u8>(), 0u64..1_000),
        (proptest::option::of(0u8..4), any::<u64>()),
    );
    proptest::collection::vec(one, 0..30).prop_map(|list| {
        let mut placed: Vec<Placed> = Vec::new();
        for (index, ((key, origin, kind), (places, left, time), (request, chance))) in list.into_iter().enumerate() {
            let seq = index as u64 + 1;
            let mut made = value(key, origin, seq, time * 100 + seq);
            // A clear is no retry of a value, and an origin takes no id twice.
            let id = request.map(|id| RequestId([if (2..5).contains(&kind) { id + 100 } else { id }; 16]));
            let is_taken = |(op, ..): &Placed| op.op.request_id == id && op.op.dot.origin == made.op.dot.origin;
            made.op.request_id = id.filter(|_| !placed.iter().any(is_taken));
            let request = made.op.request_id;
            let mut left = if request.is_some() && left < 8 {
                places & left
            } else {
                0
            };
            match kind {
                0..2 => made.op.body = Body::Part(format!("part {seq} ").into()),
                2..5 => {
                    let mut seen = Clock::default();
                    for (at, (op, ..)) in placed.iter().enumerate() {
                        if op.op.dot.slot == made.op.dot.slot && chance >> (at % 64) & 1 == 1 {
                            seen.insert(op.op.dot.origin, op.op.dot.seq);
                        }
                    }
                    (made.op.body, left) = (Body::Clear(seen), 0);
                }
                _ => {}
            }
            placed.push((made, places, left));
        }
        placed
    })
}

fn left_of(op: &KeyedOp) -> KeyedOp {
    let body = Body::Spent { cleared_at: NOW };
    let op = op.clone();
    KeyedOp {
        op: Op { body, ..op.op },
        ..op
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn merges_change_no_view_and_forget_nothing(
        placed in placed_ops(),
        known_to_all in prop_oneof![3 => Just(u64::MAX), 1 => any::<u64>()],
        turns in proptest::collection::vec((any::<bool>(), 1u8..64), 0..8),
    ) {
        let known = placed.iter().enumerate().filter(|(at, _)| known_to_all >> at & 1 == 1);
        let mut store = Store::new(dots(known.map(|(_, (op, ..))| op)));
        let mut models = [const { None::<KeyOps> }; 3].map(Option::unwrap_or_default);
        for source in 0..5 {
            let mut here = Vec::new();
            for (op, places, left) in placed.iter().filter(|(_, places, _)| places >> source & 1 == 1) {
                let _ = places;
                let op = if left >> source & 1 == 1 { left_of(op) } else { op.clone() };
                let key = KEYS.iter().position(|(_, key)| *key == op.key.as_str()).unwrap();
                models[key].insert(op.op.clone());
                here.push(op);
            }
            match source {
                0..2 => store.add_memtable(&here),
                _ => store.add_segment(&here),
            }
        }
        let covered = store.covered();
        let check = |store: &Store| -> Result<(), TestCaseError> {
            for (key, model) in models.iter().enumerate() {
                prop_assert_eq!(store.view(key), model.view(), "key {}", key);
                for op in model.ops() {
                    if let Some(id) = op.request_id {
                        let in_memory = store.source(key).memory.iter().any(|op| op.request_id == Some(id));
                        prop_assert!(in_memory || taken(&store.source(key), id).unwrap().is_some());
                    }
                }
            }
            prop_assert!(store.covered() == covered);
            prop_assert!(store.stable.covers(&store.collected()));
            Ok(())
        };
        check(&store)?;
        for (seals, choice) in turns {
            if seals && !store.memtables.is_empty() {
                store.seal_oldest();
            } else {
                let count = store.segments.len();
                let places: BTreeSet<usize> = (0..count).filter(|place| choice >> place & 1 == 1).collect();
                if !places.is_empty() {
                    store.compact(&places);
                }
            }
            check(&store)?;
        }
        while !store.memtables.is_empty() {
            store.seal_oldest();
        }
        store.compact_all();
        check(&store)?;
        if known_to_all == u64::MAX {
            prop_assert_eq!(store.clears(), 0, "nothing is left for them to do");
        }
    }
}
