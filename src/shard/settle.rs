//! A shard's jobs, run on the spot.

use super::{MergeOutcome, Shard};
use crate::types::WallMs;

impl Shard {
    /// Runs every job that is due, here and now. Blocks on the disk. For tools and tests; a node runs jobs elsewhere.
    pub fn settle(&mut self, now: WallMs) {
        loop {
            let mut worked = false;
            if let Some(job) = self.next_commit() {
                self.committed(job.run());
                worked = true;
            }
            if let Some(job) = self.next_space_job() {
                self.space_made(job.run());
                worked = true;
            }
            if let Some(job) = self.next_cleanup() {
                self.cleaned_up(job.run());
                worked = true;
            }
            if let Some(mut job) = self.next_merge(now) {
                let end = loop {
                    match job.run() {
                        MergeOutcome::More(next) => job = next,
                        MergeOutcome::Done(end) => break end,
                    }
                };
                self.merged(end);
                worked = true;
            }
            if !worked {
                return;
            }
        }
    }
}
