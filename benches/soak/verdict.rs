//! Whether a run was stable.

use super::Sample;
use super::node::MIB;

/// How a figure may differ between the second and the last quarter.
enum Bound {
    /// Times as much, and so much on top for figures that are small.
    AtMost(f64, f64),
    AtLeast(f64),
}

struct Figure {
    name: &'static str,
    of: fn(&Sample) -> f64,
    bound: Bound,
}

const FIGURES: [Figure; 5] = [
    Figure {
        name: "operations a second",
        of: |sample| sample.second.done as f64,
        bound: Bound::AtLeast(0.95),
    },
    Figure {
        name: "p99, ms",
        of: |sample| sample.second.p99_us / 1e3,
        bound: Bound::AtMost(1.5, 2.0),
    },
    Figure {
        name: "memory, MiB",
        of: |sample| sample.resident as f64 / MIB as f64,
        bound: Bound::AtMost(1.1, 4.0),
    },
    Figure {
        name: "files",
        of: |sample| sample.files as f64,
        bound: Bound::AtMost(1.2, 8.0),
    },
    Figure {
        name: "on disk, MiB",
        of: |sample| sample.disk_bytes as f64 / MIB as f64,
        bound: Bound::AtMost(1.2, 32.0),
    },
];

/// Prints a table; gives the number of figures that were not stable.
pub fn judge(samples: &[Sample]) -> usize {
    let quarter = samples.len() / 4;
    let (second, last) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    println!("| median of a second | second quarter | last quarter | |\n| --- | ---: | ---: | --- |");
    let mut missed = 0;
    for Figure { name, of, bound } in FIGURES {
        let (before, after) = (median(second, of), median(last, of));
        let is_stable = match bound {
            Bound::AtMost(times, more) => after <= before * times + more,
            Bound::AtLeast(times) => after >= before * times,
        };
        missed += usize::from(!is_stable);
        let verdict = if is_stable { "stable" } else { "NOT STABLE" };
        println!("| {name} | {before:.1} | {after:.1} | {verdict} |");
    }
    missed
}

fn median(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let mut figures: Vec<f64> = samples.iter().map(of).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
