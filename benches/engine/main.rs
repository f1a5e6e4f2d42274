//! The storage engine by itself against other engines, inside one process, side by side in one run.
//!
//! `just bench engine`. `KV_BENCH_ENTRIES` (1000000) is how many values are written, `KV_BENCH_ROUNDS` (3) how often each engine gets
//! its turn, `KV_BENCH_ONLY` the names of engines to keep, `KV_BENCH_ROWS` which halves of the table (`synced`, `unsynced`), with
//! commas between.
//!
//! Keys of 20 bytes, each with a list of 4 values of 100 bytes, written in random order, 64 at a time by one thread.
//! The same durability for all: each 64 are on disk (fdatasync) before the next in the row with a sync, and handed to the operating
//! system in the row without. Each engine may use threads of its own to tidy up.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

#[path = "../engines/mod.rs"]
#[allow(dead_code, reason = "shared with the other benchmark, which uses more of it")]
mod engines;

use std::time::Instant;

use anyhow::Context;
use kv_storage::bench::Payload;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use engines::table::{Cell, Table};
use engines::{Candidate, Durability, Engine, Entry, LIST_LENGTH, Setup, VALUE_BYTES, WHOLE_LIST};

const GROUP: usize = 64;
const GETS: u64 = 200_000;
/// All that is written fits, so that gets are warm.
const CACHE_BYTES: u64 = 512 << 20;
/// What `KV_BENCH_ROWS` may name.
const ROWS: [&str; 2] = ["synced", "unsynced"];

fn main() -> anyhow::Result<()> {
    // Test runners start bench targets too; measuring is not what they want.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench engine --features rivals`");
        return Ok(());
    }
    let wanted = engines::names("KV_BENCH_ROWS");
    if let Some(row) = wanted.iter().find(|row| !ROWS.contains(&row.as_str())) {
        anyhow::bail!("KV_BENCH_ROWS: {row:?} is none of {ROWS:?}");
    }
    let [synced, unsynced] = ROWS.map(|row| wanted.is_empty() || wanted.iter().any(|name| name == row));
    let work = Work::new(engines::number("KV_BENCH_ENTRIES", 1_000_000)?);
    let rounds = engines::number("KV_BENCH_ROUNDS", 3)?;
    let candidates = engines::candidates()?;
    let mut table = Table::default();
    for round in 1..=rounds {
        for candidate in &candidates {
            let context = || format!("{}, round {round} of {rounds}", candidate.name);
            if synced {
                work.measure_synced(candidate, &mut table).with_context(context)?;
            }
            if unsynced {
                work.measure_unsynced(candidate, &mut table).with_context(context)?;
            }
        }
    }
    println!("{table}");
    println!(
        "{rounds} rounds of {} values of {VALUE_BYTES} bytes, medians",
        work.order.len()
    );
    Ok(())
}

/// What is written, made ahead.
struct Work {
    payload: Payload,
    keys: Vec<String>,
    /// Numbers of values, in the order they are written.
    order: Vec<u64>,
}

impl Work {
    fn new(entries: u64) -> Self {
        let payload = engines::payload();
        let keys: Vec<String> = (0..entries.div_ceil(LIST_LENGTH))
            .map(|key| payload.key_text(key))
            .collect();
        let mut order: Vec<u64> = (0..keys.len() as u64 * LIST_LENGTH).collect();
        order.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(1));
        Self { payload, keys, order }
    }

    fn measure_synced(&self, candidate: &Candidate, table: &mut Table) -> anyhow::Result<()> {
        let folder = folder()?;
        let mut engine = (candidate.open)(&setup(folder.path(), Durability::Synced))?;
        let per_s = self.write(engine.as_mut(), candidate.name)?;
        table.put("64 operations a sync, per s", candidate.name, Cell::rate(per_s));
        Ok(())
    }

    fn measure_unsynced(&self, candidate: &Candidate, table: &mut Table) -> anyhow::Result<()> {
        let name = candidate.name;
        let folder = folder()?;
        let mut engine = (candidate.open)(&setup(folder.path(), Durability::Unsynced))?;
        let per_s = self.write(engine.as_mut(), name)?;
        table.put("unsynced, 64 a commit, per s", name, Cell::rate(per_s));
        engine.settle()?;
        // Once over to warm up.
        self.read(engine.as_ref(), name)?;
        let per_s = self.read(engine.as_ref(), name)?;
        table.put("warm get of a list of 4, per s", name, Cell::rate(per_s));
        let idle = engine.bytes_per_idle_key();
        table.put(
            "memory per idle key, bytes",
            name,
            idle.map_or(Cell::unknown(), Cell::figure),
        );
        let on_disk = engines::bytes_below(folder.path())? as f64;
        let user_bytes = engines::user_bytes(self.order.len() as u64) as f64;
        table.put("bytes on disk per user byte", name, Cell::figure(on_disk / user_bytes));
        Ok(())
    }

    /// Writes everything: values a second.
    fn write(&self, engine: &mut dyn Engine, name: &str) -> anyhow::Result<f64> {
        let mut group = Vec::with_capacity(GROUP);
        let start = Instant::now();
        for numbers in self.order.chunks(GROUP) {
            group.clear();
            group.extend(numbers.iter().map(|number| Entry {
                key: &self.keys[(number / LIST_LENGTH) as usize],
                index: number % LIST_LENGTH,
                value: engines::value(&self.payload, *number),
            }));
            engine.commit(&group)?;
        }
        let per_s = self.order.len() as f64 / start.elapsed().as_secs_f64();
        eprintln!("{name}: {per_s:.0} writes a second");
        Ok(per_s)
    }

    /// Reads lists by chance: lists a second.
    fn read(&self, engine: &dyn Engine, name: &str) -> anyhow::Result<f64> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
        let start = Instant::now();
        for _ in 0..GETS {
            let key = &self.keys[random.random_range(0..self.keys.len())];
            let found = engine.get(key)?;
            anyhow::ensure!(found == WHOLE_LIST, "{name}: {key} has {found:?}");
        }
        let per_s = GETS as f64 / start.elapsed().as_secs_f64();
        eprintln!("{name}: {per_s:.0} gets a second");
        Ok(per_s)
    }
}

/// Beside the build, which is on a real disk: the system's folder for temporary files may be in memory.
fn folder() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
}

fn setup(folder: &std::path::Path, durability: Durability) -> Setup<'_> {
    Setup {
        folder,
        durability,
        cache_bytes: CACHE_BYTES,
        shards: 1,
        larger_than_memory: false,
    }
}
