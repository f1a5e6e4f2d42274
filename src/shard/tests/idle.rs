//! What is left for when nobody writes.

use std::collections::BTreeSet;

use super::*;

impl Rig {
    fn segment_numbers(&self) -> BTreeSet<u64> {
        self.shard
            .segments
            .all()
            .iter()
            .map(|segment| segment.number())
            .collect()
    }
}

#[test]
fn a_start_is_no_sign_that_nobody_writes() {
    let mut rig = Rig::new(small());
    for round in 0..2 {
        for value in 0..5 {
            rig.add("u", &format!("k{round}"), &noise(round * 5 + value, 8 << 10));
        }
        rig.clear("u", "something else");
        rig.freeze();
        rig.run_jobs();
    }
    let before = rig.segment_numbers();
    assert_eq!(before.len(), 2);
    rig.reopen();
    for _ in 0..10 {
        rig.run_jobs();
        assert!(rig.segment_numbers().is_superset(&before), "all was written anew");
        rig.now.0 += 1_000;
        rig.shard.tick(rig.now);
    }
    rig.now.0 += 60_000;
    rig.shard.tick(rig.now);
    rig.run_jobs();
    assert_eq!(rig.segment_numbers().len(), 1);
}
