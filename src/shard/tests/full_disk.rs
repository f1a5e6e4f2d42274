//! A restart on a full disk: what was not sealed lies in logs, and clears must go on, and free space.

use std::sync::atomic::Ordering;

use super::healing::end_of;
use super::*;

impl Rig {
    fn set_free(&self, bytes: u64) {
        self.disk.faults().free_bytes.store(bytes, Ordering::Relaxed);
    }

    /// A hundred sealed keys; a log that the disk has no space to seal; and one in use, with clears of so many of the keys. Then a restart.
    fn restarted_on_full_disk(clears: u64) -> Self {
        let mut rig = Self::new(small());
        for key in 0..100u64 {
            rig.add("u", &format!("key {key}"), &noise(key, 400));
        }
        rig.seal();
        for value in 0..10 {
            rig.add("u", "more", &noise(value, 4000));
        }
        rig.freeze();
        rig.set_free(0);
        rig.add("u", "last", "value");
        for key in 0..clears {
            rig.clear("u", &format!("key {key}"));
        }
        while let Some(job) = rig.shard.next_commit() {
            rig.shard.committed(job.run());
        }
        let sealed = end_of(rig.shard.next_merge(rig.now).unwrap());
        assert!(sealed.result.is_err());
        rig.shard.merged(sealed);
        if let Some(job) = rig.shard.next_cleanup() {
            rig.shard.cleaned_up(job.run());
        }
        rig.reopen();
        assert_eq!(rig.shard.stats().frozen_memtables, 2);
        rig
    }

    /// A second passes, in which there is space for what clears free, but not for the seal.
    fn pass_a_second(&mut self) {
        self.now.0 += 1000;
        self.set_free(20 << 10);
        self.shard.tick(self.now);
        self.run_jobs();
        self.set_free(0);
    }
}

#[test]
fn clears_go_on_after_a_restart_on_a_full_disk_with_two_logs_to_seal() {
    let mut rig = Rig::restarted_on_full_disk(0);
    for _ in 0..2 {
        rig.now.0 += 1000;
        rig.shard.tick(rig.now);
        // What the reserve gave back is enough for a small log, and no more.
        while let Some(job) = rig.shard.next_space_job() {
            rig.set_free(66 << 10);
            rig.shard.space_made(job.run());
            rig.set_free(0);
        }
        if let Some(job) = rig.shard.next_merge(rig.now) {
            rig.shard.merged(end_of(job));
        }
    }
    assert!(rig.shard.stats().disk_full);
    let before = rig.shard.stats().segment_bytes;
    for key in 0..100 {
        let cleared = rig.write("u", &format!("key {key}"), WriteKind::Clear, None);
        assert_eq!(cleared, Ok(true), "key {key}");
    }
    rig.run_jobs();
    assert!(rig.get("u", "key 1").is_empty());
    for _ in 0..2 {
        rig.pass_a_second();
    }
    let left = rig.shard.stats().segment_bytes;
    assert!(left * 4 < before, "{left} of {before} bytes");
    rig.reopen();
    assert_eq!((rig.get("u", "more").len(), rig.get("u", "last").len()), (10, 1));
    assert!(rig.get("u", "key 1").is_empty());
}

#[test]
fn clears_of_before_a_restart_free_space_on_a_full_disk() {
    let mut rig = Rig::restarted_on_full_disk(100);
    let before = rig.shard.stats().segment_bytes;
    for _ in 0..4 {
        rig.pass_a_second();
    }
    assert!(rig.shard.stats().disk_full);
    let left = rig.shard.stats().segment_bytes;
    assert!(left * 4 < before, "{left} of {before} bytes");
}
