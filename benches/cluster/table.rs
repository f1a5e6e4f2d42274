//! The result: medians, and how many times as fast the nodes are as the bar asks.

use std::fmt::{self, Write};

use kv_storage::bench::{thousands, time};

use super::Row;

/// One cluster's turn at one row.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub max_us: f64,
    /// CPU of all nodes, per operation.
    pub user_us: f64,
    pub system_us: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} per s, p50 {}, p99 {}, max {}",
            thousands(self.per_s),
            time(self.p50_us),
            time(self.p99_us),
            time(self.max_us)
        )
    }
}

fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => 0.0,
        count if count % 2 == 1 => figures[middle],
        _ => (figures[middle - 1] + figures[middle]) / 2.0,
    }
}

/// `samples` with the names of row and cluster; the first cluster is the one that the others are compared with.
pub fn markdown(rows: &[Row], samples: &[(&'static str, &'static str, Sample)]) -> String {
    let mut sides: Vec<&str> = Vec::new();
    for (_, side, _) in samples {
        if !sides.contains(side) {
            sides.push(side);
        }
    }
    let first = sides.first().copied().unwrap_or_default();
    let mut table = format!(
        "| what | cluster | per s | {first} is | bar | p50 | p99 | p99.9 | max | CPU µs per op, 3 nodes | user | kernel |\n"
    );
    table.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    let of = |row: &Row, side: &str| -> Vec<Sample> {
        let found = samples
            .iter()
            .filter(|(name, of_side, _)| (*name, *of_side) == (row.name, side));
        found.map(|(_, _, sample)| *sample).collect()
    };
    for row in rows {
        let ours = median(&of(row, first), |sample| sample.per_s);
        for side in &sides {
            let samples = of(row, side);
            let per_s = median(&samples, |sample| sample.per_s);
            let (ratio, bar) = match *side == first {
                true => (String::new(), String::new()),
                false => {
                    let met = if ours >= row.bar * per_s { "met" } else { "MISSED" };
                    (format!("{:.2}x", ours / per_s), format!("{}x {met}", row.bar))
                }
            };
            let max_us = samples.iter().map(|sample| sample.max_us).fold(0.0, f64::max);
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "| {} | {side} | {} | {ratio} | {bar} | {} | {} | {} | {} | {:.1} | {:.1} | {:.1} |",
                row.name,
                thousands(per_s),
                time(median(&samples, |sample| sample.p50_us)),
                time(median(&samples, |sample| sample.p99_us)),
                time(median(&samples, |sample| sample.p99_9_us)),
                time(max_us),
                median(&samples, |sample| sample.user_us + sample.system_us),
                median(&samples, |sample| sample.user_us),
                median(&samples, |sample| sample.system_us),
            );
        }
    }
    table
}
