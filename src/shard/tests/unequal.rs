//! Clears in a shard whose keys are few, and unlike in size.

use super::*;

impl Rig {
    /// What is worth merging is looked for once a second.
    fn tick_and_run(&mut self) {
        self.shard.tick(self.now);
        self.run_jobs();
    }
}

/// Four keys of a mebibyte, sealed.
fn with_large_keys() -> Rig {
    let mut rig = Rig::new(small());
    for key in 0..4u64 {
        for value in 0..64 {
            rig.add("u", &format!("large {key}"), &noise(key * 64 + value, 16 << 10));
        }
    }
    rig.seal();
    rig
}

#[test]
fn clears_of_a_small_key_do_not_have_large_ones_written_again_and_again() {
    let mut rig = with_large_keys();
    let data = rig.shard.stats().segment_bytes;
    let before = rig.shard.segments.all().to_vec();
    let mut written = BTreeMap::new();
    for round in 0..100 {
        rig.add("u", "small", "value");
        if round % 10 == 0 {
            rig.freeze();
        }
        rig.tick_and_run();
        rig.clear("u", "small");
        rig.tick_and_run();
        let segments = rig.shard.segments.all().iter();
        written.extend(segments.map(|segment| (segment.number(), segment.file_bytes())));
    }
    for segment in before {
        written.remove(&segment.number());
    }
    let written: u64 = written.values().sum();
    assert!(
        written < 3 * data,
        "{written} bytes were written for the sake of {data}"
    );
    assert!(rig.get("u", "small").is_empty());
}

#[test]
fn clears_of_large_keys_free_their_space_though_they_are_few() {
    let mut rig = with_large_keys();
    let data = rig.shard.stats().segment_bytes;
    for key in 0..100u64 {
        rig.add("u", &format!("small {key}"), "value");
    }
    rig.freeze();
    rig.run_jobs();
    // Two times what a key takes on average is next to nothing.
    rig.clear("u", "large 1");
    rig.clear("u", "large 2");
    rig.tick_and_run();
    let left = rig.shard.stats().segment_bytes;
    assert!(left < data * 6 / 10, "{left} of {data} bytes");
    assert_eq!(rig.get("u", "large 3").len(), 64);
}

#[test]
fn what_is_cleared_again_and_again_counts_once() {
    let mut rig = with_large_keys();
    let segments = rig.shard.segments.all().iter();
    let largest = segments.max_by_key(|segment| segment.file_bytes()).unwrap().number();
    for value in 0..10 {
        rig.add("u", "cleared", &noise(value, 6000));
    }
    rig.freeze();
    rig.run_jobs();
    for _ in 0..100 {
        rig.clear("u", "cleared");
        rig.tick_and_run();
    }
    let is_there = rig
        .shard
        .segments
        .all()
        .iter()
        .any(|segment| segment.number() == largest);
    assert!(is_there, "nothing of the large keys was cleared");
}
