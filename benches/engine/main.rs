//! The storage engine by itself against other engines, inside one process, side by side in one run.
//!
//! `cargo bench --bench engine --features rivals`. `KV_BENCH_ENTRIES` (1000000) is how many values are written, `KV_BENCH_ROUNDS`
//! (3) how often each engine gets its turn, `KV_BENCH_ONLY` (`synced` or `unsynced`) which half of the rows is measured.
//!
//! The same work for all: keys of 20 bytes, each with a list of 4 values of 100 bytes, written in random order, 64 at a time by one
//! thread. An engine without lists gets an entry for each value, its place in the list behind the key, and reads a list as a range.
//! The same durability: each 64 are on disk (fdatasync) before the next in the row with a sync, and handed to the operating system in
//! the row without. Each engine may use threads of its own to tidy up.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

#[cfg(feature = "rivals")]
mod fjall;
mod ours;
#[cfg(feature = "rivals")]
mod redb;
mod table;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use kv_storage::bench::Payload;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use table::{Cell, Table};

const LIST_LENGTH: u64 = 4;
const VALUE_BYTES: usize = 100;
/// Before 12 digits.
const KEY_PREFIX: &str = "bench-k-";
const GROUP: usize = 64;
const GETS: u64 = 200_000;
/// All that is written fits, so that gets are warm.
const CACHE_BYTES: u64 = 512 << 20;

/// One value to write.
pub struct Entry<'a> {
    pub key: &'a str,
    /// Place in the list.
    pub index: u64,
    pub value: &'a str,
}

pub trait Engine {
    fn name(&self) -> &'static str;
    /// Writes all of them, and returns when they are as safe as the engine was opened for.
    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()>;
    /// Reads a list: how many values it has, and their bytes.
    fn get(&mut self, key: &str) -> anyhow::Result<(u64, usize)>;
    /// Finishes all that is done in the background, as far as it can be asked to.
    fn settle(&mut self) -> anyhow::Result<()>;
    /// Memory that grows with the keys although nobody asks for them, bytes a key; None if the engine does not say.
    fn bytes_per_idle_key(&self) -> Option<f64>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Synced,
    /// Handed to the operating system.
    Unsynced,
}

type Open = fn(&Path, Durability) -> anyhow::Result<Box<dyn Engine>>;

fn engines() -> Vec<Open> {
    vec![
        |folder, durability| Ok(Box::new(ours::Ours::open(folder, durability)?)),
        #[cfg(feature = "rivals")]
        |folder, durability| Ok(Box::new(fjall::Fjall::open(folder, durability)?)),
        #[cfg(feature = "rivals")]
        |folder, durability| Ok(Box::new(redb::Redb::open(folder, durability)?)),
    ]
}

fn main() -> anyhow::Result<()> {
    // Test runners start bench targets too; measuring is not what they want.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench engine --features rivals`");
        return Ok(());
    }
    if !cfg!(feature = "rivals") {
        eprintln!("the rivals are left out: add --features rivals");
    }
    let work = Work::new(number("KV_BENCH_ENTRIES", 1_000_000)?);
    let rounds = number("KV_BENCH_ROUNDS", 3)?;
    let mut table = Table::default();
    for round in 1..=rounds {
        for open in engines() {
            work.measure(open, &mut table)
                .with_context(|| format!("round {round} of {rounds}"))?;
        }
    }
    println!("{table}");
    println!(
        "{rounds} rounds of {} values of {VALUE_BYTES} bytes, medians",
        work.order.len()
    );
    Ok(())
}

fn number(variable: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Err(_) => Ok(default),
        Ok(text) => text
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("{variable}: {text:?} is not a number above 0")),
    }
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
        let payload = Payload::new(KEY_PREFIX, VALUE_BYTES, 1);
        let keys: Vec<String> = (0..entries.div_ceil(LIST_LENGTH))
            .map(|key| payload.key_text(key))
            .collect();
        let mut order: Vec<u64> = (0..keys.len() as u64 * LIST_LENGTH).collect();
        order.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(1));
        Self { payload, keys, order }
    }

    fn user_bytes(&self) -> f64 {
        let key_bytes = self.payload.key_bytes() + VALUE_BYTES;
        (self.order.len() * key_bytes) as f64
    }

    fn measure(&self, open: Open, table: &mut Table) -> anyhow::Result<()> {
        // Beside the build, which is on a real disk: the system's folder for temporary files may be in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let only = std::env::var("KV_BENCH_ONLY").ok();
        let wanted = |half: &str| only.as_deref().is_none_or(|only| only == half);
        if wanted("synced") {
            let mut engine = open(folder.path(), Durability::Synced)?;
            let per_s = self.write(engine.as_mut())?;
            table.put("64 operations a sync, per s", engine.name(), Cell::rate(per_s));
        }
        if !wanted("unsynced") {
            return Ok(());
        }
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut engine = open(folder.path(), Durability::Unsynced)?;
        let name = engine.name();
        let per_s = self.write(engine.as_mut())?;
        table.put("unsynced, 64 a commit, per s", name, Cell::rate(per_s));
        engine.settle()?;
        // Once over to warm up.
        self.read(engine.as_mut())?;
        let per_s = self.read(engine.as_mut())?;
        table.put("warm get of a list of 4, per s", name, Cell::rate(per_s));
        let idle = engine.bytes_per_idle_key();
        table.put(
            "memory per idle key, bytes",
            name,
            idle.map_or(Cell::unknown(), Cell::figure),
        );
        let on_disk = bytes_below(folder.path())? as f64;
        table.put(
            "bytes on disk per user byte",
            name,
            Cell::figure(on_disk / self.user_bytes()),
        );
        Ok(())
    }

    /// Writes everything: values a second.
    fn write(&self, engine: &mut dyn Engine) -> anyhow::Result<f64> {
        let mut group = Vec::with_capacity(GROUP);
        let start = Instant::now();
        for numbers in self.order.chunks(GROUP) {
            group.clear();
            group.extend(numbers.iter().map(|number| Entry {
                key: &self.keys[(number / LIST_LENGTH) as usize],
                index: number % LIST_LENGTH,
                value: self.payload.value_text(number.wrapping_mul(0x9e37_79b9)),
            }));
            engine.commit(&group)?;
        }
        let per_s = self.order.len() as f64 / start.elapsed().as_secs_f64();
        eprintln!("{}: {per_s:.0} writes a second", engine.name());
        Ok(per_s)
    }

    /// Reads lists by chance: lists a second.
    fn read(&self, engine: &mut dyn Engine) -> anyhow::Result<f64> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
        let start = Instant::now();
        for _ in 0..GETS {
            let key = &self.keys[random.random_range(0..self.keys.len())];
            let found = engine.get(key)?;
            let expected = (LIST_LENGTH, LIST_LENGTH as usize * VALUE_BYTES);
            anyhow::ensure!(found == expected, "{}: {key} has {found:?}", engine.name());
        }
        let per_s = GETS as f64 / start.elapsed().as_secs_f64();
        eprintln!("{}: {per_s:.0} gets a second", engine.name());
        Ok(per_s)
    }
}

/// Space that the files take on the disk.
fn bytes_below(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += match metadata.is_dir() {
            true => bytes_below(&entry.path())?,
            // In units of 512 bytes, whatever the file system's own are.
            false => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}
