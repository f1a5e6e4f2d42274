//! Former origins of the node that a shard belongs to: what they held is missed when it is gone, and nothing else is.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::core::clock::{MOVED, SlotClocks};
use crate::core::op::{Body, Dot, KeyedOp, Op};
use crate::core::stamp::HybridTime;
use crate::store::disk::Disk;

const DIR: &str = "/data/shard";

fn origins(count: u64) -> Vec<OriginId> {
    (1..=count).map(OriginId).collect()
}

impl Rig {
    /// A new life of the node: its so-many-th.
    pub(super) fn live(&mut self, nth: u64) {
        let own = origins(nth);
        let home = Place {
            own_origins: Some(Arc::new(own.iter().copied().collect())),
            ..place(&self.disk)
        };
        let config = ShardConfig {
            replicated: true,
            ..self.config.clone()
        };
        (self.shard, _) = Shard::open(home, config, own[own.len() - 1]).unwrap();
    }

    /// An op of a former life that only another replica has.
    fn take(&mut self, origin: u64, seq: u64) {
        let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
        let op = Op {
            dot: Dot {
                origin: OriginId(origin),
                slot: slot_of(&user, KeyHash::of(&user, &key)),
                seq,
            },
            time: HybridTime(seq << 20),
            request_id: None,
            body: Body::Value(format!("from elsewhere {seq}").into()),
        };
        assert!(matches!(
            self.shard.apply(vec![KeyedOp { user, key, op }], self.now),
            Ok(Applied::InGroup(_))
        ));
        self.run_jobs();
    }
}

#[test]
fn what_comes_back_of_a_former_life_is_no_sign_that_what_it_never_made_durable_was_lost() {
    let mut rig = Rig::new(small());
    for life in 1..=4u64 {
        rig.live(life);
        assert!(rig.shard.dots.lost().is_empty(), "life {life}");
        rig.run_jobs();
        // Its last ones, in a group that died with it, all but one of which nobody got.
        if life > 1 {
            rig.take(life - 1, 6);
        }
        for text in ["a", "b", "c"] {
            rig.add("u", "k", text);
        }
        rig.run_jobs();
    }
    // An origin may also end while the node lives: its shard was reopened.
    rig.live(4);
    rig.shard.set_origin(OriginId(5));
    rig.run_jobs();
    rig.take(4, 9);
    rig.live(5);
    assert!(rig.shard.dots.lost().is_empty());
}

#[test]
fn what_a_former_life_held_is_missed_when_its_files_are_gone() {
    let mut rig = Rig::new(small());
    rig.live(1);
    for text in ["a", "b", "c"] {
        rig.add("u", "k", text);
    }
    rig.run_jobs();
    rig.live(2);
    rig.run_jobs();
    rig.take(1, 6);
    let names = rig.disk.list(Path::new(DIR)).unwrap();
    for name in names.iter().filter(|entry| entry.name.contains(".kv")) {
        rig.disk.remove_file(&Path::new(DIR).join(&name.name)).unwrap();
    }
    rig.live(3);
    assert_eq!(rig.shard.dots.lost().count(), 3);
    // Nothing is left that would tell: the loss stays until the others were asked.
    rig.live(4);
    assert_eq!(rig.shard.dots.lost().count(), 3);
    rig.run_jobs();
    let lost = rig.shard.dots.lost().clone();
    rig.shard.heal(&lost);
    for _ in 0..2 {
        rig.run_jobs();
        rig.now.0 += 1000;
        rig.shard.tick(rig.now);
    }
    rig.run_jobs();
    rig.live(5);
    assert!(rig.shard.dots.lost().is_empty(), "what was given up stays given up");
}

#[test]
fn a_record_of_former_lives_that_cannot_be_read_is_begun_anew() {
    let mut rig = Rig::new(small());
    for life in 1..=2 {
        rig.live(life);
        rig.add("u", "k", "a");
        rig.run_jobs();
    }
    *rig.disk.faults().unreadable.lock() = Some("closed-origins");
    rig.live(3);
    assert!(rig.shard.dots.lost().is_empty());
    rig.disk.faults().unreadable.lock().take();
    rig.run_jobs();
    // Of no former life does more have to be here than was.
    for origin in 1..=2 {
        rig.take(origin, 9);
    }
    rig.live(4);
    assert!(rig.shard.dots.lost().is_empty());
}

#[test]
fn what_is_pulled_of_a_slot_does_not_take_longer_for_each_op_the_more_there_are() {
    const OPS: u64 = 20_000;
    let mut rig = Rig::new(small());
    rig.live(1);
    let (user, key) = (UserId::new("u").unwrap(), Key::new("k").unwrap());
    let slot = slot_of(&user, KeyHash::of(&user, &key));
    let keyed = |index: u64| {
        let seq = 1 + index * 7_919 % OPS;
        let op = Op {
            dot: Dot {
                origin: OriginId(0xbeef),
                slot,
                seq,
            },
            time: HybridTime(index << 20),
            request_id: None,
            body: Body::Value("v".into()),
        };
        KeyedOp {
            user: user.clone(),
            key: key.clone(),
            op,
        }
    };
    let all: Vec<_> = (0..OPS).map(keyed).collect();
    let mut moved = 0;
    for some in all.chunks(1_000) {
        let mut left = some.to_vec();
        // One of them comes twice.
        left.push(some[0].clone());
        while !left.is_empty() {
            let before = MOVED.get();
            let applied = rig.shard.apply(std::mem::take(&mut left), rig.now);
            if let Ok(Applied::NeedsSpace(rest)) = applied {
                left = rest;
            }
            while let Some(job) = rig.shard.next_commit() {
                rig.shard.committed(job.run());
            }
            moved += MOVED.get() - before;
            rig.run_jobs();
        }
    }
    assert!(moved < 100 * OPS, "{moved} ranges were moved");
    let mut expected = SlotClocks::default();
    expected.insert_range(slot, OriginId(0xbeef), 1, OPS);
    assert!(rig.shard.dots.covered().covers(&expected) && rig.shard.reader().durable_clocks().covers(&expected));
    assert_eq!(rig.get("u", "k").len() as u64, OPS);
}
