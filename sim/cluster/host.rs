//! One machine's tokio runtime, run in turns: until it has nothing left to do at this moment of simulated time.
//!
//! Invariants:
//! - a runtime runs only in its own turn, so nothing of two hosts ever interleaves within a turn;
//! - dropping it is a crash: every task, actor and timer ends at whatever await it stands.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Runtime};

use super::os;

const MS_US: u64 = 1000;

pub struct Host {
    runtime: Runtime,
    /// When its next timer is due.
    pub timer_us: Option<u64>,
}

/// Ends when the runtime would sleep; gives for how long, milliseconds.
struct Turn;

impl Future for Turn {
    type Output = i32;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<i32> {
        match os::slept_ms() {
            Some(ms) => Poll::Ready(ms),
            None => {
                os::begin_turn(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Host {
    /// Must be called at a whole millisecond: tokio's timers are exact to one, counted from now.
    pub fn new() -> Self {
        assert!(os::now_us().is_multiple_of(MS_US), "hosts start at whole milliseconds");
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs nothing but a few file descriptors");
        Self {
            runtime,
            timer_us: None,
        }
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Runs all that is ready now, timers that are due included.
    pub fn run(&mut self) {
        os::slept_ms();
        let sleep_ms = self.runtime.block_on(Turn);
        // Timers fire at whole milliseconds, and the sleep was rounded up to one.
        self.timer_us = u64::try_from(sleep_ms)
            .ok()
            .map(|ms| (os::now_us() + ms * MS_US) / MS_US * MS_US);
    }
}
