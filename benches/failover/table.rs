//! The result: what was measured, the bar, and whether it was met.

use std::fmt;

use super::node::MIB;

#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    measured: String,
    bar: String,
    is_met: Option<bool>,
}

impl Table {
    /// How often something happened that must not.
    pub fn count(&mut self, what: &str, count: usize) {
        self.row(what, count.to_string(), "0".to_owned(), Some(count == 0));
    }

    /// Seconds, of each round one.
    pub fn times(&mut self, what: &str, seconds_of_rounds: &[f64], max: Option<f64>) {
        self.figures(what, seconds_of_rounds, max, seconds);
    }

    pub fn ratios(&mut self, what: &str, ratios: &[f64], max: f64) {
        self.figures(what, ratios, Some(max), |ratio| format!("{ratio:.2}x"));
    }

    pub fn memory(&mut self, what: &str, bytes: &[f64], max: f64) {
        self.figures(what, bytes, Some(max), |bytes| format!("{:.0} MiB", bytes / MIB as f64));
    }

    pub fn bytes_per_s(&mut self, what: &str, bytes: f64, max: f64) {
        self.figures(what, &[bytes], Some(max), |bytes| format!("{bytes:.0} B/s"));
    }

    /// The bar is for the worst.
    fn figures(&mut self, what: &str, figures: &[f64], max: Option<f64>, text: impl Fn(f64) -> String) {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let Some(worst) = sorted.last() else {
            return self.row(what, "not measured".to_owned(), String::new(), None);
        };
        let median = sorted[(sorted.len() - 1) / 2];
        let measured = match sorted.len() {
            1 => text(*worst),
            _ => format!("{} ({})", text(median), text(*worst)),
        };
        let bar = max.map_or_else(String::new, |max| format!("≤ {}", text(max)));
        self.row(what, measured, bar, max.map(|max| *worst <= max));
    }

    fn row(&mut self, what: &str, measured: String, bar: String, is_met: Option<bool>) {
        self.rows.push(Row {
            what: what.to_owned(),
            measured,
            bar,
            is_met,
        });
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | measured | bar | |\n| --- | ---: | ---: | --- |")?;
        for row in &self.rows {
            let met = match row.is_met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            writeln!(f, "| {} | {} | {} | {met} |", row.what, row.measured, row.bar)?;
        }
        Ok(())
    }
}

pub fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}
