//! How long a shard's commits take.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Each commit counts for one part in so many.
const WEIGHT: u64 = 8;

/// A running mean, written by the shard's actor alone.
#[derive(Debug, Default)]
pub struct CommitTime(AtomicU64);

impl CommitTime {
    pub fn note(&self, took: Duration) {
        let mean = self.0.load(Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 2);
        self.0.store(mean - mean / WEIGHT + took / WEIGHT, Relaxed);
    }

    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.0.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_what_is_noted() {
        let time = CommitTime::default();
        let near = |ms: u64| {
            let mean = time.mean().as_micros() as u64;
            mean.abs_diff(ms * 1000) < ms * 50
        };
        (0..50).for_each(|_| time.note(Duration::from_millis(10)));
        assert!(near(10), "{:?}", time.mean());
        (0..50).for_each(|_| time.note(Duration::from_millis(1)));
        assert!(near(1), "{:?}", time.mean());
        time.note(Duration::MAX);
        assert!(time.mean() > Duration::from_secs(1_000_000));
    }
}
