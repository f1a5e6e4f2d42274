//! What other threads see of a shard while it changes: the simulation runs no two of them at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::core::clock::Clock;
use crate::core::slot::SlotId;

const COMMITS_OF_A_KEY: u64 = 100;

/// A key of each of so many slots.
fn keys_of_different_slots(count: usize) -> Vec<(SlotId, KeyHash, Key)> {
    let user = UserId::new("u").unwrap();
    let mut taken = BTreeSet::new();
    let named = (0..).map(|number| {
        let key = Key::new(&format!("key {number}")).unwrap();
        let hash = KeyHash::of(&user, &key);
        (slot_of(&user, hash), hash, key)
    });
    named.filter(|(slot, ..)| taken.insert(*slot)).take(count).collect()
}

#[test]
fn a_snapshot_of_a_key_holds_all_that_the_clock_says_it_was_taken_at() {
    let mut rig = Rig::new(ShardConfig {
        log_bytes: 64 << 20,
        ..small()
    });
    let keys = keys_of_different_slots(200);
    let (user, reader) = (UserId::new("u").unwrap(), rig.shard.reader());
    let (at, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let look = || {
        let mut looks = 0;
        while !done.load(Ordering::Relaxed) {
            let (slot, hash, key) = &keys[at.load(Ordering::Relaxed)];
            let told = |clock: Option<&Clock>| clock.map_or(0, Clock::count);
            let (source, covered) = reader.key_at((*slot, *hash), &user, key, told).unwrap();
            let held = source.memory.len() as u64;
            assert!(source.segments.is_empty() && held >= covered, "{held} of {covered}");
            looks += 1;
        }
        looks
    };
    std::thread::scope(|threads| {
        let looking = [threads.spawn(look), threads.spawn(look)];
        for (number, (.., key)) in keys.iter().enumerate() {
            at.store(number, Ordering::Relaxed);
            for _ in 0..COMMITS_OF_A_KEY {
                rig.add("u", key.as_str(), "v");
                let commit = rig.shard.next_commit().unwrap();
                rig.shard.committed(commit.run());
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(
            looking
                .map(|looking| looking.join().unwrap())
                .iter()
                .all(|looks| *looks > 0)
        );
    });
}
