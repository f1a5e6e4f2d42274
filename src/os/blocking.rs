//! Threads for blocking work: those of the tokio runtime.
//!
//! Invariants:
//! - a job that panics ends alone. Its thread goes on, and whoever waits for it learns that it was abandoned;
//! - short jobs on a worker's own thread do not keep the runtime from its sockets and timers, however long they turn out to take: at
//!   least one worker is free of them, and within some milliseconds it is awake.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the seam that blocking work goes through"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::env::{Blocking, BoxFuture};

/// How often the lookout looks while there are jobs.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// After so many looks without a job it sleeps until there is one again.
const IDLE_LOOKS: u32 = 50;

/// Runs jobs on the runtime's own blocking threads, so that they also work from threads outside the runtime.
#[derive(Debug, Clone)]
pub struct RuntimeThreads {
    runtime: Handle,
    /// Absent in a runtime of one thread, which runs short jobs as it comes to them.
    lookout: Option<Arc<Lookout>>,
}

impl RuntimeThreads {
    /// Must be called inside a runtime.
    pub fn of_current_runtime() -> Self {
        let runtime = Handle::current();
        let lookout = match runtime.runtime_flavor() {
            RuntimeFlavor::CurrentThread => None,
            _ => Some(Lookout::start(&runtime)),
        };
        Self { runtime, lookout }
    }
}

impl Blocking for RuntimeThreads {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        // The handle is dropped: the job itself carries its answer. The runtime catches a panic, and drops the jobs that
        // it never started when it shuts down; both drop the sender of the answer.
        drop(self.runtime.spawn_blocking(job));
    }

    fn run_here<'a>(&'a self, job: Box<dyn FnOnce() + Send + 'a>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match &self.lookout {
                None => job(),
                Some(lookout) => match lookout.watch() {
                    Some(_watched) => {
                        // The task woken last waits in a place of this worker's own, from which no other worker takes it. Now this one
                        // does, and nobody waits for it.
                        drop(tokio::spawn(async {}));
                        job();
                    }
                    None => tokio::task::block_in_place(job),
                },
            }
        })
    }
}

/// Watches the short jobs that run on workers' own threads.
///
/// A worker that blocks without saying so may be the one that was to wait for the sockets, while all others sleep. To tell the
/// runtime each time (`block_in_place`) costs two changes of threads, which for a sync of a fast disk is much. So the runtime
/// is only told when a job turned out not to be short: the way of Go's `sysmon`.
#[derive(Debug)]
struct Lookout {
    /// Jobs that may run at once without the runtime being told.
    unannounced_max: usize,
    running: AtomicUsize,
    /// Jobs begun so far: what runs without a new one having begun has run since the last look.
    begun: AtomicU64,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

/// One job that is being watched.
struct Watched<'a>(&'a Lookout);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Lookout {
    fn start(runtime: &Handle) -> Arc<Self> {
        let lookout = Arc::new(Self {
            unannounced_max: runtime.metrics().num_workers().saturating_sub(1),
            running: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let (weak, runtime) = (Arc::downgrade(&lookout), runtime.clone());
        let looking = std::thread::Builder::new().name("kv-lookout".to_owned());
        let started = looking.spawn(move || {
            let (mut last, mut idle) = (0, 0);
            while let Some(lookout) = weak.upgrade() {
                last = lookout.look(last, &mut idle, &runtime);
                let sleeps = idle > IDLE_LOOKS && lookout.fall_asleep(last);
                drop(lookout);
                if sleeps {
                    std::thread::park();
                    idle = 0;
                } else {
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        });
        // Without a lookout no job goes unannounced.
        if let Ok(thread) = started {
            let _ = lookout.thread.set(thread.thread().clone());
        }
        lookout
    }

    /// One look; gives what `begun` was.
    fn look(&self, last: u64, idle: &mut u32, runtime: &Handle) -> u64 {
        let begun = self.begun.load(SeqCst);
        if begun != last {
            *idle = 0;
        } else if self.running.load(SeqCst) > 0 {
            // A task from outside wakes a worker, and a worker without work waits for the sockets.
            runtime.spawn(async {});
        } else {
            *idle += 1;
        }
        begun
    }

    fn fall_asleep(&self, last: u64) -> bool {
        self.asleep.store(true, SeqCst);
        // A job that began before it could see this has to be seen here.
        let sleeps = self.begun.load(SeqCst) == last;
        if !sleeps {
            self.asleep.store(false, SeqCst);
        }
        sleeps
    }

    /// Begins a job that the runtime is not told of; None when there are too many of them already.
    fn watch(&self) -> Option<Watched<'_>> {
        let thread = self.thread.get()?;
        if self.running.fetch_add(1, SeqCst) >= self.unannounced_max {
            self.running.fetch_sub(1, SeqCst);
            return None;
        }
        self.begun.fetch_add(1, SeqCst);
        if self.asleep.swap(false, SeqCst) {
            thread.unpark();
        }
        Some(Watched(self))
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    /// Long enough for a timer of milliseconds to fire on any machine, if there is someone to see to it.
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_short_job_that_turns_out_long_does_not_keep_the_runtime_from_its_timers() {
        let env = env();
        let (release, held) = std::sync::mpsc::channel();
        let job = tokio::spawn(async move {
            // Whoever sees to the timers goes on with this, and blocks.
            tokio::time::sleep(Duration::from_millis(5)).await;
            env.run_here(move || held.recv_timeout(LONG)).await
        });
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            release.send(()).unwrap();
        });
        assert!(matches!(job.await, Ok(Ok(Ok(())))));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_short_job_does_not_keep_the_task_that_was_woken_right_before_it() {
        let env = env();
        let (release, held) = std::sync::mpsc::channel();
        let woken = std::sync::Arc::new(tokio::sync::Notify::new());
        let other = tokio::spawn({
            let woken = woken.clone();
            async move {
                woken.notified().await;
                release.send(()).unwrap();
            }
        });
        let job = tokio::spawn(async move {
            // For the other one to wait.
            tokio::time::sleep(Duration::from_millis(5)).await;
            woken.notify_one();
            env.run_here(move || held.recv_timeout(LONG)).await
        });
        assert!(matches!(job.await, Ok(Ok(Ok(())))));
        other.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn as_many_long_jobs_as_there_are_workers_leave_the_runtime_a_thread() {
        let env = env();
        let (jobs, releases): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (release, held) = std::sync::mpsc::channel();
                let env = env.clone();
                let job = tokio::spawn(async move { env.run_here(move || held.recv_timeout(LONG)).await });
                (job, release)
            })
            .unzip();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            for release in releases {
                release.send(()).unwrap();
            }
        });
        for job in jobs {
            assert!(matches!(job.await, Ok(Ok(Ok(())))));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lookout_that_fell_asleep_wakes_for_the_next_job() {
        let runtime = tokio::runtime::Handle::current();
        let lookout = super::Lookout::start(&runtime);
        for _ in 0..3 {
            while !lookout.asleep.load(super::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop(lookout.watch());
            assert!(!lookout.asleep.load(super::SeqCst));
        }
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
