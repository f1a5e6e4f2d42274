//! Which requests are worked on when there are more than the node can do.
//!
//! Of CoDel ("Controlling Queue Delay", Nichols and Jacobson, ACM Queue 2012; for requests: "Fail at Scale", Maurer, ACM Queue 2015): a
//! queue that drains soon is a burst, and good; one that stands only makes everybody wait. So any number of requests may be at work at once
//! as long as there was a moment of calm within the last [`CALM_INTERVAL`]; after that, no more than `standing_max`, until calm returns.
//! Whatever exceeds that is refused at once.
//!
//! By Little's law, at full throughput a request takes `requests at work / throughput`. More at work than it takes to keep disk and
//! processors busy adds to the time alone. So a node whose throughput is full with 64 at work, and which works on 320 at most, answers in
//! no more than five times the time. That holds where a commit takes a millisecond or less. Where the disk is slower, each
//! commit takes more along, and it takes as many times more at work to keep the processors busy: the bound grows with it (`adapt`).
//!
//! Reads and writes are bounded apart: a disk that stands still fills the places of writes, and what is in memory is read on. So are changes
//! of users and members, which wait for each other.
//!
//! Only work counts: from when body and credentials are known to be good to when the answer is made, or begins. Clients that are slow to
//! send or to read, and logins that have to wait, hold no place.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::time::{Duration, Instant};

/// How long a queue may stand and still pass for a burst: a time that a client hardly notices, and many times a sync.
pub const CALM_INTERVAL: Duration = Duration::from_millis(100);
/// There is calm when fewer are at work than `standing_max` divided by this: so few that a node that refuses requests does not get there
/// between two answers.
const CALM_PART: usize = 10;
/// A commit that takes no longer is not what a node waits for.
const SHORT_COMMIT: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub struct Admission {
    /// The bound where commits are short.
    least_standing_max: usize,
    most_standing_max: usize,
    standing_max: AtomicUsize,
    at_work: AtomicUsize,
    /// When there was calm last, microseconds from `start`.
    calm_us: AtomicU64,
    start: Instant,
}

/// A request's place at work; given back when dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Admission);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Relaxed);
    }
}

impl Admission {
    /// At most `least_standing_max` stand where commits are short, and never more than `most_standing_max`.
    pub fn new(least_standing_max: usize, most_standing_max: usize) -> Self {
        Self {
            least_standing_max,
            most_standing_max,
            standing_max: AtomicUsize::new(least_standing_max),
            at_work: AtomicUsize::new(0),
            calm_us: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// Fits the bound to the time that a commit takes now.
    pub fn adapt(&self, commit: Duration) {
        let times = (commit.as_micros() / SHORT_COMMIT.as_micros()).max(1);
        let fit = usize::try_from(times)
            .ok()
            .and_then(|times| self.least_standing_max.checked_mul(times));
        let most = self.most_standing_max.max(self.least_standing_max);
        self.standing_max.store(fit.unwrap_or(most).min(most), Relaxed);
    }

    /// A place at work, at once or not at all.
    pub fn enter(&self, now: Instant) -> Option<Turn<'_>> {
        let before = self.at_work.fetch_add(1, Relaxed);
        let turn = Turn(self);
        let standing_max = self.standing_max.load(Relaxed);
        if before < standing_max / CALM_PART {
            self.calm_us.store(self.us(now), Relaxed);
        }
        (before < standing_max || self.is_burst(now)).then_some(turn)
    }

    /// Whether `enter` would refuse now.
    pub fn is_full(&self, now: impl FnOnce() -> Instant) -> bool {
        self.at_work.load(Relaxed) >= self.standing_max.load(Relaxed) && !self.is_burst(now())
    }

    fn is_burst(&self, now: Instant) -> bool {
        self.us(now).saturating_sub(self.calm_us.load(Relaxed)) < CALM_INTERVAL.as_micros() as u64
    }

    fn us(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 40;

    fn many(admission: &Admission, count: usize, now: Instant) -> Vec<Turn<'_>> {
        (0..count).filter_map(|_| admission.enter(now)).collect()
    }

    #[test]
    fn the_slower_the_commits_the_more_may_stand_up_to_a_bound() {
        let admission = Admission::new(MAX, 8 * MAX);
        let later = admission.start + 10 * CALM_INTERVAL;
        for (commit_us, most) in [(0, MAX), (900, MAX), (3_500, 3 * MAX), (9_000_000, 8 * MAX), (50, MAX)] {
            admission.adapt(Duration::from_micros(commit_us));
            // One before the burst is over, so that there is no calm.
            let at_work = many(&admission, 9 * MAX, admission.start);
            drop(at_work);
            admission.calm_us.store(0, Relaxed);
            let standing: Vec<_> = (0..most + 5)
                .filter(|_| !admission.is_full(|| later))
                .filter_map(|_| admission.enter(admission.start))
                .collect();
            assert_eq!(standing.len(), most, "{commit_us} us");
        }
    }

    #[test]
    fn a_burst_is_taken_whole() {
        let admission = Admission::new(MAX, MAX);
        let later = Instant::now() + Duration::from_secs(9);
        assert_eq!(many(&admission, 100 * MAX, later).len(), 100 * MAX);
    }

    #[test]
    fn a_queue_that_stands_is_cut_to_what_may_stand() {
        let admission = Admission::new(MAX, MAX);
        let start = Instant::now();
        let mut at_work = many(&admission, 3 * MAX, start);
        let later = start + CALM_INTERVAL;
        assert!(admission.is_full(|| later) && admission.enter(later).is_none());
        at_work.truncate(MAX - 1);
        assert!(!admission.is_full(|| later));
        assert_eq!(many(&admission, 2 * MAX, later).len(), 1);
    }

    #[test]
    fn what_comes_and_goes_under_overload_is_no_calm() {
        let admission = Admission::new(MAX, MAX);
        let start = Instant::now();
        let mut at_work = many(&admission, MAX, start);
        let later = start + 10 * CALM_INTERVAL;
        // A commit answers many at once, and as many come in.
        at_work.truncate(MAX / 2);
        at_work.extend(many(&admission, 5 * MAX, later));
        assert_eq!(at_work.len(), MAX);
    }

    #[test]
    fn after_calm_bursts_are_taken_again() {
        let admission = Admission::new(MAX, MAX);
        let start = Instant::now();
        let at_work = many(&admission, MAX, start);
        let later = start + 10 * CALM_INTERVAL;
        assert!(admission.is_full(|| later));
        drop(at_work);
        assert_eq!(many(&admission, 2 * MAX, later).len(), 2 * MAX);
    }

    #[test]
    fn few_at_a_time_are_never_refused() {
        let admission = Admission::new(MAX, MAX);
        let start = Instant::now();
        for ms in 0..1_000 {
            let now = start + Duration::from_millis(ms);
            assert_eq!(many(&admission, MAX, now).len(), MAX);
        }
    }
}
