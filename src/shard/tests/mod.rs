//! The engine against a model, with reopening, sealing and compaction at random points.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::clock::SlotClocks;
use crate::core::op::Text;
use crate::core::slot::{KeyHash, slot_of};
use crate::types::{Key, RequestId, UserId};

mod clears;
mod faults;
mod forged;
mod full_disk;
mod healing;
mod idle;
mod open_parts;
mod origins;
mod races;
mod requests;
mod rig;
mod same_hash;
mod unequal;

use rig::*;

#[test]
fn values_are_there_after_commit_reopen_seal_and_merge() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "one");
    rig.add("u", "k", "two");
    assert!(rig.get("u", "k").is_empty(), "not durable yet, so not shown");
    rig.run_jobs();
    assert_eq!(rig.get("u", "k"), strings(&["one", "two"]));
    rig.reopen();
    assert_eq!(rig.get("u", "k"), strings(&["one", "two"]));
    rig.run_jobs();
    assert_eq!(rig.shard.stats().frozen_memtables, 0, "sealed");
    rig.add("u", "k", "three");
    rig.run_jobs();
    assert_eq!(rig.get("u", "k"), strings(&["one", "two", "three"]));
    assert_eq!(rig.get_page("u", "k", 1, 1), strings(&["two"]));
    assert_eq!(rig.keys("u", "", 10), strings(&["k"]));
}

#[test]
fn what_is_on_its_way_to_the_disk_is_not_shown_until_it_is_durable() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "old");
    rig.run_jobs();
    rig.add("u", "k", "new");
    rig.add("u", "fresh", "new");
    let commit = rig.shard.next_commit().unwrap();
    assert_eq!(rig.get("u", "k"), strings(&["old"]));
    assert_eq!(rig.keys("u", "", 10), strings(&["k"]));
    rig.clear("u", "k");
    let written = commit.run();
    assert_eq!(rig.get("u", "k"), strings(&["old"]));
    rig.shard.committed(written);
    assert_eq!(
        rig.get("u", "k"),
        strings(&["old", "new"]),
        "the clear is not durable yet"
    );
    assert_eq!(rig.keys("u", "", 10), strings(&["fresh", "k"]));
    rig.run_jobs();
    assert!(rig.get("u", "k").is_empty());
}

#[test]
fn a_request_id_counts_once_in_memory_on_disk_and_after_a_clear() {
    let mut rig = Rig::new(small());
    let value = || WriteKind::Add {
        text: "once".into(),
        finish: true,
    };
    assert!(rig.write("u", "k", value(), Some("r")).unwrap());
    assert!(!rig.write("u", "k", value(), Some("r")).unwrap());
    rig.run_jobs();
    for _ in 0..2 {
        rig.reopen();
        rig.run_jobs();
        assert!(!rig.write("u", "k", value(), Some("r")).unwrap());
        assert!(
            rig.write("u", "other", value(), Some("r")).is_ok(),
            "a request id belongs to its key"
        );
    }
    rig.clear("u", "k");
    rig.run_jobs();
    rig.reopen();
    rig.run_jobs();
    rig.now.0 += 30 * 60 * 1000;
    rig.shard.tick(rig.now);
    rig.run_jobs();
    assert!(
        !rig.write("u", "k", value(), Some("r")).unwrap(),
        "remembered after the clear"
    );
    assert!(rig.get("u", "k").is_empty());
}

#[test]
fn the_bytes_of_a_value_are_bounded_across_parts_segments_and_reopening() {
    let mut rig = Rig::new(ShardConfig {
        value_bytes_max: 64 << 10,
        ..small()
    });
    let part = |finish| WriteKind::Add {
        text: Text::from("x".repeat(1 << 10)),
        finish,
    };
    let full = 64;
    for index in 0..full - 1 {
        assert!(rig.write("u", "k", part(false), None).unwrap());
        if index % 16 == 0 {
            rig.run_jobs();
            rig.reopen();
            rig.run_jobs();
        }
    }
    let mut tail = "x".repeat((1 << 10) + 1);
    let finish = |text: &str| WriteKind::Add {
        text: text.into(),
        finish: true,
    };
    assert!(matches!(
        rig.write("u", "k", finish(&tail), None),
        Err(WriteRefused::ValueTooLong { .. })
    ));
    tail.pop();
    assert!(
        rig.write("u", "k", finish(&tail), None).unwrap(),
        "the limit itself is allowed"
    );
    rig.run_jobs();
    assert!(
        rig.write("u", "k", part(true), None).unwrap(),
        "and counting starts anew"
    );
}

