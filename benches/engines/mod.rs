//! The storage engines that are compared, behind one trait, and what the benchmarks of engines have in common.
//!
//! The same work for all: a list of values for each key. An engine without lists gets an entry for each value, its place in the list
//! behind the key, and reads a list as a range. Each engine is set up as its documentation advises, and the same everywhere where
//! that is left to the user: bytes of cache, and what is durable when a commit returns.

#[cfg(feature = "rivals")]
mod fjall;
#[cfg(feature = "rivals")]
mod lmdb;
mod ours;
#[cfg(feature = "rivals")]
mod redb;
#[cfg(feature = "rival-rocksdb")]
mod rocksdb;
pub mod table;
mod unsynced;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use kv_storage::bench::Payload;

pub const LIST_LENGTH: u64 = 4;
pub const VALUE_BYTES: usize = 100;
/// Before 12 digits.
const KEY_PREFIX: &str = "bench-k-";
/// Of every key.
pub const KEY_BYTES: usize = 20;
/// What a benchmark was told if it holds all of a list.
pub const WHOLE_LIST: (u64, usize) = (LIST_LENGTH, LIST_LENGTH as usize * VALUE_BYTES);

/// One value to write.
pub struct Entry<'a> {
    pub key: &'a str,
    /// Place in the list.
    pub index: u64,
    pub value: &'a str,
}

pub trait Engine: Send + Sync {
    /// Writes all of them, and returns when they are as safe as the engine was opened for.
    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()>;

    /// Reads a list: how many values it has, and their bytes.
    fn get(&self, key: &str) -> anyhow::Result<(u64, usize)>;

    /// Finishes all that is done in the background as far as it can be asked to, and makes everything durable.
    fn settle(&mut self) -> anyhow::Result<()>;

    /// What the engine does by itself after it was opened, for one that has no threads of its own here.
    fn catch_up(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Memory that grows with the keys although nobody asks for them, bytes a key; None if the engine does not say.
    fn bytes_per_idle_key(&self) -> Option<f64> {
        None
    }

    /// Data blocks that it had to fetch from its files so far; None if the engine does not say.
    fn blocks_fetched(&self) -> Option<u64> {
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk (fdatasync) when a commit returns.
    Synced,
    /// Handed to the operating system.
    Unsynced,
}

/// How an engine is opened.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The engine's own, created by the benchmark.
    pub folder: &'a Path,
    pub durability: Durability,
    pub cache_bytes: u64,
    /// Into how many shards the keys are split, by an engine that has them.
    pub shards: u16,
    /// Reads go to places that are far from each other on the disk.
    pub larger_than_memory: bool,
}

type Open = fn(&Setup<'_>) -> anyhow::Result<Box<dyn Engine>>;

/// An engine that can be measured.
#[derive(Clone, Copy)]
pub struct Candidate {
    pub name: &'static str,
    pub open: Open,
}

const OURS: &str = "kv";

impl Candidate {
    pub fn is_ours(&self) -> bool {
        self.name == OURS
    }
}

const CANDIDATES: &[Candidate] = &[
    Candidate {
        name: OURS,
        open: |setup| Ok(Box::new(ours::Ours::open(setup)?)),
    },
    #[cfg(feature = "rivals")]
    Candidate {
        name: "fjall",
        open: |setup| Ok(Box::new(fjall::Fjall::open(setup)?)),
    },
    #[cfg(feature = "rivals")]
    Candidate {
        name: "redb",
        open: |setup| Ok(Box::new(redb::Redb::open(setup)?)),
    },
    #[cfg(feature = "rivals")]
    Candidate {
        name: "lmdb",
        open: |setup| Ok(Box::new(lmdb::Lmdb::open(setup)?)),
    },
    #[cfg(feature = "rival-rocksdb")]
    Candidate {
        name: "rocksdb",
        open: |setup| Ok(Box::new(rocksdb::RocksDb::open(setup)?)),
    },
];

/// All that can be had, or those that `KV_BENCH_ONLY` names; says which ones are left out. Ours comes first.
pub fn candidates() -> anyhow::Result<Vec<Candidate>> {
    if !cfg!(feature = "rivals") {
        eprintln!("left out: fjall, redb and LMDB; they come with --features rivals");
    }
    if !cfg!(feature = "rival-rocksdb") {
        eprintln!(
            "left out: RocksDB; with its library (Debian: apt-get install librocksdb-dev), add --features rival-rocksdb"
        );
    }
    let only = names("KV_BENCH_ONLY");
    for name in &only {
        candidate(name).with_context(|| format!("KV_BENCH_ONLY: {name:?} cannot be had"))?;
    }
    let wanted = |candidate: &&Candidate| only.is_empty() || only.iter().any(|name| name == candidate.name);
    Ok(CANDIDATES.iter().filter(wanted).copied().collect())
}

pub fn candidate(name: &str) -> Option<Candidate> {
    CANDIDATES.iter().find(|candidate| candidate.name == name).copied()
}

/// The names in an environment variable, with commas between.
pub fn names(variable: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_default();
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// The number in an environment variable, above 0.
pub fn number(variable: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Err(_) => Ok(default),
        Ok(text) => text
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("{variable}: {text:?} is not a number above 0")),
    }
}

/// The same keys and values in every process.
pub fn payload() -> Payload {
    Payload::new(KEY_PREFIX, VALUE_BYTES, 1)
}

/// A value for a number; the values of neighbours have nothing in common.
pub fn value(payload: &Payload, number: u64) -> &str {
    payload.value_text(number.wrapping_mul(0x9e37_79b9))
}

/// Key and value of each entry.
pub fn user_bytes(entries: u64) -> u64 {
    entries * (KEY_BYTES + VALUE_BYTES) as u64
}

/// Where a value lies in an engine without lists: its place comes in big-endian behind the key, so that a list lies side by side
/// and in order.
#[cfg(feature = "rivals")]
fn place(key: &str, index: u64) -> Vec<u8> {
    let mut place = Vec::with_capacity(key.len() + 8);
    place.extend_from_slice(key.as_bytes());
    place.extend_from_slice(&index.to_be_bytes());
    place
}

/// Space that the files take on the disk.
pub fn bytes_below(folder: &Path) -> anyhow::Result<u64> {
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
