//! What a process of its own is told to do, and what it answers: JSON, as its argument and as its last line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Before a task, as an argument.
pub const ARGUMENT: &str = "--task";
/// A line that says that writing is under way.
pub const WRITING: &str = "writing";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    pub engine: String,
    pub folder: PathBuf,
    /// Keys that the store holds.
    pub keys: u64,
    pub cache_bytes: u64,
    pub what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    /// Writes all keys and settles. Answers with the seconds it took.
    Fill,
    /// Reads keys by chance, in the memory cgroup with this door. Answers with [`Reading`].
    Read { door: PathBuf, seconds: u64, seed: u64 },
    /// Adds other keys, from that number on, durably, until it is killed.
    WriteOn { from: u64 },
    /// Opens the store and reads one key. Answers with the seconds it took.
    Open { key: u64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reading {
    pub alone: Phase,
    pub in_flight: Phase,
    /// Of the process, after all reads, bytes: everything, and without the files that it has mapped.
    pub resident_bytes: u64,
    pub anonymous_bytes: u64,
    pub bytes_per_idle_key: Option<f64>,
}

/// What a while of reading came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Phase {
    pub per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Processor time of a get, the kernel's share included.
    pub cpu_us: f64,
    /// Bytes that came from the disk, per get.
    pub disk_bytes: f64,
    /// Data blocks that the engine fetched for a get: mean, and (one get at a time) the 99th percentile.
    pub blocks: Option<f64>,
    pub blocks_p99: Option<u64>,
}
