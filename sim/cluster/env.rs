//! The rest of a node's `Env`: a wall clock that may be wrong, entropy from the seed, and blocking work that takes simulated time.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kv_storage::env::{Blocking, BoxFuture, Entropy, WallClock};
use kv_storage::types::WallMs;

use super::os;
use crate::rng::Rng;

/// One machine's wall clock: wrong by an offset that may jump, and by a drift.
#[derive(Debug, Default)]
pub struct Wall {
    offset_ms: AtomicI64,
    drift_ppm: AtomicI64,
}

impl Wall {
    pub fn new(offset_ms: i64, drift_ppm: i64) -> Self {
        Self {
            offset_ms: offset_ms.into(),
            drift_ppm: drift_ppm.into(),
        }
    }

    pub fn jump(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Relaxed);
    }
}

impl WallClock for Wall {
    fn now(&self) -> WallMs {
        let now_us = os::now_us() as i64;
        let drifted_us = now_us + now_us / 1_000_000 * self.drift_ppm.load(Relaxed);
        let now_ms = (os::WALL_BASE_US as i64 + drifted_us) / 1000 + self.offset_ms.load(Relaxed);
        WallMs(now_ms.unsigned_abs())
    }
}

/// A new one for each start of a node.
pub struct SeededEntropy(Mutex<Rng>);

impl SeededEntropy {
    pub fn new(rng: Rng) -> Self {
        Self(Mutex::new(rng))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&rng.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// How slow a machine's disk and processor are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Of a hundred jobs, so many take time.
    pub slow_percent: u64,
    pub slow_ms_max: u64,
}

/// The pace of a machine, which its processes follow as it changes. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct SharedPace(Arc<Mutex<Pace>>);

impl SharedPace {
    pub fn set(&self, pace: Pace) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    fn get(&self) -> Pace {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocking work on no thread but the host's own. Before and after a slow job others run, and a crash may come.
pub struct PacedBlocking {
    rng: Arc<Mutex<Rng>>,
    pace: SharedPace,
}

impl PacedBlocking {
    pub fn new(rng: Rng, pace: SharedPace) -> Self {
        Self {
            rng: Arc::new(Mutex::new(rng)),
            pace,
        }
    }

    fn draw(&self) -> Duration {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = self.pace.get();
        match rng.percent(pace.slow_percent) {
            true => Duration::from_millis(rng.between(1, pace.slow_ms_max.max(1))),
            false => Duration::ZERO,
        }
    }
}

async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

impl Blocking for PacedBlocking {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        let before = self.draw();
        // Outside of the runtime, and while it goes down, there is nothing to wait with.
        match tokio::runtime::Handle::try_current() {
            Ok(_) if !before.is_zero() => {
                tokio::spawn(async move {
                    pause(before).await;
                    job();
                });
            }
            _ => job(),
        }
    }

    fn run_here<'a>(&'a self, job: Box<dyn FnOnce() + Send + 'a>) -> BoxFuture<'a, ()> {
        let (before, after) = (self.draw(), self.draw());
        Box::pin(async move {
            pause(before).await;
            job();
            pause(after).await;
        })
    }
}
