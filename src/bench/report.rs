//! What a run found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::mix::Operation;
use super::record::{Interval, Latencies, Record};
use super::run::Load;
use super::schedule::Schedule;

/// All that is known of a run. Times are microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Length of the measured part.
    pub seconds: f64,
    pub connections: usize,
    /// None: as many as the connections can.
    pub rate_asked_per_s: Option<f64>,
    /// Operations done, of all kinds.
    pub done: u64,
    pub done_per_s: f64,
    pub operations: BTreeMap<&'static str, OperationReport>,
    /// Not done; by status or reason.
    pub errors: BTreeMap<String, u64>,
    /// From sending to the answer, of operations that were done: without what they waited inside the generator.
    pub served: Times,
    /// The same of operations that got another answer.
    pub refused: Times,
    /// Due by the rate, but every connection was still waiting for an answer at the end.
    pub never_sent: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Every second of the run, the warm-up included; the last one may be shorter.
    pub timeline: Vec<Second>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    pub count: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl Times {
    fn new(latencies: &Latencies) -> Self {
        Self {
            count: latencies.count(),
            p50_us: latencies.percentile_us(50.0),
            p99_us: latencies.percentile_us(99.0),
            max_us: latencies.max_us(),
        }
    }
}

/// Of the operations of one kind that were done.
#[derive(Debug, Clone, Serialize)]
pub struct OperationReport {
    pub done: u64,
    pub done_per_s: f64,
    pub errors: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub max_us: f64,
}

/// One second of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Second {
    /// Seconds from the start to its end.
    pub at_s: f64,
    pub done: u64,
    pub errors: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl Second {
    pub fn new(at: Duration, interval: &Interval) -> Self {
        let latencies = &interval.latencies;
        Self {
            at_s: at.as_secs_f64(),
            done: latencies.count(),
            errors: interval.errors,
            p50_us: latencies.percentile_us(50.0),
            p99_us: latencies.percentile_us(99.0),
            max_us: latencies.max_us(),
        }
    }
}

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} s: {} done, p50 {}, p99 {}, max {}",
            self.at_s,
            thousands(self.done as f64),
            time(self.p50_us),
            time(self.p99_us),
            time(self.max_us)
        )?;
        if self.errors > 0 {
            write!(f, ", {} errors", thousands(self.errors as f64))?;
        }
        Ok(())
    }
}

impl Report {
    pub(super) fn new(load: &Load, schedule: &Schedule, record: &Record, timeline: Vec<Second>) -> Self {
        let seconds = schedule.measured().as_secs_f64();
        let mut operations = BTreeMap::new();
        for operation in Operation::ALL
            .into_iter()
            .filter(|operation| load.mix.holds(*operation))
        {
            operations.insert(operation.name(), OperationReport::new(operation, record, seconds));
        }
        let mut errors: BTreeMap<String, u64> = BTreeMap::new();
        for ((_, failed), count) in &record.failed {
            *errors.entry(failed.to_string()).or_default() += count;
        }
        let done = record.done.iter().map(Latencies::count).sum();
        Self {
            seconds,
            connections: load.connections,
            rate_asked_per_s: load.rate_per_s,
            done,
            done_per_s: done as f64 / seconds,
            operations,
            errors,
            served: Times::new(&record.served),
            refused: Times::new(&record.refused),
            never_sent: schedule
                .measured_due()
                .map_or(0, |due| due.saturating_sub(record.begun)),
            bytes_sent: record.bytes_sent,
            bytes_received: record.bytes_received,
            timeline,
        }
    }
}

impl OperationReport {
    fn new(operation: Operation, record: &Record, seconds: f64) -> Self {
        let done = &record.done[operation as usize];
        let errors = record.failed.iter().filter(|((failed, _), _)| *failed == operation);
        Self {
            done: done.count(),
            done_per_s: done.count() as f64 / seconds,
            errors: errors.map(|(_, count)| count).sum(),
            mean_us: done.mean_us(),
            p50_us: done.percentile_us(50.0),
            p90_us: done.percentile_us(90.0),
            p99_us: done.percentile_us(99.0),
            p99_9_us: done.percentile_us(99.9),
            max_us: done.max_us(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:>11} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "operation", "done", "per s", "errors", "mean", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, operation) in &self.operations {
            write!(
                f,
                "{name:<10} {:>11} {:>10} {:>8}",
                thousands(operation.done as f64),
                thousands(operation.done_per_s),
                thousands(operation.errors as f64)
            )?;
            for time_us in [
                operation.mean_us,
                operation.p50_us,
                operation.p90_us,
                operation.p99_us,
                operation.p99_9_us,
                operation.max_us,
            ] {
                write!(f, " {:>9}", time(time_us))?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "{} operations a second for {} s over {} {}; {} sent, {} received",
            thousands(self.done_per_s),
            (self.seconds * 1000.0).round() / 1000.0,
            self.connections,
            if self.connections == 1 {
                "connection"
            } else {
                "connections"
            },
            bytes(self.bytes_sent),
            bytes(self.bytes_received),
        )?;
        for (reason, count) in &self.errors {
            writeln!(f, "not done, {reason}: {}", thousands(*count as f64))?;
        }
        if self.never_sent > 0 {
            writeln!(
                f,
                "never sent: {} operations were due, but every connection was still waiting for an answer; the times \
                 above would be longer with them",
                thousands(self.never_sent as f64)
            )?;
        }
        Ok(())
    }
}

/// Without decimals, with commas.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Three digits and a unit.
pub fn time(us: f64) -> String {
    let (number, unit) = match us {
        us if us < 1_000.0 => (us, "µs"),
        us if us < 1_000_000.0 => (us / 1_000.0, "ms"),
        us => (us / 1_000_000.0, "s"),
    };
    let decimals = match number {
        number if number < 10.0 => 2,
        number if number < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1234567.0, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (us, text) in [
            (0.512, "0.51 µs"),
            (87.04, "87.0 µs"),
            (999.0, "999 µs"),
            (1_500.0, "1.50 ms"),
            (2_500_000.0, "2.50 s"),
        ] {
            assert_eq!(time(us), text);
        }
    }
}
