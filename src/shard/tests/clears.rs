//! Clears whose records have to wait until every replica knows of them.

use super::*;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::SlotId;

impl Rig {
    fn rest(&mut self) {
        self.now.0 += 60_000;
        self.shard.tick(self.now);
        self.run_jobs();
    }

    fn sealed_clears(&self) -> u64 {
        self.shard.segments.totals().clears
    }
}

fn slot(key: &str) -> SlotId {
    let (user, key) = (UserId::new("u").unwrap(), Key::new(key).unwrap());
    slot_of(&user, KeyHash::of(&user, &key))
}

#[test]
fn clears_that_wait_for_a_node_that_is_away_are_not_merged_again_and_again() {
    let mut rig = Rig::new(ShardConfig {
        replicated: true,
        ..small()
    });
    let (waits, goes) = ("waits", "goes");
    assert_ne!(slot(waits), slot(goes));
    for key in [waits, goes] {
        rig.add("u", key, "value");
        rig.run_jobs();
        rig.clear("u", key);
    }
    rig.seal();
    rig.rest();
    assert_eq!(rig.sealed_clears(), 2);
    let held = rig.shard.reader().durable_clocks();
    let of = |key| held.get(slot(key)).cloned().unwrap_or_default();
    let stable = |rig: &mut Rig, waiting: &Clock, going: &Clock| {
        let mut stable = SlotClocks::default();
        stable.join_slot(slot(waits), waiting);
        stable.join_slot(slot(goes), going);
        rig.shard.set_stable(stable, None);
        rig.rest();
    };
    let mut going = of(goes);
    stable(&mut rig, &Clock::default(), &going);
    assert_eq!(rig.sealed_clears(), 1);
    let merges = rig.shard.stats().merges;
    for seq in 1..10 {
        going.insert_range(OriginId(7), seq, seq);
        stable(&mut rig, &Clock::default(), &going);
    }
    assert_eq!(rig.shard.stats().merges, merges);
    stable(&mut rig, &of(waits), &going);
    assert_eq!(rig.sealed_clears(), 0);
}

#[test]
fn clears_that_all_came_to_know_of_during_the_merge_that_kept_them_go_with_the_next() {
    let mut rig = Rig::new(ShardConfig {
        replicated: true,
        ..small()
    });
    rig.add("u", "k", "value");
    rig.run_jobs();
    rig.clear("u", "k");
    rig.seal();
    rig.rest();
    let mut other = SlotClocks::default();
    other.insert(slot("k"), OriginId(7), 1);
    rig.shard.set_stable(other, None);
    rig.now.0 += 60_000;
    rig.shard.tick(rig.now);
    let mut job = rig.shard.next_merge(rig.now).expect("there is a clear to merge");
    let held = rig.shard.reader().durable_clocks();
    rig.shard.set_stable(held, None);
    let result = loop {
        match job.run() {
            MergeOutcome::More(next) => job = next,
            MergeOutcome::Done(result) => break result,
        }
    };
    rig.shard.merged(result);
    assert_eq!(rig.sealed_clears(), 1);
    rig.rest();
    assert_eq!(rig.sealed_clears(), 0);
}

#[test]
fn a_page_of_one_key_passes_many_in_memory_that_were_cleared() {
    let mut rig = Rig::new(small());
    for number in 0..200 {
        let key = format!("key {number}");
        rig.add("u", &key, "v");
        rig.clear("u", &key);
    }
    rig.add("u", "other", "v");
    rig.run_jobs();
    let query = crate::store::keys::KeyQuery {
        user: UserId::new("u").unwrap(),
        prefix: String::new(),
        after: None,
        limit: 1,
        all: false,
    };
    let page = rig.shard.reader().keys(query).unwrap().list().unwrap();
    assert_eq!(page.keys, [Key::new("other").unwrap()]);
}
