//! Engines with more data than memory: random reads under a memory limit, opening after `kill -9`, space on disk.
//!
//! `just bench large`. `KV_BENCH_BYTES` (3000000000) is how much user data each engine holds, `KV_BENCH_MEMORY` (268435456) the limit of
//! its memory while it is read, page cache included; a quarter of that is its cache, as a node would have it. `KV_BENCH_SECONDS` (6) is
//! the length of a measurement, `KV_BENCH_ROUNDS` (3) how often each engine gets its turn, `KV_BENCH_ONLY` the names of engines to keep,
//! with commas between.
//!
//! What keeps it honest:
//! - every engine holds the same lists of 4, whose values came far apart in time, and has tidied up as it can be asked to;
//! - each works in a process of its own, and reads in a memory cgroup, after its files were let go from the page cache;
//! - gets are of keys by chance, each checked for its four values; engines take turns, round after round; medians are shown;
//! - before the kill, each engine adds keys for a while, 64 values at a time, each time durably. What the page cache holds then, it
//!   keeps.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

mod cgroup;
mod child;
#[path = "../engines/mod.rs"]
#[allow(dead_code, reason = "shared with the other benchmark, which uses more of it")]
mod engines;
mod page_cache;
mod task;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use cgroup::MemoryGroup;
use engines::table::{Cell, Table};
use engines::{Candidate, LIST_LENGTH};
use task::{Phase, Reading, Task, WRITING, What};

/// Gets under way at the same time, in the rows that say so.
const IN_FLIGHT: u64 = 32;
/// The part of the memory that is an engine's own cache: 1 in so many.
const CACHE_PART: u64 = 4;
const MIB: f64 = (1 << 20) as f64;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument, task] = &arguments[..]
        && argument == task::ARGUMENT
    {
        return child::run(task);
    }
    // Test runners start bench targets too; measuring is not what they want.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench large --features rivals`");
        return Ok(());
    }
    let memory_bytes = engines::number("KV_BENCH_MEMORY", 256 << 20)?;
    let bytes = engines::number("KV_BENCH_BYTES", 3_000_000_000)?;
    let entries = bytes / engines::user_bytes(1);
    let bench = Bench {
        keys: (entries / LIST_LENGTH).max(1),
        memory_bytes,
        seconds: engines::number("KV_BENCH_SECONDS", 6)?,
    };
    bench.run(engines::number("KV_BENCH_ROUNDS", 3)?)
}

struct Bench {
    keys: u64,
    memory_bytes: u64,
    seconds: u64,
}

/// Names of the rows about one way to read.
struct Rows {
    per_s: &'static str,
    p50: &'static str,
    p99: &'static str,
    cpu: &'static str,
    disk: &'static str,
    blocks: &'static str,
    blocks_p99: &'static str,
}

const ALONE: Rows = Rows {
    per_s: "random get, one at a time, per s",
    p50: "– p50, µs",
    p99: "– p99, µs",
    cpu: "– CPU, µs",
    disk: "– KiB from the disk per get",
    blocks: "– data blocks fetched per get",
    blocks_p99: "– data blocks fetched, p99",
};

const TOGETHER: Rows = Rows {
    per_s: "random get, 32 in flight, per s",
    p50: "– p50 with 32, µs",
    p99: "– p99 with 32, µs",
    cpu: "– CPU with 32, µs",
    disk: "– KiB from the disk per get with 32",
    blocks: "– data blocks fetched per get with 32",
    blocks_p99: "",
};

impl Rows {
    fn put(&self, table: &mut Table, engine: &'static str, phase: &Phase) {
        table.put(self.per_s, engine, Cell::rate(phase.per_s));
        table.put(self.p50, engine, Cell::figure(phase.p50_us));
        table.put(self.p99, engine, Cell::figure(phase.p99_us));
        table.put(self.cpu, engine, Cell::figure(phase.cpu_us));
        table.put(self.disk, engine, Cell::figure(phase.disk_bytes / 1024.0));
        table.put(self.blocks, engine, phase.blocks.map_or(Cell::unknown(), Cell::figure));
        if let Some(blocks) = phase.blocks_p99 {
            table.put(self.blocks_p99, engine, Cell::figure(blocks as f64));
        }
    }
}

/// An engine and the store that it has filled.
struct Store {
    candidate: Candidate,
    folder: TempDir,
}

