//! How long a value is that several nodes send parts of, and how often the disk is asked for that.

use super::*;
use crate::core::clock::Clock;
use crate::core::op::{Body, Dot, KeyedOp, Op};
use crate::core::stamp::HybridTime;

const OTHER: OriginId = OriginId(0xf00d);

fn text(bytes: usize) -> Text {
    Text::from("x".repeat(bytes))
}

fn add(bytes: usize, finish: bool) -> WriteKind {
    let text = text(bytes);
    WriteKind::Add { text, finish }
}

impl Rig {
    /// An op of another node, later than all before it.
    fn other(&mut self, seq: u64, body: Body) {
        let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
        self.now.0 += 1;
        let op = Op {
            dot: Dot {
                origin: OTHER,
                slot: slot_of(&user, KeyHash::of(&user, &key)),
                seq,
            },
            time: HybridTime::from_wall(self.now),
            request_id: None,
            body,
        };
        let mut ops = vec![KeyedOp { user, key, op }];
        while let Applied::NeedsSpace(again) = self.shard.apply(ops, self.now).unwrap() {
            ops = again;
            self.run_jobs();
        }
    }

    /// What came of it, and how often the past was looked up.
    fn add_counting(&mut self, kind: WriteKind) -> (Result<Dot, WriteRefused>, u32) {
        let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
        let hash = KeyHash::of(&user, &key);
        let mut write = Write {
            slot: slot_of(&user, hash),
            hash,
            user,
            key,
            kind,
            request_id: None,
            context: WriteContext::default(),
        };
        self.now.0 += 1;
        let (mut past, mut looked_up): (Option<Box<PastLookup>>, u32) = (None, 0);
        loop {
            match self.shard.submit(write, past.take().as_deref(), self.now) {
                Ok(Submitted::InGroup(_, KeyedOp { op, .. })) => return (Ok(op.dot), looked_up),
                Err(refused) => return (Err(refused), looked_up),
                Ok(Submitted::NeedsPast(again, mut lookup)) => {
                    write = again;
                    lookup.run().unwrap();
                    looked_up += 1;
                    past = Some(lookup);
                }
                Ok(Submitted::NeedsSpace(again)) => {
                    write = again;
                    self.run_jobs();
                }
                Ok(Submitted::Repeated(_)) => panic!("it has no request id"),
            }
        }
    }
}

#[test]
fn adds_of_two_nodes_to_a_key_that_once_had_parts_do_not_each_read_its_list() {
    let mut rig = Rig::new(ShardConfig {
        log_bytes: 1 << 20,
        ..small()
    });
    rig.add_counting(add(10, false)).0.unwrap();
    for _ in 0..5_000 {
        rig.add_counting(add(10, true)).0.unwrap();
    }
    rig.seal();
    let mut looked_up = 0;
    for seq in 1..=100 {
        rig.other(seq, Body::Value(text(10)));
        let (added, times) = rig.add_counting(add(10, true));
        added.unwrap();
        looked_up += times;
    }
    assert!(looked_up <= 1, "{looked_up} of 100 adds read the list");
}

#[test]
fn only_what_is_known_to_be_too_long_is_refused_and_read_once() {
    let mut rig = Rig::new(ShardConfig {
        value_bytes_max: 4 << 10,
        ..small()
    });
    rig.add_counting(add(1 << 10, false)).0.unwrap();
    rig.other(1, Body::Part(text(2 << 10)));
    let (added, looked_up) = rig.add_counting(add((1 << 10) + 1, true));
    assert!(matches!(added, Err(WriteRefused::ValueTooLong { .. })), "{added:?}");
    assert_eq!(looked_up, 1);
    // Nothing came since.
    let (added, looked_up) = rig.add_counting(add((1 << 10) + 1, true));
    assert!(matches!(added, Err(WriteRefused::ValueTooLong { .. })), "{added:?}");
    assert_eq!(looked_up, 0);
    // The other node finishes what both have sent.
    rig.other(2, Body::Value(text(1)));
    let (added, looked_up) = rig.add_counting(add(3 << 10, false));
    assert!(added.is_ok(), "{added:?}");
    assert_eq!(looked_up, 1);
    let (added, looked_up) = rig.add_counting(add(1 << 10, true));
    assert!(added.is_ok(), "{added:?}");
    assert_eq!(looked_up, 0);
}

#[test]
fn parts_whose_value_another_node_clears_count_again() {
    let mut rig = Rig::new(ShardConfig {
        value_bytes_max: 4 << 10,
        ..small()
    });
    rig.other(1, Body::Part(text(10)));
    rig.add_counting(add(3 << 10, false)).0.unwrap();
    let value = rig.add_counting(add(10, true)).0.unwrap();
    let mut seen = Clock::default();
    seen.insert(value.origin, value.seq);
    rig.other(2, Body::Clear(seen));
    let (added, _) = rig.add_counting(add(2 << 10, true));
    assert!(matches!(added, Err(WriteRefused::ValueTooLong { .. })), "{added:?}");
}

impl Rig {
    /// All that was written so far is sealed, and nothing merged.
    fn seal_active(&mut self) {
        self.freeze();
        while self.shard.logs.frozen_count() > 0 {
            let sealed = super::healing::end_of(self.shard.next_merge(self.now).unwrap());
            self.shard.merged(sealed);
        }
    }

    /// A list that once had parts, sealed; and a write to it whose past has to be looked up.
    fn with_past() -> (Self, Write, Box<PastLookup>) {
        let mut rig = Self::new(ShardConfig {
            fan_out: 100,
            ..small()
        });
        rig.add_counting(add(10, false)).0.unwrap();
        for _ in 0..500 {
            rig.add_counting(add(10, true)).0.unwrap();
        }
        rig.seal();
        let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
        let hash = KeyHash::of(&user, &key);
        let write = Write {
            slot: slot_of(&user, hash),
            hash,
            user,
            key,
            kind: add(10, true),
            request_id: Some(RequestId::new("r").unwrap()),
            context: WriteContext::default(),
        };
        match rig.shard.submit(write, None, rig.now) {
            Ok(Submitted::NeedsPast(write, lookup)) => (rig, write, lookup),
            _ => panic!("only the disk knows"),
        }
    }
}

#[test]
fn a_look_up_counts_though_the_shard_seals_and_merges_meanwhile() {
    let (mut rig, mut write, mut lookup) = Rig::with_past();
    for times in 1.. {
        lookup.run().unwrap();
        for key in 0..3 {
            rig.add("u", &format!("other {key}"), "value");
            rig.seal_active();
        }
        match rig.shard.submit(write, Some(&lookup), rig.now) {
            Ok(Submitted::InGroup(..)) => return,
            Ok(Submitted::NeedsPast(again, next)) => (write, lookup) = (again, next),
            _ => panic!("neither refused nor repeated"),
        }
        assert!(times < 3, "looked up without end");
    }
}

#[test]
fn a_request_that_was_taken_and_sealed_while_its_past_was_looked_up_is_repeated() {
    let (mut rig, write, mut lookup) = Rig::with_past();
    lookup.run().unwrap();
    assert!(rig.write("u", "k", add(10, true), Some("r")).unwrap());
    rig.seal_active();
    let Ok(Submitted::NeedsPast(write, mut lookup)) = rig.shard.submit(write, Some(&lookup), rig.now) else {
        panic!("a new segment holds the id");
    };
    lookup.run().unwrap();
    let again = rig.shard.submit(write, Some(&lookup), rig.now);
    assert!(matches!(again, Ok(Submitted::Repeated(None))));
}
