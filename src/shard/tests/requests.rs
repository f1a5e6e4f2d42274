//! No request id that was acknowledged counts again (guarantee G6), wherever its op came to lie: short lists, lists of many blocks, after
//! merges, clears, and the salvage of a segment whose footer is damaged.

use proptest::prelude::*;

use super::*;
use crate::core::fold::taken_anew_from;
use crate::core::op::Body;
use crate::core::stamp::HybridTime;
use crate::store::segment;

#[derive(Debug, Clone)]
enum Step {
    Add { key: u8, count: u8, size: usize },
    Clear { key: u8 },
    Jobs,
    Seal,
    Idle,
    DamageFooter,
    Retry,
}

fn step() -> impl Strategy<Value = Step> {
    // Sizes that fill a block with few values, or with many.
    let size = prop_oneof![Just(1000usize), Just(4096), 1usize..6000];
    prop_oneof![
        6 => (0u8..3, 1u8..40, size).prop_map(|(key, count, size)| Step::Add { key, count, size }),
        1 => (0u8..3).prop_map(|key| Step::Clear { key }),
        1 => Just(Step::Jobs),
        2 => Just(Step::Seal),
        1 => Just(Step::Idle),
        1 => Just(Step::DamageFooter),
        1 => Just(Step::Retry),
    ]
}

fn name(key: u8) -> String {
    format!("key-{key}")
}

fn add(rig: &mut Rig, key: u8, request: usize, size: usize) -> bool {
    let kind = WriteKind::Add {
        text: noise(request as u64, size).as_str().into(),
        finish: true,
    };
    rig.write("user", &name(key), kind, Some(&request.to_string())).unwrap()
}

/// Flips a bit in the footer of the newest segment, if there is any; the next start has to salvage it.
fn damage_footer(rig: &mut Rig) -> bool {
    let dir = place(&rig.disk).dir;
    let entries = rig.disk.as_disk().list(&dir).unwrap();
    let numbers = entries.iter().filter_map(|entry| segment::parse_file_name(&entry.name));
    let Some(number) = numbers.max() else {
        return false;
    };
    let path = dir.join(segment::file_name(number));
    let mut bytes = rig.disk.content(&path).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    rig.disk.put(&path, bytes);
    true
}

#[test]
fn of_an_op_that_was_cleared_no_text_is_handed_out_for_its_request_id() {
    let mut rig = Rig::new(small());
    let (user, name) = (UserId::new("user").unwrap(), Key::new(&name(1)).unwrap());
    let hash = KeyHash::of(&user, &name);
    let body = |rig: &Rig| {
        let (id, reader) = (RequestId::new("7").unwrap(), rig.shard.reader());
        let op = reader.op_of_request(slot_of(&user, hash), hash, &user, &name, id, rig.now);
        op.unwrap().unwrap().op.body
    };
    assert!(add(&mut rig, 1, 7, 10));
    rig.run_jobs();
    rig.clear("user", name.as_str());
    assert!(matches!(body(&rig), Body::Value(_)), "the clear is not durable yet");
    rig.run_jobs();
    assert!(matches!(body(&rig), Body::Spent { .. }));
    // The op in a segment, the clear in a log; then both in segments.
    assert!(add(&mut rig, 1, 8, 10));
    rig.run_jobs();
    for _ in 0..2 {
        rig.reopen();
        rig.run_jobs();
        assert!(matches!(body(&rig), Body::Spent { .. }));
    }
}

/// What it costs to look up one of many, and what is found.
#[test]
fn of_a_long_list_a_few_blocks_are_read_to_find_the_op_of_a_request() {
    const ADDS: usize = 1000;
    let mut rig = Rig::new(ShardConfig {
        log_bytes: 4 << 20,
        ..small()
    });
    for request in 0..ADDS {
        assert!(add(&mut rig, 1, request, 1000));
    }
    rig.run_jobs();
    rig.reopen();
    rig.run_jobs();
    let (user, key) = (UserId::new("user").unwrap(), Key::new(&name(1)).unwrap());
    let hash = KeyHash::of(&user, &key);
    let reader = rig.shard.reader();
    for request in [0, ADDS / 2, ADDS - 1] {
        let id = RequestId::new(&request.to_string()).unwrap();
        let before = rig.disk.read_bytes();
        let op = reader.op_of_request(slot_of(&user, hash), hash, &user, &key, id, rig.now);
        let op = op.unwrap().unwrap().op;
        assert!(matches!(op.body, Body::Value(text) if text.as_ref() == noise(request as u64, 1000)));
        let read = rig.disk.read_bytes() - before;
        assert!(read < 64 << 10, "{read} bytes are read");
    }
}