#[test]
fn unfinished_parts_in_memory_count_although_no_count_of_them_is_remembered() {
    let mut rig = Rig::new(ShardConfig {
        value_bytes_max: 4 << 10,
        ..small()
    });
    let add = |bytes: usize, finish| WriteKind::Add {
        text: Text::from("x".repeat(bytes)),
        finish,
    };
    for _ in 0..3 {
        assert!(rig.write("u", "k", add(1 << 10, false), None).unwrap());
    }
    let refused = |rig: &mut Rig| {
        let result = rig.write("u", "k", add((1 << 10) + 1, true), None);
        assert!(matches!(result, Err(WriteRefused::ValueTooLong { .. })), "{result:?}");
    };
    // As when many other keys were written in parts.
    rig.shard.open_parts.clear();
    refused(&mut rig);
    rig.run_jobs();
    rig.reopen();
    while let Some(job) = rig.shard.next_space_job() {
        let made = job.run();
        rig.shard.space_made(made);
    }
    assert_eq!(rig.shard.stats().frozen_memtables, 1, "it is not sealed yet");
    refused(&mut rig);
    assert!(rig.write("u", "k", add(1 << 10, true), None).unwrap());
}

#[test]
fn space_is_reclaimed_after_clears() {
    let mut rig = Rig::new(small());
    for round in 0..20u64 {
        for key in 0..200u64 {
            rig.add("u", &format!("key {key}"), &noise(round * 200 + key, 100));
        }
        rig.run_jobs();
    }
    let full = rig.shard.stats().segment_bytes;
    for key in 0..200 {
        rig.clear("u", &format!("key {key}"));
    }
    rig.run_jobs();
    for _ in 0..3 {
        rig.now.0 += 60_000;
        rig.shard.tick(rig.now);
        rig.run_jobs();
    }
    let stats = rig.shard.stats();
    assert!(
        stats.segment_bytes * 20 < full,
        "{} of {full} bytes are left",
        stats.segment_bytes
    );
    assert_eq!(stats.sealed_ops, 0, "not even the clears are left");
    assert!(rig.keys("u", "", 10).is_empty());
    rig.add("u", "key 1", "new");
    rig.run_jobs();
    rig.reopen();
    assert_eq!(rig.get("u", "key 1"), strings(&["new"]));
}

#[test]
fn an_idle_shard_lets_its_spare_logs_go_and_goes_on_afterwards() {
    let logs = |rig: &Rig| {
        let names = rig.disk.as_disk().list(&place(&rig.disk).dir).unwrap();
        names.iter().filter(|entry| entry.name.ends_with(".kvl")).count()
    };
    let mut rig = Rig::new(small());
    let write = |rig: &mut Rig| {
        for key in 0..4000u64 {
            rig.add("u", &format!("key {key}"), &noise(key, 100));
        }
        rig.run_jobs();
    };
    write(&mut rig);
    let busy = logs(&rig);
    rig.shard.tick(rig.now);
    rig.run_jobs();
    assert_eq!(logs(&rig), busy, "it was not idle yet");
    rig.now.0 += 60_000;
    rig.shard.tick(rig.now);
    rig.run_jobs();
    assert!(busy > 2 && logs(&rig) <= 2, "{busy} logs, then {}", logs(&rig));
    write(&mut rig);
    rig.reopen();
    assert_eq!(rig.get("u", "key 7"), strings(&[&noise(7, 100), &noise(7, 100)]));
}

#[derive(Debug, Clone)]
enum Step {
    Add {
        key: u8,
        size: u16,
        finish: bool,
        request: Option<u8>,
    },
    Clear {
        key: u8,
    },
    Commit,
    Jobs,
    Reopen,
    Idle,
    Check {
        key: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0u8..6, 0u16..6000, prop::bool::weighted(0.8), prop::option::weighted(0.3, 0u8..8))
            .prop_map(|(key, size, finish, request)| Step::Add { key, size, finish, request }),
        1 => (0u8..6).prop_map(|key| Step::Clear { key }),
        2 => Just(Step::Commit),
        2 => Just(Step::Jobs),
        1 => Just(Step::Reopen),
        1 => Just(Step::Idle),
        3 => (0u8..6).prop_map(|key| Step::Check { key }),
    ]
}

#[derive(Default, Clone)]
struct ModelKey {
    values: Vec<String>,
    open: String,
    requests: BTreeMap<u8, Done>,
}

