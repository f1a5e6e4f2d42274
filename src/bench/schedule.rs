//! When operations are to begin.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by all connections of a run.
///
/// Without a rate (closed loop) each connection begins its next operation when it has the answer to the last one. With a rate
/// (open loop) operations are due at fixed moments, and the next connection that is free takes the next of them, late if it must.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    /// From here on operations are measured.
    measured_from: Instant,
    end: Instant,
    /// When it was broken off, before its end.
    stopped: OnceLock<Instant>,
    rate_per_s: Option<f64>,
    /// Operations that connections have taken.
    taken: AtomicU64,
}

impl Schedule {
    pub fn new(start: Instant, warmup: Duration, duration: Duration, rate_per_s: Option<f64>) -> Self {
        let measured_from = start + warmup;
        Self {
            start,
            measured_from,
            end: measured_from + duration,
            stopped: OnceLock::new(),
            rate_per_s,
            taken: AtomicU64::new(0),
        }
    }

    pub fn start(&self) -> Instant {
        self.start
    }

    pub fn end(&self) -> Instant {
        let stopped = self.stopped.get().copied();
        stopped.map_or(self.end, |moment| moment.min(self.end))
    }

    /// Nothing is due from now on.
    pub fn stop(&self, now: Instant) {
        // The first time counts.
        let _ = self.stopped.set(now);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// How long is measured in all.
    pub fn measured(&self) -> Duration {
        self.end().saturating_duration_since(self.measured_from)
    }

    /// The moment at which the next operation is due, past or future; None at the end of the run.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let end = self.end();
        if now >= end {
            return None;
        }
        let Some(rate_per_s) = self.rate_per_s else {
            return Some(now.max(self.start));
        };
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let due = self.start + Duration::from_secs_f64(number as f64 / rate_per_s);
        (due < end).then_some(due)
    }

    /// Whether an operation that is due at `due` counts.
    pub fn is_measured(&self, due: Instant) -> bool {
        due >= self.measured_from
    }

    /// How many measured operations are due in all; None when each is due as soon as it can be.
    pub fn measured_due(&self) -> Option<u64> {
        let rate_per_s = self.rate_per_s?;
        let due_before = |moment: Instant| ((moment - self.start).as_secs_f64() * rate_per_s).ceil() as u64;
        Some(due_before(self.end().max(self.measured_from)) - due_before(self.measured_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(rate_per_s: Option<f64>) -> (Instant, Schedule) {
        let start = Instant::now();
        (start, Schedule::new(start, SECOND, 2 * SECOND, rate_per_s))
    }

    #[test]
    fn with_a_rate_operations_are_due_at_even_distances_however_late_they_are_taken() {
        let (start, schedule) = schedule(Some(4.0));
        let late = start + Duration::from_millis(2_900);
        let due: Vec<u128> = (0..4)
            .filter_map(|_| Some((schedule.next(late)? - start).as_millis()))
            .collect();
        assert_eq!(due, [0, 250, 500, 750]);
    }

    #[test]
    fn nothing_is_due_after_the_end() {
        let (start, schedule) = schedule(Some(4.0));
        let count = std::iter::from_fn(|| schedule.next(start)).count();
        assert_eq!(count, 12);
        assert_eq!(schedule.measured_due(), Some(8));
        let (start, schedule) = super::tests::schedule(None);
        assert!(schedule.next(start + 3 * SECOND).is_none());
        assert_eq!(schedule.measured_due(), None);
    }

    #[test]
    fn one_that_is_stopped_measures_what_was_due_by_then() {
        let (start, schedule) = schedule(Some(4.0));
        assert_eq!(schedule.measured(), 2 * SECOND);
        schedule.stop(start + 2 * SECOND);
        schedule.stop(start + 3 * SECOND);
        assert_eq!((schedule.measured(), schedule.measured_due()), (SECOND, Some(4)));
        assert!(schedule.next(start + 2 * SECOND).is_none());
        let (start, schedule) = super::tests::schedule(Some(4.0));
        schedule.stop(start);
        assert_eq!(
            (schedule.measured(), schedule.measured_due()),
            (Duration::ZERO, Some(0))
        );
    }

    #[test]
    fn at_the_end_operations_that_are_still_due_are_given_up() {
        let (start, schedule) = schedule(Some(1000.0));
        assert!(schedule.next(start + 3 * SECOND).is_none());
    }

    #[test]
    fn without_a_rate_an_operation_is_due_when_it_is_asked_for_but_not_before_the_start() {
        let (start, schedule) = schedule(None);
        assert_eq!(schedule.next(start + SECOND), Some(start + SECOND));
        let (start, schedule) = super::tests::schedule(None);
        let before = start.checked_sub(SECOND).unwrap();
        assert_eq!(schedule.next(before), Some(start));
    }

    #[test]
    fn operations_of_the_warm_up_do_not_count() {
        let (start, schedule) = schedule(None);
        assert!(!schedule.is_measured(start));
        assert!(!schedule.is_measured(start + SECOND - Duration::from_nanos(1)));
        assert!(schedule.is_measured(start + SECOND));
    }
}