#[test]
fn a_request_id_that_was_used_for_something_else_is_refused_wherever_its_op_came_to_lie() {
    let mut rig = Rig::new(small());
    let key = name(1);
    let add = |text: &str, finish: bool| WriteKind::Add {
        text: text.into(),
        finish,
    };
    let used = [
        ("part", add("p", false)),
        ("value", add("v", true)),
        ("clear", WriteKind::Clear),
        ("last", add("w", true)),
    ];
    for (id, kind) in &used {
        assert!(rig.write("user", &key, kind.clone(), Some(id)).unwrap());
    }
    // In memory; in a log that was read back; sealed; and after merges.
    for round in 0..6 {
        for (id, kind) in &used {
            let again = rig.write("user", &key, kind.clone(), Some(id));
            assert_eq!(again, Ok(false), "round {round}: {id}");
        }
        let others = [
            ("last", add("w", false)),
            ("last", add("x", true)),
            ("last", add("", true)),
            ("last", WriteKind::Clear),
        ];
        for (id, kind) in others {
            let other = rig.write("user", &key, kind.clone(), Some(id));
            assert_eq!(other, Err(WriteRefused::OtherRequest), "round {round}: {id}, {kind:?}");
        }
        // Of what was cleared, and of a clear, the id may be all that is left; it does not count again.
        for (id, kind) in [
            ("value", add("other", true)),
            ("part", WriteKind::Clear),
            ("clear", add("v", true)),
        ] {
            let other = rig.write("user", &key, kind, Some(id));
            assert!(
                matches!(other, Ok(false) | Err(WriteRefused::OtherRequest)),
                "{other:?}"
            );
        }
        // Another key, or another user, has ids of its own.
        for (user, key) in [("user", "another"), ("another", &*key)] {
            assert_eq!(rig.write(user, key, add("y", true), Some("last")), Ok(round == 0));
        }
        rig.run_jobs();
        assert_eq!(rig.get("user", &key), ["w"], "round {round}");
        if round % 2 == 0 {
            rig.reopen();
        }
        rig.now.0 += 60_000;
        rig.shard.tick(rig.now);
    }
    assert!(rig.shard.stats().sealed_ops > 0);
}

#[test]
fn a_clear_that_is_sent_again_removes_nothing_that_came_since() {
    let mut rig = Rig::new(small());
    let clear = |rig: &mut Rig| rig.write("user", &name(1), WriteKind::Clear, Some("clear")).unwrap();
    assert!(add(&mut rig, 1, 0, 10));
    assert!(clear(&mut rig));
    assert!(add(&mut rig, 1, 1, 10));
    let since = [noise(1, 10)];
    // In memory; in a log that was read back; sealed; and after merges.
    for round in 0..6 {
        assert!(!clear(&mut rig), "round {round}");
        rig.run_jobs();
        assert_eq!(rig.get("user", &name(1)), since, "round {round}");
        if round % 2 == 0 {
            rig.reopen();
        }
        rig.now.0 += 60_000;
        rig.shard.tick(rig.now);
    }
    assert!(rig.shard.stats().sealed_ops > 0);
}

/// Also where all the clears that there ever were went away with the seal that met them.
#[test]
fn the_ids_of_what_was_cleared_before_it_was_sealed_are_forgotten_when_their_time_is_over() {
    let mut rig = Rig::new(small());
    for request in 0..50 {
        assert!(add(&mut rig, 1, request, 10));
    }
    rig.clear("user", &name(1));
    let mut held_after = |ms: u64| {
        for _ in 0..4 {
            rig.now.0 += ms;
            rig.shard.tick(rig.now);
            rig.run_jobs();
        }
        rig.shard.stats().sealed_ops
    };
    assert!(held_after(60_000) >= 50, "they are remembered");
    assert_eq!(held_after(62 * 60_000), 0);
}

