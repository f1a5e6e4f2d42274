//! The result: medians, and how many times as fast the node is.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use kv_storage::bench::{thousands, time};

/// One server's turn at one row.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// CPU of the server, per operation.
    pub user_us: f64,
    pub system_us: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per s, p99 {}", thousands(self.per_s), time(self.p99_us))
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

/// `samples` with the names of row and server; the first server is the one that the others are compared with.
pub fn markdown(rows: &[&'static str], samples: &[(&'static str, &'static str, Sample)]) -> String {
    let mut by_place: BTreeMap<(&str, &str), Vec<Sample>> = BTreeMap::new();
    let mut servers: Vec<&str> = Vec::new();
    for (row, server, sample) in samples {
        by_place.entry((row, server)).or_default().push(*sample);
        if !servers.contains(server) {
            servers.push(server);
        }
    }
    let first = servers.first().unwrap_or(&"");
    let mut table = format!("| what | server | per s | {first} is | p50 | p99 | CPU µs per op | user | kernel |\n");
    table.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    let of = |row, server| by_place.get(&(row, server)).map_or(&[][..], Vec::as_slice);
    for row in rows {
        let ours = servers
            .first()
            .map_or(0.0, |server| median(of(row, server), |sample| sample.per_s));
        for server in &servers {
            let samples = of(row, server);
            if samples.is_empty() {
                continue;
            }
            let per_s = median(samples, |sample| sample.per_s);
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "| {row} | {server} | {} | {:.2}x | {} | {} | {:.1} | {:.1} | {:.1} |",
                thousands(per_s),
                ours / per_s,
                time(median(samples, |sample| sample.p50_us)),
                time(median(samples, |sample| sample.p99_us)),
                median(samples, |sample| sample.user_us + sample.system_us),
                median(samples, |sample| sample.user_us),
                median(samples, |sample| sample.system_us),
            );
        }
    }
    table
}
