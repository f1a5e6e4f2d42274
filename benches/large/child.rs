//! A process of its own, so that an engine has its memory to itself and can be killed.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use kv_storage::bench::Payload;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::engines::{self, Durability, Engine, Entry, LIST_LENGTH, Setup, WHOLE_LIST};
use super::task::{Phase, Reading, Task, WRITING, What};
use super::{IN_FLIGHT, cgroup};

/// As many as a node has by default.
const SHARDS: u16 = 8;
/// Entries of a commit while filling: many, for it is not filling that is measured.
const FILL_GROUP: u64 = 16 * 1024;
/// Entries of a commit before the kill.
const WRITE_GROUP: u64 = 64;

/// Does the task, and prints what it came to.
pub fn run(task: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    let child = Child {
        task: serde_json::from_str(task)?,
        payload: engines::payload(),
    };
    match &child.task.what {
        What::Fill => {
            child.fill()?;
            answer(&started.elapsed().as_secs_f64())
        }
        What::Read { door, seconds, seed } => {
            let duration = Duration::from_secs(*seconds);
            answer(&child.read(door, duration, *seed)?)
        }
        What::WriteOn { from } => child.write_on(*from),
        What::Open { key } => {
            let engine = child.open(Durability::Synced)?;
            child.get(engine.as_ref(), *key)?;
            answer(&started.elapsed().as_secs_f64())
        }
    }
}

fn answer(result: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}

struct Child {
    task: Task,
    payload: Payload,
}

impl Child {
    fn open(&self, durability: Durability) -> anyhow::Result<Box<dyn Engine>> {
        let candidate = engines::candidate(&self.task.engine).context("no such engine")?;
        (candidate.open)(&Setup {
            folder: &self.task.folder,
            durability,
            cache_bytes: self.task.cache_bytes,
            shards: SHARDS,
            larger_than_memory: true,
        })
    }

    fn get(&self, engine: &dyn Engine, key: u64) -> anyhow::Result<()> {
        let key = self.payload.key_text(key);
        let found = engine.get(&key)?;
        anyhow::ensure!(found == WHOLE_LIST, "{key} has {found:?}");
        Ok(())
    }

    /// Writes a value at each of the places: key, and place in its list.
    fn write(&self, engine: &mut dyn Engine, places: impl Iterator<Item = (u64, u64)> + Clone) -> anyhow::Result<()> {
        let keys: Vec<String> = places.clone().map(|(key, _)| self.payload.key_text(key)).collect();
        let entries: Vec<Entry<'_>> = places
            .zip(&keys)
            .map(|((number, index), key)| Entry {
                key,
                index,
                value: engines::value(&self.payload, number * LIST_LENGTH + index),
            })
            .collect();
        engine.commit(&entries)
    }

    /// All keys get their first value before one gets its second: the values of a list come far apart in time, as lists grow.
    fn fill(&self) -> anyhow::Result<()> {
        let (keys, entries) = (self.task.keys, self.task.keys * LIST_LENGTH);
        let mut engine = self.open(Durability::Unsynced)?;
        for first in (0..entries).step_by(FILL_GROUP as usize) {
            let numbers = first..(first + FILL_GROUP).min(entries);
            self.write(engine.as_mut(), numbers.map(|number| (number % keys, number / keys)))?;
        }
        engine.settle()
    }

    /// Ends with the process.
    fn write_on(&self, from: u64) -> anyhow::Result<()> {
        let mut engine = self.open(Durability::Synced)?;
        println!("{WRITING}");
        for first in (from..).step_by(WRITE_GROUP as usize) {
            self.write(engine.as_mut(), (first..first + WRITE_GROUP).map(|key| (key, 0)))?;
        }
        Ok(())
    }

    fn read(&self, door: &Path, duration: Duration, seed: u64) -> anyhow::Result<Reading> {
        cgroup::enter(door)?;
        let mut engine = self.open(Durability::Synced)?;
        engine.catch_up()?;
        let engine = engine.as_ref();
        // Half as long again for the caches to fill.
        self.phase(engine, 1, duration / 2, seed)?;
        Ok(Reading {
            alone: self.phase(engine, 1, duration, seed + 1)?,
            in_flight: self.phase(engine, IN_FLIGHT, duration, seed + 2)?,
            resident_bytes: 1024 * figure("/proc/self/status", "VmRSS:")?,
            anonymous_bytes: 1024 * figure("/proc/self/status", "RssAnon:")?,
            bytes_per_idle_key: engine.bytes_per_idle_key(),
        })
    }

    /// So many threads read for so long.
    fn phase(&self, engine: &dyn Engine, threads: u64, duration: Duration, seed: u64) -> anyhow::Result<Phase> {
        let blocks_before = engine.blocks_fetched();
        let disk_before = figure("/proc/self/io", "read_bytes:")?;
        let cpu_before = cpu_seconds();
        let start = Instant::now();
        let samples: Vec<anyhow::Result<Samples>> = thread::scope(|scope| {
            let readers: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || self.read_until(engine, start + duration, seed * 1000 + thread)))
                .collect();
            let joined = readers.into_iter().map(|reader| reader.join());
            joined
                .map(|samples| samples.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let seconds = start.elapsed().as_secs_f64();
        let cpu_seconds = cpu_seconds() - cpu_before;
        let mut all = Samples::new()?;
        for samples in samples {
            let samples = samples?;
            all.nanoseconds.add(samples.nanoseconds)?;
            all.blocks.add(samples.blocks)?;
        }
        let gets = all.nanoseconds.len() as f64;
        let disk_bytes = figure("/proc/self/io", "read_bytes:")? - disk_before;
        let blocks = engine.blocks_fetched().zip(blocks_before);
        let us = |quantile| all.nanoseconds.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Phase {
            per_s: gets / seconds,
            p50_us: us(0.5),
            p99_us: us(0.99),
            cpu_us: cpu_seconds * 1e6 / gets,
            disk_bytes: disk_bytes as f64 / gets,
            blocks: blocks.map(|(now, before)| (now - before) as f64 / gets),
            // With several threads, nobody knows whose blocks they were.
            blocks_p99: blocks
                .filter(|_| threads == 1)
                .map(|_| all.blocks.value_at_quantile(0.99)),
        })
    }

    fn read_until(&self, engine: &dyn Engine, end: Instant, seed: u64) -> anyhow::Result<Samples> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut samples = Samples::new()?;
        let mut now = Instant::now();
        let mut blocks = engine.blocks_fetched().unwrap_or(0);
        while now < end {
            self.get(engine, random.random_range(0..self.task.keys))?;
            let (before, blocks_before) = (now, blocks);
            now = Instant::now();
            blocks = engine.blocks_fetched().unwrap_or(0);
            samples.nanoseconds.record((now - before).as_nanos() as u64)?;
            samples.blocks.record(blocks - blocks_before)?;
        }
        Ok(samples)
    }
}

struct Samples {
    nanoseconds: Histogram<u64>,
    blocks: Histogram<u64>,
}

impl Samples {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            nanoseconds: Histogram::new(3)?,
            blocks: Histogram::new(3)?,
        })
    }
}

/// Processor time that this process has used.
fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// The number behind `name` in a file of the kernel's.
fn figure(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{path} has no {name}"))
}
