//! The jobs of a shard on their way through threads that may block.

use std::marker::PhantomData;
use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::env::Abandoned;

/// More jobs than can be under way at once; see `JobGate`. Of each kind that writes files there is one, with seals a kind of their own, and of
/// changes of the node's identity a few.
const JOBS_MAX: u32 = 4096;

/// Counts the jobs of a shard that are under way, but for look-ups, which write nothing. A shard is reopened only when there are none: a write that was handed out
/// before must not reach a log after it was read back.
#[derive(Clone)]
pub struct JobGate(pub(super) Arc<Semaphore>);

impl Default for JobGate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(JOBS_MAX as usize)))
    }
}

impl JobGate {
    /// Returns when no job is under way, and keeps others waiting while what it gives is held.
    pub async fn quiet(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed, so this cannot fail.
        self.0.acquire_many(JOBS_MAX).await.ok()
    }
}

/// Reports the result of a job, or that it was abandoned when it is dropped unsent (the job panicked).
pub(super) struct Report<T, F: FnOnce(Result<T, Abandoned>)> {
    then: Option<F>,
    result: PhantomData<fn(T)>,
}

impl<T, F: FnOnce(Result<T, Abandoned>)> Report<T, F> {
    pub(super) fn new(then: F) -> Self {
        Self {
            then: Some(then),
            result: PhantomData,
        }
    }

    pub(super) fn send(mut self, result: T) {
        if let Some(then) = self.then.take() {
            then(Ok(result));
        }
    }
}

impl<T, F: FnOnce(Result<T, Abandoned>)> Drop for Report<T, F> {
    fn drop(&mut self) {
        if let Some(then) = self.then.take() {
            then(Err(Abandoned));
        }
    }
}