#[test]
fn a_shard_that_was_opened_tells_the_time_of_what_it_holds() {
    let mut rig = Rig::new(small());
    rig.now = WallMs(5_000_000);
    assert!(add(&mut rig, 1, 0, 10));
    rig.run_jobs();
    let time = rig.shard.reader().highest_time();
    assert!(time > HybridTime::default());
    // In a log, and then sealed.
    for _ in 0..2 {
        rig.reopen();
        assert!(rig.shard.reader().highest_time() >= time);
        rig.run_jobs();
        assert!(rig.shard.reader().highest_time() >= time);
    }
    assert_eq!(rig.shard.stats().sealed_ops, 1);
}

/// It forgot it by a clock that was set on, and is put right again before the id is taken anew, here or where this shard is asked.
#[test]
fn who_forgot_a_request_id_stamps_later_than_its_copies_whatever_the_clock_says() {
    let mut rig = Rig::new(small());
    rig.now = WallMs(50_000_000);
    assert!(add(&mut rig, 1, 7, 10));
    let taken = rig.shard.reader().highest_time();
    rig.clear("user", &name(1));
    rig.run_jobs();
    let soon = rig.now;
    for _ in 0..4 {
        rig.now.0 += 62 * 60_000;
        rig.shard.tick(rig.now);
        rig.run_jobs();
    }
    assert_eq!(rig.shard.stats().sealed_ops, 0, "it is forgotten");
    for _ in 0..2 {
        let told = rig.shard.reader().highest_time();
        assert!(told >= taken_anew_from(taken), "{told:?} is told");
        rig.reopen();
    }
    rig.now = soon;
    assert!(add(&mut rig, 1, 7, 10));
    assert!(rig.shard.reader().highest_time() > taken_anew_from(taken));
}

#[test]
fn a_write_is_stamped_by_the_clock_that_others_were_told_of_and_after_what_they_told() {
    let mut rig = Rig::new(small());
    let context = WriteContext {
        asked_at: Some(rig.now),
        ..WriteContext::default()
    };
    let stamped = |rig: &mut Rig, text: &str| {
        let kind = WriteKind::Add {
            text: text.into(),
            finish: true,
        };
        assert!(rig.write_in(context.clone(), "user", "key", kind, None).unwrap());
        rig.shard.reader().highest_time()
    };
    let asked_at = rig.now;
    rig.now.0 += 2 * 60 * 60_000;
    assert_eq!(stamped(&mut rig, "the clock was set on").wall(), asked_at);
    let told = HybridTime::from_wall(rig.now);
    rig.shard.reader().come_after(told);
    assert!(stamped(&mut rig, "another one asked") > told);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_request_id_counts_once_whatever_happens_to_its_list(steps in proptest::collection::vec(step(), 1..24)) {
        let mut rig = Rig::new(small());
        let mut taken: Vec<(u8, usize, usize)> = Vec::new();
        for step in steps.into_iter().chain([Step::Seal, Step::Retry]) {
            match step {
                Step::Add { key, count, size } => {
                    for _ in 0..count {
                        let request = taken.len();
                        prop_assert!(add(&mut rig, key, request, size), "a new one is taken");
                        taken.push((key, request, size));
                    }
                }
                Step::Clear { key } => rig.clear("user", &name(key)),
                Step::Jobs => rig.run_jobs(),
                Step::Seal => {
                    rig.run_jobs();
                    rig.reopen();
                    rig.run_jobs();
                }
                Step::Idle => {
                    rig.now.0 += 60_000;
                    rig.shard.tick(rig.now);
                    rig.run_jobs();
                }
                Step::DamageFooter => {
                    rig.run_jobs();
                    if damage_footer(&mut rig) {
                        let report = rig.reopen();
                        prop_assert!(!report.damage.is_empty());
                        // As the node does; nobody knows what the footer said was dropped.
                        rig.shard.set_origin(OriginId(1000 + taken.len() as u64));
                        rig.run_jobs();
                        rig.shard.accept_loss().unwrap();
                    }
                }
                Step::Retry => {
                    for &(key, request, size) in &taken {
                        prop_assert!(!add(&mut rig, key, request, size), "{request} of {key} was taken twice");
                    }
                }
            }
        }
    }
}
