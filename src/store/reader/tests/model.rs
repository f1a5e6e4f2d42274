//! Whatever way a key is read, its view is that of the model (`core::key_ops`).

use proptest::prelude::*;

use super::*;

/// Whose an op is: some ops of one origin, some of the next, and round again.
#[derive(Debug, Clone, Copy)]
struct Turns {
    origins: u64,
    ops: u64,
}

impl Turns {
    fn origin_of(self, index: usize) -> OriginId {
        OriginId(1 + index as u64 / self.ops % self.origins)
    }
}

fn turns() -> impl Strategy<Value = Turns> {
    let several = (2u64..4, 1u64..20).prop_map(|(origins, ops)| Turns { origins, ops });
    prop_oneof![Just(Turns { origins: 1, ops: 1 }), several]
}

/// As ops come about: ascending times, each op by chance of another kind than a plain value. `requests`: so many request ids there are.
fn placed_ops(odd: u32, requests: u8) -> impl Strategy<Value = Vec<Placed>> {
    turns().prop_flat_map(move |turns| placed_ops_of(turns, odd, requests))
}

fn placed_ops_of(turns: Turns, odd: u32, requests: u8) -> impl Strategy<Value = Vec<Placed>> {
    let kind = prop_oneof![
        20 => Just(0u8),
        5 => Just(1),
        odd => 2u8..5,
    ];
    let one = (
        kind,
        1u8..8,
        any::<bool>(),
        0usize..40,
        proptest::option::of(0..requests),
    );
    proptest::collection::vec(one, 0..24).prop_map(move |list| {
        let mut ops: Vec<Placed> = Vec::new();
        let mut place = 2;
        for (index, (kind, places, moves_on, length, request)) in list.into_iter().enumerate() {
            let seq = index as u64 + 1;
            let text = || "ä".repeat(length).into();
            let mut op = op(1, seq, seq * 3, Body::Value(text()));
            op.dot.origin = turns.origin_of(index);
            op.request_id = request.map(|id| RequestId([id; 16]));
            // Mostly, a source takes over where another ended.
            place = if moves_on && index % 5 == 0 {
                1 << (places % 3)
            } else {
                place
            };
            let mut within = place;
            match kind {
                1 => op.body = Body::Part(text()),
                2 => {
                    let mut seen = Clock::default();
                    seen.insert_range(OriginId(1), 1 + seq / 2, seq.saturating_sub(2));
                    op.body = Body::Clear(seen);
                }
                3 => op.body = Body::Spent { cleared_at: WallMs(9) },
                4 => op.dot.origin = OriginId(9),
                _ => {}
            }
            if kind > 1 {
                within = places;
            }
            ops.push((op, within));
        }
        ops
    })
}

/// How one op of a long list differs from a plain value.
#[derive(Debug, Clone, Copy)]
enum Odd {
    Part,
    Clear,
    Spent,
    OfOtherOrigin,
    /// Its source is, and took again a request id that the first op has.
    SourceOfOtherOrigin,
    InTwoSources,
}

