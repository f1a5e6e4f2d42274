//! What jobs that fail, damage and a full disk do to a shard.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::*;

mod damage;
mod full_disk;
mod jobs;
mod no_space;

const DIR: &str = "/data/shard";
/// So many fit into one segment.
const KEYS: u64 = 200;
/// Lies in a block.
const DAMAGED_BYTE: usize = 600;

impl Rig {
    /// A value that is durable, and is to be sealed.
    fn with_unsealed_value() -> Self {
        let mut rig = Self::new(small());
        rig.add("u", "k", "v");
        rig.run_jobs();
        rig.reopen();
        rig
    }

    /// [`KEYS`] keys in one segment.
    fn with_segment() -> Self {
        let mut rig = Self::new(small());
        rig.fill(KEYS);
        rig.seal();
        rig
    }

    /// The same, and a block of it is damaged, which was noticed.
    fn with_damaged_segment() -> Self {
        let mut rig = Self::with_segment();
        rig.damage();
        rig.report_damage();
        rig
    }

    /// A value in each of so many keys.
    fn fill(&mut self, keys: u64) {
        for key in 0..keys {
            self.add("u", &format!("key {key}"), &noise(key, 400));
        }
    }

    fn clear_keys(&mut self, keys: impl Iterator<Item = u64>) {
        for key in keys {
            self.clear("u", &format!("key {key}"));
        }
    }

    fn idle(&mut self) {
        self.now.0 += 60_000;
        self.shard.tick(self.now);
    }

    /// The next merge, run to its end, but its result not told to the shard.
    fn merge_result(&mut self) -> Option<MergeEnd> {
        self.shard.next_merge(self.now).map(end_of)
    }

    /// All that was taken is durable.
    fn commit(&mut self) {
        while let Some(job) = self.shard.next_commit() {
            self.shard.committed(job.run());
        }
    }

    fn segment_names(&self) -> Vec<String> {
        let names = crate::store::disk::Disk::list(&*self.disk, Path::new(DIR)).unwrap();
        let names = names.into_iter().map(|entry| entry.name);
        names.filter(|name| name.starts_with("segment-")).collect()
    }

    /// Everything durable is sealed into as few segments as pay, and no log holds anything.
    pub(super) fn seal(&mut self) {
        self.run_jobs();
        self.reopen();
        self.run_jobs();
        self.idle();
        self.run_jobs();
    }

    /// Damages a block of the first segment.
    fn damage(&self) {
        let path = Path::new(DIR).join(&self.segment_names()[0]);
        let mut bytes = self.disk.content(&path).unwrap();
        bytes[DAMAGED_BYTE] ^= 0x55;
        self.disk.put(&path, bytes);
    }

    /// As a reader does that met it.
    fn report_damage(&mut self) {
        let number = self.shard.segments.all()[0].number();
        self.shard.report_damage(number);
    }

    fn request(&mut self, key: &str, request: &str) -> Result<bool, WriteRefused> {
        let kind = WriteKind::Add {
            text: "value".into(),
            finish: true,
        };
        self.write("u", key, kind, Some(request))
    }
}

fn end_of(mut job: MergeJob) -> MergeEnd {
    loop {
        match job.run() {
            MergeOutcome::More(next) => job = next,
            MergeOutcome::Done(end) => return end,
        }
    }
}