/// What was done under a request id.
#[derive(Clone, PartialEq)]
struct Done {
    text: String,
    finish: bool,
    cleared: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_engine_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..200)) {
        let mut rig = Rig::new(small());
        let mut model: BTreeMap<u8, ModelKey> = BTreeMap::new();
        let name = |key: u8| format!("key-{key}");
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                Step::Add { key, size, finish, request } => {
                    let text = format!("{index}:{}", "ab".repeat(usize::from(size) / 2));
                    let held = model.entry(key).or_default();
                    let done = request.and_then(|id| held.requests.get(&id).cloned());
                    // Every other time, exactly what was done under the id.
                    let wanted = Done { text, finish, cleared: false };
                    let wanted = done.clone().filter(|_| index % 2 == 0).unwrap_or(wanted);
                    let Done { text, finish, .. } = wanted.clone();
                    let kind = WriteKind::Add { text: text.as_str().into(), finish };
                    let id = request.map(|id| id.to_string());
                    let written = rig.write("user", &name(key), kind, id.as_deref());
                    match done {
                        None => {
                            prop_assert_eq!(written, Ok(true));
                            held.requests.extend(request.map(|id| (id, wanted)));
                            held.open.push_str(&text);
                            if finish {
                                held.values.push(std::mem::take(&mut held.open));
                            }
                        }
                        Some(done) if done == wanted => prop_assert_eq!(written, Ok(false)),
                        Some(done) if !done.cleared => prop_assert_eq!(written, Err(WriteRefused::OtherRequest)),
                        Some(_) => prop_assert!(matches!(written, Ok(false) | Err(WriteRefused::OtherRequest))),
                    }
                }
                Step::Clear { key } => {
                    rig.clear("user", &name(key));
                    let held = model.entry(key).or_default();
                    held.values.clear();
                    held.open.clear();
                    held.requests.values_mut().for_each(|done| done.cleared = true);
                }
                Step::Commit => {
                    if let Some(job) = rig.shard.next_commit() {
                        rig.shard.committed(job.run());
                    }
                }
                Step::Jobs => rig.run_jobs(),
                Step::Reopen => {
                    rig.run_jobs();
                    let report = rig.reopen();
                    prop_assert!(report.damage.is_empty() && report.torn_logs == 0);
                }
                Step::Idle => {
                    rig.now.0 += 60_000;
                    rig.shard.tick(rig.now);
                    rig.run_jobs();
                }
                Step::Check { key } => {
                    rig.run_jobs();
                    let held = model.entry(key).or_default().clone();
                    prop_assert_eq!(rig.get("user", &name(key)), held.values.clone());
                    let page = rig.get_page("user", &name(key), 1, 2);
                    let expected: Vec<String> = held.values.iter().skip(1).take(2).cloned().collect();
                    prop_assert_eq!(page, expected);
                    let count = rig.reader("user", &name(key), 0, u64::MAX).unwrap().count().unwrap();
                    prop_assert_eq!(count, held.values.len() as u64);
                    let listed: Vec<String> = model.iter().filter(|(_, held)| !held.values.is_empty()).map(|(key, _)| name(*key)).collect();
                    prop_assert_eq!(rig.keys("user", "key", 2), listed);
                    prop_assert!(rig.get("other", &name(key)).is_empty());
                }
            }
        }
    }
}

#[test]
fn a_clear_after_a_healed_loss_saw_no_unnamed_op() {
    use crate::store::recover::UNKNOWN_ORIGIN;

    let mut rig = Rig::new(small());
    rig.add("u", "k", "one");
    rig.run_jobs();
    let slot = slot_of(
        &UserId::new("u").unwrap(),
        KeyHash::of(&UserId::new("u").unwrap(), &Key::new("k").unwrap()),
    );
    // As after damage to a log whose records cannot be named.
    let mut lost = SlotClocks::default();
    lost.insert(slot, UNKNOWN_ORIGIN, 1);
    rig.shard.dots.lose(&lost);
    rig.shard.heal(&lost);
    rig.clear("u", "k");
    let memtable = rig.shard.logs.memtables().last().unwrap().read();
    let cleared: Vec<crate::core::clock::Clock> = memtable.cleared_keys(usize::MAX).map(|(_, seen)| seen).collect();
    assert_eq!(cleared.len(), 1);
    assert!(cleared[0].get(UNKNOWN_ORIGIN).is_none());
    assert_eq!(cleared[0].count(), 1);
}

#[test]
fn a_clear_that_comes_through_late_keeps_what_came_after_it_was_asked_for() {
    let mut rig = Rig::new(small());
    rig.add("u", "k", "before");
    rig.run_jobs();
    let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
    let slot = slot_of(&user, KeyHash::of(&user, &key));
    let context = WriteContext {
        seen: Some(rig.shard.reader().durable_clock(slot)),
        ..WriteContext::default()
    };
    rig.add("u", "k", "meanwhile");
    rig.run_jobs();
    assert!(rig.write_in(context, "u", "k", WriteKind::Clear, None).unwrap());
    rig.run_jobs();
    assert_eq!(rig.get("u", "k"), strings(&["meanwhile"]));
}
