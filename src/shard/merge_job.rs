//! A merge, or a seal, as a job: a step at a time, so that what the clients need comes between, and it can be given up.

use super::MergeError;
use crate::store::compact::{Merge, MergeContext, Merged, Progress, Source, StepFailed};

/// What a merge writes between two looks at the clients' needs, bytes.
const STEP_BYTES: u64 = 1 << 20;

enum State {
    New(Vec<Source>, Box<MergeContext>),
    Under(Box<Merge>),
}

/// A merge, or a seal, done step by step.
pub struct MergeJob {
    state: State,
    number: u64,
    /// Writes wait for it, so it is not to be paced.
    pub urgent: bool,
}

/// What a step of a merge led to.
pub enum MergeOutcome {
    /// To be run again.
    More(MergeJob),
    Done(MergeEnd),
}

/// How a merge ended.
pub struct MergeEnd {
    /// The number of the segment that it was to write, which tells which merge it was.
    pub number: u64,
    pub result: Result<Box<Merged>, MergeError>,
    /// The size of its file, if it failed.
    pub(super) written_bytes: u64,
}

impl MergeEnd {
    /// The end of a merge that was given up, or whose job died.
    pub fn abandoned(number: u64) -> Self {
        Self {
            number,
            result: Err(MergeError::Abandoned),
            written_bytes: 0,
        }
    }
}

impl MergeJob {
    pub(super) fn new(sources: Vec<Source>, context: MergeContext, urgent: bool) -> Self {
        Self {
            number: context.number,
            state: State::New(sources, Box::new(context)),
            urgent,
        }
    }

    /// The number of the segment that it writes.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Blocks on the disk for one step.
    pub fn run(self) -> MergeOutcome {
        let number = self.number;
        let merge = match self.state {
            State::New(sources, context) => Merge::start(sources, *context)
                .map(Box::new)
                .map_err(|error| StepFailed {
                    error,
                    written_bytes: 0,
                }),
            State::Under(merge) => Ok(merge),
        };
        let (result, written_bytes) = match merge.and_then(|merge| merge.step(STEP_BYTES)) {
            Ok(Progress::More(merge)) => {
                return MergeOutcome::More(Self {
                    state: State::Under(merge),
                    ..self
                });
            }
            Ok(Progress::Done(merged)) => (Ok(merged), 0),
            Err(failed) => (Err(failed.error), failed.written_bytes),
        };
        MergeOutcome::Done(MergeEnd {
            number,
            result,
            written_bytes,
        })
    }

    /// Gives it up.
    pub fn abandon(self) -> MergeEnd {
        if let State::Under(merge) = self.state {
            merge.abandon();
        }
        MergeEnd::abandoned(self.number)
    }
}
