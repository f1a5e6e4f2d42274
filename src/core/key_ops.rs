//! The replicated type in memory: a key as the set of its ops.
//!
//! Laws (property-tested): `merge` is commutative, associative and idempotent; the view is a function of the set, however it
//! was put together; a clear removes exactly the ops that its context covers.
//!
//! It is the reference model: the storage engine holds the same set in segments and folds it as a stream, and tests and the
//! simulation compare the two.

use std::collections::BTreeMap;

use super::fold::{Survey, Surveyed, Visibility};
use super::op::{Body, Dot, Op};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyOps {
    ops: BTreeMap<Dot, Op>,
}

impl KeyOps {
    /// Adds one op. What is left of a cleared op stands against the op itself.
    pub fn insert(&mut self, op: Op) {
        if matches!(op.body, Body::Spent { .. }) || !self.ops.contains_key(&op.dot) {
            self.ops.insert(op.dot, op);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for op in other.ops.values() {
            self.insert(op.clone());
        }
    }

    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.ops.values()
    }

    pub fn visibility(&self) -> Visibility {
        let mut survey = Survey::default();
        loop {
            self.ops().for_each(|op| survey.see(op));
            match survey.finish() {
                Surveyed::Done(visibility) => return visibility,
                Surveyed::Again(next) => survey = next,
            }
        }
    }

