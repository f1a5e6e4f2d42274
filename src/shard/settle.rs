//! A shard's jobs, run on the spot.

use std::io;

use super::merges::Purpose;
use super::{MergeEnd, MergeJob, MergeOutcome, Shard};
use crate::store::compact::Source;
use crate::store::log;
use crate::store::recover::RecoverError;
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
            if let Some(job) = self.next_merge(now) {
                self.merged(end_of(job));
                worked = true;
            }
            if !worked {
                return;
            }
        }
    }

    /// Seals the logs that were read back, before anything is taken.
    ///
    /// What could not be read of one is lost by the word of memory alone. A clear that is taken now does not name it, and a later start, which may be able
    /// to read it, would bring it back. Once sealed, the log is replaced by what was read.
    pub(super) fn seal_found(&mut self) -> Result<(), RecoverError> {
        // No clock is at hand, and nothing here is later than this.
        let now = self.published.highest_time().max(self.naming.highest_time()).wall();
        while let Some(memtable) = self.logs.oldest_frozen().cloned() {
            let path = self.place.dir.join(log::file_name(memtable.read().number()));
            let job = self.begin_merge(Purpose::Seal, vec![Source::Memtable(memtable)], true, now);
            let end = end_of(job);
            let failed = end.result.as_ref().err().map(ToString::to_string);
            self.merged(end);
            if let Some(why) = failed {
                let source = io::Error::other(format!(
                    "parts of a log cannot be read, and what can be is not kept: {why}"
                ));
                return Err(RecoverError::Io { path, source });
            }
        }
        Ok(())
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
