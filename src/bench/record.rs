//! What came of the operations, counted as they end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::mix::Operation;
use super::protocol::STATUS_DONE;

/// Times below this are told apart no further, nanoseconds.
const RESOLUTION_NS: u64 = 1_000;
/// Times beyond this count as this, nanoseconds. Requests are given up long before.
const TIME_NS_MAX: u64 = 3_600 * 1_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Times, each exact to three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(RESOLUTION_NS, TIME_NS_MAX, SIGNIFICANT_DIGITS);
        // The bounds above are valid ones.
        Self(histogram.unwrap_or_else(|_| unreachable!("bounds of the histogram")))
    }
}

impl Latencies {
    pub fn record(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(TIME_NS_MAX);
        self.0.saturating_record(ns);
    }

    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so every value of one fits into the other.
        let _ = self.0.add(&other.0);
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Microseconds that `percentile` of 100 did not exceed.
    pub fn percentile_us(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1000.0
    }

    pub fn mean_us(&self) -> f64 {
        self.0.mean() / 1000.0
    }

    pub fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }
}

/// Why an operation was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failed {
    Status(u16),
    /// The connection could not be made or broke.
    Connection,
    Garbled,
    /// No answer had come when the run was over.
    NoAnswer,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Connection => f.write_str("connection"),
            Self::Garbled => f.write_str("garbled"),
            Self::NoAnswer => f.write_str("no_answer"),
        }
    }
}

/// All that happened since it was last looked at, warm-up included.
#[derive(Debug, Default)]
pub struct Interval {
    pub latencies: Latencies,
    pub errors: u64,
}

/// Shared by one thread of the generator, which writes, and whoever watches. Practically never contended.
pub type Live = Arc<Mutex<Interval>>;

/// One thread's counts.
#[derive(Debug, Default)]
pub struct Record {
    /// By operation: times of those that were done.
    pub done: [Latencies; Operation::ALL.len()],
    pub failed: BTreeMap<(Operation, Failed), u64>,
    /// Times of those that were done, from when they were sent: what they waited inside the generator is left out.
    pub served: Latencies,
    /// The same of those that got another answer.
    pub refused: Latencies,
    /// Measured operations that were begun.
    pub begun: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    live: Live,
}

impl Record {
    pub fn watched_by(live: Live) -> Self {
        Self {
            live,
            ..Self::default()
        }
    }

    /// An operation ended `time` after it was due.
    pub fn ended(&mut self, operation: Operation, outcome: Result<u16, Failed>, time: Duration, measured: bool) {
        let outcome = match outcome {
            Ok(STATUS_DONE) => Ok(()),
            Ok(status) => Err(Failed::Status(status)),
            Err(failed) => Err(failed),
        };
        {
            let mut live = self.live.lock();
            match outcome {
                Ok(()) => live.latencies.record(time),
                Err(_) => live.errors += 1,
            }
        }
        if !measured {
            return;
        }
        match outcome {
            Ok(()) => self.done[operation as usize].record(time),
            Err(failed) => *self.failed.entry((operation, failed)).or_default() += 1,
        }
    }

    /// An answer came `time` after its request was sent.
    pub fn answered(&mut self, status: u16, time: Duration) {
        match status {
            STATUS_DONE => self.served.record(time),
            _ => self.refused.record(time),
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (sum, done) in self.done.iter_mut().zip(&other.done) {
            sum.add(done);
        }
        for (kind, count) in &other.failed {
            *self.failed.entry(*kind).or_default() += count;
        }
        self.served.add(&other.served);
        self.refused.add(&other.refused);
        self.begun += other.begun;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::default();
        for time_us in 1..=10_000 {
            latencies.record(us(time_us * 10));
        }
        for (percentile, expected_us) in [(50.0, 50_000.0), (90.0, 90_000.0), (99.0, 99_000.0), (99.9, 99_900.0)] {
            let got = latencies.percentile_us(percentile);
            assert!((got / expected_us - 1.0_f64).abs() < 0.002, "p{percentile}: {got}");
        }
        assert!((latencies.max_us() / 100_000.0 - 1.0).abs() < 0.002);
        assert!((latencies.mean_us() / 50_005.0 - 1.0).abs() < 0.002);
    }

    #[test]
    fn a_time_beyond_the_bounds_is_counted_at_the_bound() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::MAX);
        latencies.record(Duration::ZERO);
        assert_eq!(latencies.count(), 2);
        assert!(latencies.max_us() >= 3.6e9);
    }

    #[test]
    fn the_warm_up_shows_live_but_is_not_counted() {
        let live = Live::default();
        let mut record = Record::watched_by(live.clone());
        record.ended(Operation::Add, Ok(200), us(5), false);
        record.ended(Operation::Add, Ok(503), us(5), false);
        record.ended(Operation::Get, Ok(200), us(5), true);
        record.ended(Operation::Get, Ok(503), us(5), true);
        record.ended(Operation::Get, Err(Failed::Connection), us(5), true);
        assert_eq!(record.done.each_ref().map(Latencies::count), [0, 1, 0]);
        let failed: Vec<_> = record.failed.iter().map(|(kind, count)| (*kind, *count)).collect();
        assert_eq!(
            failed,
            [
                ((Operation::Get, Failed::Status(503)), 1),
                ((Operation::Get, Failed::Connection), 1)
            ]
        );
        let live = live.lock();
        assert_eq!((live.latencies.count(), live.errors), (2, 3));
    }

    #[test]
    fn records_of_threads_add_up() {
        let mut one = Record::default();
        one.ended(Operation::Add, Ok(200), us(10), true);
        let mut other = Record::default();
        other.ended(Operation::Add, Ok(200), us(30), true);
        other.ended(Operation::Add, Err(Failed::NoAnswer), us(30), true);
        one.add(&other);
        assert_eq!(one.done[0].count(), 2);
        assert_eq!(one.failed[&(Operation::Add, Failed::NoAnswer)], 1);
    }
}
