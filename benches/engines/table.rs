//! The result: medians, and how many times as good as ours each engine is.

use std::collections::BTreeMap;
use std::fmt;

use kv_storage::bench::thousands;

#[derive(Debug, Clone, Copy)]
pub struct Cell {
    figure: Option<f64>,
    whole: bool,
}

impl Cell {
    pub fn rate(per_s: f64) -> Self {
        Self {
            figure: Some(per_s),
            whole: true,
        }
    }

    pub fn figure(figure: f64) -> Self {
        Self {
            figure: Some(figure),
            whole: false,
        }
    }

    pub fn unknown() -> Self {
        Self {
            figure: None,
            whole: false,
        }
    }
}

#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<&'static str>,
    engines: Vec<&'static str>,
    cells: BTreeMap<(&'static str, &'static str), Vec<Cell>>,
}

impl Table {
    pub fn put(&mut self, row: &'static str, engine: &'static str, cell: Cell) {
        for (names, name) in [(&mut self.rows, row), (&mut self.engines, engine)] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        self.cells.entry((row, engine)).or_default().push(cell);
    }

    fn median(&self, row: &'static str, engine: &'static str) -> Cell {
        let mut cells = self.cells.get(&(row, engine)).cloned().unwrap_or_default();
        cells.sort_by(|a, b| f64::total_cmp(&a.figure.unwrap_or(0.0), &b.figure.unwrap_or(0.0)));
        cells.get(cells.len() / 2).copied().unwrap_or(Cell::unknown())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | {} |", self.engines.join(" | "))?;
        writeln!(f, "| --- |{}", " ---: |".repeat(self.engines.len()))?;
        for row in &self.rows {
            write!(f, "| {row} |")?;
            let ours = self.engines.first().and_then(|engine| self.median(row, engine).figure);
            for (index, engine) in self.engines.iter().enumerate() {
                let cell = self.median(row, engine);
                match cell.figure {
                    None => write!(f, " – |")?,
                    Some(figure) if !cell.whole => write!(f, " {figure:.2} |")?,
                    Some(figure) => match ours.filter(|_| index > 0) {
                        Some(ours) => write!(f, " {} (kv is {:.2}x) |", thousands(figure), ours / figure)?,
                        None => write!(f, " {} |", thousands(figure))?,
                    },
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
