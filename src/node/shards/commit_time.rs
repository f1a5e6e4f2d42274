//! How long a shard's commits take, and the one that is under way.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Each commit counts for one part in so many.
const WEIGHT: u64 = 8;

/// A running mean, and when the present commit began; written by the shard's actor alone.
#[derive(Debug, Default)]
pub struct CommitTime {
    mean_us: AtomicU64,
    /// Something was noted since the last tick.
    noted: AtomicBool,
    /// When the first commit began.
    first: OnceLock<Instant>,
    /// When the present one began, in microseconds after that, and one more; 0 where none is under way.
    present_us: AtomicU64,
    /// Likewise, since when writes have waited for log space, which is up to the disk as well.
    parked_us: AtomicU64,
}

/// A commit that is under way until this is dropped, and noted then.
pub struct UnderWay<'a> {
    time: &'a CommitTime,
    began: Instant,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.time.present_us.store(0, Relaxed);
        self.time.note(self.began.elapsed());
    }
}

impl CommitTime {
    pub fn begin(&self) -> UnderWay<'_> {
        let began = Instant::now();
        self.present_us.store(self.at(began), Relaxed);
        UnderWay { time: self, began }
    }

    /// Whether writes wait for log space now.
    pub fn note_parked(&self, are_parked: bool) {
        match (are_parked, self.parked_us.load(Relaxed)) {
            (true, 0) => self.parked_us.store(self.at(Instant::now()), Relaxed),
            (false, 1..) => self.parked_us.store(0, Relaxed),
            _ => {}
        }
    }

    fn at(&self, now: Instant) -> u64 {
        let first = self.first.get_or_init(|| now);
        let since_us = now.saturating_duration_since(*first).as_micros();
        u64::try_from(since_us).unwrap_or(u64::MAX - 1) + 1
    }

    /// For how long the present commit has been under way, or writes have waited for the next; zero if neither is so.
    pub fn waiting(&self) -> Duration {
        let [present_us, parked_us] = [&self.present_us, &self.parked_us].map(|us| us.load(Relaxed));
        let since_us = match (present_us, parked_us) {
            (0, since_us) | (since_us, 0) => since_us,
            (one, other) => one.min(other),
        };
        match (since_us, self.first.get()) {
            (0, _) | (_, None) => Duration::ZERO,
            (since_us, Some(first)) => first.elapsed().saturating_sub(Duration::from_micros(since_us - 1)),
        }
    }

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

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_is_under_way_shows_for_how_long() {
        let time = CommitTime::default();
        assert_eq!(time.waiting(), Duration::ZERO);
        for _ in 0..2 {
            let present = time.begin();
            tokio::time::advance(Duration::from_secs(3)).await;
            assert_eq!(time.waiting(), Duration::from_secs(3));
            drop(present);
            assert_eq!(time.waiting(), Duration::ZERO);
        }
        for _ in 0..2 {
            time.note_parked(true);
            tokio::time::advance(Duration::from_secs(1)).await;
            time.note_parked(true);
            drop(time.begin());
            assert_eq!(time.waiting(), Duration::from_secs(1));
            time.note_parked(false);
            assert_eq!(time.waiting(), Duration::ZERO);
        }
        assert!(time.mean() > Duration::from_millis(400), "{:?}", time.mean());
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
