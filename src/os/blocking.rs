//! Threads for blocking work: those of the tokio runtime.
//!
//! Invariant: a job that panics ends alone. Its thread goes on, and whoever waits for it learns that it was abandoned.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the seam that blocking work goes through"
)]

use tokio::runtime::Handle;

use crate::env::Blocking;

/// Runs jobs on the runtime's own blocking threads, so that they also work from threads outside the runtime.
#[derive(Debug, Clone)]
pub struct RuntimeThreads {
    runtime: Handle,
}

impl RuntimeThreads {
    /// Must be called inside a runtime.
    pub fn of_current_runtime() -> Self {
        Self {
            runtime: Handle::current(),
        }
    }
}

impl Blocking for RuntimeThreads {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        // The handle is dropped: the job itself carries its answer. The runtime catches a panic, and drops the jobs that
        // it never started when it shuts down; both drop the sender of the answer.
        drop(self.runtime.spawn_blocking(job));
    }
}

#[cfg(test)]
mod tests {
    use super::super::env;

    #[tokio::test]
    async fn a_job_gives_its_result() {
        assert_eq!(env().run_blocking(|| 6 * 7).await.ok(), Some(42));
    }

    #[tokio::test]
    async fn a_job_that_panics_is_abandoned_and_later_jobs_run() {
        let env = env();
        assert!(env.run_blocking(|| panic!("a job's own bug")).await.is_err());
        assert_eq!(env.run_blocking(|| 1).await.ok(), Some(1));
    }

    #[test]
    fn a_job_after_the_runtime_is_gone_is_abandoned() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime can be built");
        let env = runtime.block_on(async { env() });
        runtime.shutdown_background();
        let result = futures_util::FutureExt::now_or_never(env.run_blocking(|| 1));
        assert!(matches!(result, Some(Err(_))));
    }
}