    /// The finished values, in stamp order.
    pub fn view(&self) -> Vec<String> {
        let visibility = self.visibility();
        let mut shown: Vec<&Op> = self.ops().filter(|op| visibility.shows(op)).collect();
        shown.sort_by_key(|op| op.stamp());
        let mut values = Vec::new();
        let mut open = String::new();
        for op in shown {
            match &op.body {
                Body::Part(text) => open.push_str(text.as_ref()),
                Body::Value(text) => {
                    open.push_str(text.as_ref());
                    values.push(std::mem::take(&mut open));
                }
                Body::Clear(_) | Body::Spent { .. } => {}
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::clock::Clock;
    use crate::core::slot::SlotId;
    use crate::core::stamp::{HybridTime, OriginId};
    use crate::types::RequestId;

    const SLOT: SlotId = SlotId(7);

    fn op(origin: u64, seq: u64, time: u64, body: Body) -> Op {
        Op {
            dot: Dot {
                origin: OriginId(origin),
                slot: SLOT,
                seq,
            },
            time: HybridTime(time),
            request_id: None,
            body,
        }
    }

    fn value(origin: u64, seq: u64, time: u64) -> Op {
        op(origin, seq, time, Body::Value(format!("{origin}.{seq}").into()))
    }

    fn set(ops: &[Op]) -> KeyOps {
        let mut set = KeyOps::default();
        ops.iter().for_each(|op| set.insert(op.clone()));
        set
    }

    prop_compose! {
        /// Ops as replicas make them: a dot always means the same op.
        fn any_op()(origin in 1u64..4, seq in 1u64..12) -> Op {
            let fixed = (origin * 7919 + seq * 104_729) ^ ((origin * seq) << 3);
            let body = match fixed % 5 {
                0 => Body::Part(format!("p{fixed}").into()),
                1 => Body::Clear(clock(&[(fixed % 3 + 1, 1, fixed % 9)])),
                _ => Body::Value(format!("v{fixed}").into()),
            };
            Op {
                dot: Dot { origin: OriginId(origin), slot: SLOT, seq },
                time: HybridTime(seq * 10 + fixed % 10),
                request_id: (fixed % 3 == 0).then_some(RequestId([(fixed % 4) as u8; 16])),
                body,
            }
        }
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        proptest::collection::vec(any_op(), 0..24)
    }

    proptest! {
        #[test]
        fn merge_is_commutative_associative_idempotent(a in ops(), b in ops(), c in ops()) {
            let (a, b, c) = (set(&a), set(&b), set(&c));
            let merge = |x: &KeyOps, y: &KeyOps| { let mut z = x.clone(); z.merge(y); z };
            prop_assert_eq!(merge(&a, &b), merge(&b, &a));
            prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
            prop_assert_eq!(merge(&a, &a), a);
        }

        #[test]
        fn the_view_does_not_depend_on_the_order_of_arrival(ops in ops().prop_shuffle(), cut in 0usize..24) {
            let sorted = { let mut sorted = ops.clone(); sorted.sort_by_key(|op| (op.dot, op.time)); sorted };
            let (left, right) = ops.split_at(cut.min(ops.len()));
            let mut halves = set(right);
            halves.merge(&set(left));
            prop_assert_eq!(set(&ops).view(), set(&sorted).view());
            prop_assert_eq!(halves.view(), set(&sorted).view());
        }

        #[test]
        fn a_clear_removes_exactly_what_it_saw(values in proptest::collection::btree_set((1u64..4, 1u64..9), 0..16), seen in proptest::collection::vec((1u64..4, 1u64..9), 0..16)) {
            let mut ops: Vec<Op> = values.iter().map(|&(origin, seq)| value(origin, seq, seq * 3)).collect();
            let mut context = Clock::default();
            seen.iter().for_each(|&(origin, seq)| context.insert(OriginId(origin), seq));
            // Its own time decides nothing: it stands before all values here.
            ops.push(op(9, 1, 0, Body::Clear(context.clone())));
            let mut left: Vec<_> = values.iter().filter(|&&(origin, seq)| !context.contains(OriginId(origin), seq)).collect();
            left.sort_by_key(|&&(origin, seq)| (seq * 3, origin));
            let expected: Vec<String> = left.iter().map(|(origin, seq)| format!("{origin}.{seq}")).collect();
            prop_assert_eq!(set(&ops).view(), expected);
        }
    }

    #[test]
    fn parts_show_only_once_a_value_finishes_them() {
        let part = |seq, text: &str| op(1, seq, seq, Body::Part(text.into()));
        let mut key = set(&[part(1, "a"), part(2, "b")]);
        assert!(key.view().is_empty());
        key.insert(op(1, 3, 3, Body::Value("c".into())));
        key.insert(part(4, "d"));
        assert_eq!(key.view(), ["abc"]);
    }

    #[test]
    fn a_clear_takes_unfinished_parts_too() {
        let key = set(&[
            op(1, 1, 1, Body::Part("gone".into())),
            op(1, 2, 2, Body::Clear(clock(&[(1, 1, 1)]))),
            op(1, 3, 3, Body::Value("kept".into())),
        ]);
        assert_eq!(key.view(), ["kept"]);
    }

    #[test]
    fn a_request_counts_once_and_its_first_stamp_stands() {
        let request = Some(RequestId([1; 16]));
        let with_request = |op: Op| Op {
            request_id: request,
            ..op
        };
        let (first, second) = (with_request(value(1, 1, 1)), with_request(value(2, 1, 2)));
        assert_eq!(
            set(&[second.clone(), first.clone(), value(3, 1, 3)]).view(),
            ["1.1", "3.1"]
        );
        // One of them was cleared: the other one does not bring it back.
        for (cleared, other) in [(&first, &second), (&second, &first)] {
            let origin = cleared.dot.origin.0;
            let clear = op(3, 1, 3, Body::Clear(clock(&[(origin, 1, 1)])));
            assert!(set(&[first.clone(), second.clone(), clear]).view().is_empty());
            let spent = Op {
                body: Body::Spent {
                    cleared_at: crate::types::WallMs(9),
                },
                ..cleared.clone()
            };
            assert!(set(&[other.clone(), spent]).view().is_empty());
        }
    }

    #[test]
    fn a_request_that_is_taken_anew_counts_though_some_replica_still_remembers_it() {
        let request = Some(RequestId([1; 16]));
        let hour = HybridTime::from_wall(crate::types::WallMs(60 * 60 * 1000)).0;
        let with_request = |op: Op| Op {
            request_id: request,
            ..op
        };
        let first = with_request(value(1, 1, 5));
        let spent = Op {
            body: Body::Spent {
                cleared_at: crate::types::WallMs(9),
            },
            ..first.clone()
        };
        let copy = with_request(value(2, 1, hour));
        let (anew, repeated) = (with_request(value(2, 2, hour + 5)), with_request(value(3, 1, hour + 6)));
        let clear = op(3, 2, 3, Body::Clear(clock(&[(1, 1, 1)])));
        for cleared in [vec![spent], vec![first, clear]] {
            let with = |ops: &[&Op]| {
                let mut key = set(&cleared);
                ops.iter().for_each(|op| key.insert((*op).clone()));
                key.view()
            };
            assert!(with(&[&copy]).is_empty());
            assert_eq!(with(&[&copy, &anew]), ["2.2"]);
            assert_eq!(with(&[&repeated, &anew, &copy]), ["2.2"]);
        }
    }

    fn clock(ranges: &[(u64, u64, u64)]) -> Clock {
        let mut clock = Clock::default();
        for &(origin, first, last) in ranges {
            clock.insert_range(OriginId(origin), first, last);
        }
        clock
    }
}