impl Bench {
    fn run(&self, rounds: u64) -> anyhow::Result<()> {
        let group = MemoryGroup::new(self.memory_bytes);
        if let Err(error) = &group {
            eprintln!("left out: reads under a memory limit, for there can be no memory cgroup: {error:#}");
        }
        let mut table = Table::default();
        let stores = engines::candidates()?
            .into_iter()
            .map(|candidate| self.fill(candidate, &mut table))
            .collect::<anyhow::Result<Vec<_>>>()?;
        for round in 1..=rounds {
            for store in &stores {
                let context = || format!("{}, round {round} of {rounds}", store.candidate.name);
                if let Ok(group) = &group {
                    match self.read(store, group, round, &mut table).with_context(context) {
                        // Most likely the kernel killed it: the limit is too small for the engine. That is a result.
                        Err(error) if !store.candidate.is_ours() => eprintln!("left out: {error:#}"),
                        result => result?,
                    }
                }
                self.kill(store, round, &mut table).with_context(context)?;
            }
        }
        println!("{table}");
        println!(
            "{rounds} rounds, medians; {} keys with {LIST_LENGTH} values of {} bytes each, {:.0} MiB of memory",
            self.keys,
            engines::VALUE_BYTES,
            self.memory_bytes as f64 / MIB
        );
        Ok(())
    }

    fn fill(&self, candidate: Candidate, table: &mut Table) -> anyhow::Result<Store> {
        // Beside the build, which is on a real disk: the system's folder for temporary files may be in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let store = Store { candidate, folder };
        let seconds: f64 = self
            .ask(&store, What::Fill)
            .with_context(|| format!("{} could not be filled", candidate.name))?;
        eprintln!("{}: filled in {seconds:.0} s", candidate.name);
        let on_disk = engines::bytes_below(store.folder.path())? as f64;
        let user_bytes = engines::user_bytes(self.keys * LIST_LENGTH) as f64;
        table.put(
            "bytes on disk per user byte, settled",
            candidate.name,
            Cell::figure(on_disk / user_bytes),
        );
        Ok(store)
    }

    fn read(&self, store: &Store, group: &MemoryGroup, round: u64, table: &mut Table) -> anyhow::Result<()> {
        // Else the kernel would still be writing out what was filled, of this engine and of others.
        rustix::fs::sync();
        page_cache::drop_below(store.folder.path())?;
        let what = What::Read {
            door: group.door(),
            seconds: self.seconds,
            seed: round * 10,
        };
        let reading: Reading = self.ask(store, what)?;
        let name = store.candidate.name;
        eprintln!("{name}: {reading:?}");
        ALONE.put(table, name, &reading.alone);
        TOGETHER.put(table, name, &reading.in_flight);
        let idle = reading.bytes_per_idle_key;
        table.put(
            "memory per idle key, bytes",
            name,
            idle.map_or(Cell::unknown(), Cell::figure),
        );
        for (row, bytes) in [
            ("resident memory after the reads, MiB", reading.resident_bytes),
            ("without files mapped into memory, MiB", reading.anonymous_bytes),
        ] {
            table.put(row, name, Cell::figure(bytes as f64 / MIB));
        }
        Ok(())
    }

    /// Kills the engine while it writes, and opens it again.
    fn kill(&self, store: &Store, round: u64, table: &mut Table) -> anyhow::Result<()> {
        // Keys of their own, so that the lists that are read keep their length. No engine writes that many in a round.
        let from = (round << 32) + self.keys;
        let (mut writer, line) = self.start(store, What::WriteOn { from })?;
        anyhow::ensure!(line.trim_end() == WRITING, "it answered {line:?}");
        thread::sleep(Duration::from_secs(self.seconds));
        let ended = writer.0.try_wait()?;
        anyhow::ensure!(ended.is_none(), "it ended while it wrote: {ended:?}");
        // SIGKILL, to this process alone.
        writer.0.kill()?;
        writer.0.wait()?;
        let seconds: f64 = self.ask(store, What::Open { key: round % self.keys })?;
        eprintln!("{}: open {seconds:.3} s after the kill", store.candidate.name);
        table.put(
            "open and read one key after kill -9, s",
            store.candidate.name,
            Cell::figure(seconds),
        );
        Ok(())
    }

    /// Starts a process with a task, and waits for the first line it prints.
    fn start(&self, store: &Store, what: What) -> anyhow::Result<(Process, String)> {
        let task = Task {
            engine: store.candidate.name.to_owned(),
            folder: store.folder.path().to_path_buf(),
            keys: self.keys,
            cache_bytes: self.memory_bytes / CACHE_PART,
            what,
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args([task::ARGUMENT, &serde_json::to_string(&task)?])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map(Process)?;
        let mut line = String::new();
        let stdout = child.0.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "it ended without an answer: {}", child.0.wait()?);
        Ok((child, line))
    }

    /// Has a process do a task, and waits until it has ended.
    fn ask<T: DeserializeOwned>(&self, store: &Store, what: What) -> anyhow::Result<T> {
        let (mut child, line) = self.start(store, what)?;
        let status = child.0.wait()?;
        anyhow::ensure!(status.success(), "it failed: {status}");
        serde_json::from_str(&line).with_context(|| format!("it answered {line:?}"))
    }
}

/// Killed when dropped, if it still runs.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