/// Nothing but values, source after source; by chance one op is odd.
fn long_list(odd: impl Strategy<Value = Option<(usize, Odd)>>) -> impl Strategy<Value = Vec<Placed>> {
    let values = proptest::collection::vec((0usize..40, proptest::option::of(any::<[u8; 16]>())), 1..150);
    let places = Just([1u8, 2, 4]).prop_shuffle();
    let cuts = (1usize..150, 1usize..150);
    (values, places, cuts, turns(), odd).prop_map(|(values, places, (one, other), turns, odd)| {
        let turn = |index: usize| places[usize::from(index >= one) + usize::from(index >= other)];
        let value = |(index, (length, id)): (usize, (usize, Option<[u8; 16]>))| {
            let seq = index as u64 + 1;
            let mut value = op(
                1,
                seq,
                seq * 3,
                Body::Value(format!("{seq}{}", "ä".repeat(length)).into()),
            );
            value.request_id = id.map(RequestId);
            value.dot.origin = turns.origin_of(index);
            (value, turn(index))
        };
        let mut ops: Vec<Placed> = values.into_iter().enumerate().map(value).collect();
        if let Some((at, odd)) = odd {
            let at = at % ops.len();
            let (first, place) = (RequestId([7; 16]), ops[at].1);
            ops[0].0.request_id = Some(first);
            if matches!(odd, Odd::SourceOfOtherOrigin) {
                for (op, _) in ops.iter_mut().filter(|(_, places)| *places == place) {
                    op.dot.origin = OriginId(9);
                }
            }
            let (op, places) = &mut ops[at];
            match odd {
                Odd::Part => op.body = Body::Part("part".into()),
                Odd::Clear => {
                    let mut seen = Clock::default();
                    seen.insert_range(OriginId(1), 1, at as u64 / 2 + 1);
                    op.body = Body::Clear(seen);
                }
                Odd::Spent => op.body = Body::Spent { cleared_at: WallMs(9) },
                Odd::OfOtherOrigin => op.dot.origin = OriginId(9),
                Odd::SourceOfOtherOrigin => op.request_id = Some(first),
                Odd::InTwoSources => *places = 7,
            }
        }
        ops
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_short_way_and_the_fold_give_the_view(
        ops in prop_oneof![3 => placed_ops(1, 3), 1 => placed_ops(12, 3), 2 => placed_ops(1, 200)],
        block_bytes in prop_oneof![Just(100usize), Just(16 * 1024)],
        (offset, limit, budget) in (0u64..6, prop_oneof![Just(u64::MAX), 0u64..9], 0usize..4000),
        warmed in any::<bool>(),
    ) {
        let source = source(&ops, block_bytes);
        let view = view_of(&ops);
        prop_assert_eq!(values(folding(&source), budget), view.clone());
        let mut reader = KeyReader::new(source.clone(), offset, limit);
        prop_assert_eq!(KeyReader::new(source.clone(), 0, 1).is_warm(), source.is_warm());
        if warmed {
            KeyReader::new(source.clone(), 0, 1).next().unwrap();
            reader.is_warm();
        }
        let page: Vec<String> = view.iter().skip(offset as usize).take(limit.min(99) as usize).cloned().collect();
        prop_assert_eq!(values(reader, budget), page);
        prop_assert_eq!(KeyReader::new(source.clone(), offset, limit).count().unwrap(), view.len() as u64);
        prop_assert_eq!(folding(&source).count().unwrap(), view.len() as u64);
    }

    #[test]
    fn a_key_has_what_the_fold_shows_of_it(
        ops in prop_oneof![
            3 => placed_ops(12, 3),
            1 => placed_ops(12, 200),
            1 => long_list(Just(Some((0, Odd::Spent)))),
            1 => long_list(Just(Some((90, Odd::Clear)))),
        ],
        block_bytes in prop_oneof![Just(100usize), Just(16 * 1024)],
    ) {
        let source = source(&ops, block_bytes);
        let look = &mut Look::while_wanted(&|| true);
        prop_assert_eq!(has_values(&source, look).unwrap(), !view_of(&ops).is_empty());
        let visibility = survey(&source).unwrap().visibility;
        prop_assert_eq!(holds_text(&source, look).unwrap(), ops.iter().any(|(op, _)| visibility.stands(op)));
    }

    #[test]
    fn a_page_of_a_long_list_is_that_of_the_view(
        ops in long_list(proptest::option::of((0usize..150, prop_oneof![
            Just(Odd::Part), Just(Odd::Clear), Just(Odd::Spent), Just(Odd::OfOtherOrigin),
            Just(Odd::SourceOfOtherOrigin), Just(Odd::InTwoSources),
        ]))),
        block_bytes in 60usize..1000,
        (offset, limit, budget) in (0u64..160, prop_oneof![Just(u64::MAX), 0u64..30], 0usize..4000),
        warmed in any::<bool>(),
    ) {
        let source = source(&ops, block_bytes);
        let view = view_of(&ops);
        let mut reader = KeyReader::new(source.clone(), offset, limit);
        if warmed {
            reader.is_warm();
        }
        let page: Vec<String> = view.iter().skip(offset as usize).take(limit.min(999) as usize).cloned().collect();
        prop_assert_eq!(values(reader, budget), page);
        prop_assert_eq!(KeyReader::new(source.clone(), offset, limit).count().unwrap(), view.len() as u64);
        prop_assert_eq!(values(folding(&source), budget), view);
    }

    #[test]
    fn a_list_of_nothing_but_values_is_not_folded(ops in long_list(Just(None)), block_bytes in 60usize..1000) {
        let mut reader = KeyReader::new(source(&ops, block_bytes), 0, u64::MAX);
        reader.start().unwrap();
        prop_assert!(matches!(reader.state, State::Plain(_) | State::Spread(_)));
    }

    #[test]
    fn a_key_of_nothing_but_text_goes_the_short_way(ops in placed_ops(0, 3), turns in (0usize..25, 0usize..25)) {
        let mut ops = ops;
        // Whoever took them, no request id came twice.
        for (index, (op, _)) in ops.iter_mut().enumerate() {
            op.request_id = op.request_id.map(|_| RequestId([index as u8; 16]));
        }
        for (index, (_, places)) in ops.iter_mut().enumerate() {
            *places = match index {
                index if index < turns.0.min(turns.1) => 2,
                index if index < turns.0.max(turns.1) => 4,
                _ => 1,
            };
        }
        let source = source(&ops, 16 * 1024);
        let Plain::View(fragments) = plain::view(&source, Reach::Disk).unwrap() else {
            panic!("it was folded");
        };
        prop_assert_eq!(fragments.iter().filter(|fragment| fragment.ends_value).count(), view_of(&ops).len());
        // What was read is in reach now.
        prop_assert!(KeyReader::new(source, 0, 1).is_warm());
    }
}
