//! How long a shard's commits take.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Each commit counts for one part in so many.
const WEIGHT: u64 = 8;

/// A running mean, written by the shard's actor alone.
#[derive(Debug, Default)]
pub struct CommitTime {
    mean_us: AtomicU64,
    /// Something was noted since the last tick.
    noted: AtomicBool,
}

impl CommitTime {
    pub fn note(&self, took: Duration) {
        let mean = self.mean_us.load(Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 2);
        self.mean_us.store(mean - mean / WEIGHT + took / WEIGHT, Relaxed);
        self.noted.store(true, Relaxed);
    }

    /// To be called about once a second. Where nothing is committed nobody waits for it, however long the last one took: the mean
    /// goes down by half.
    pub fn tick(&self) {
        if !self.noted.swap(false, Relaxed) {
            self.mean_us.store(self.mean_us.load(Relaxed) / 2, Relaxed);
        }
    }

    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.mean_us.load(Relaxed))
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

    #[test]
    fn a_stall_is_forgotten_where_nothing_is_committed_any_more() {
        let time = CommitTime::default();
        time.note(Duration::from_secs(8));
        time.tick();
        assert_eq!(time.mean(), Duration::from_secs(1), "it was noted since the last tick");
        (0..20).for_each(|_| time.tick());
        assert!(time.mean() < Duration::from_millis(1), "{:?}", time.mean());
    }
}
