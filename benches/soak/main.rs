//! A node under a steady, mixed load for a long time: does anything grow, slow down or fail?
//!
//! `cargo bench --features plot --bench soak`. `KV_SOAK_SECONDS` (3600), `KV_SOAK_RATE` (2,000 operations a second),
//! `KV_SOAK_FOLDER` (`target/soak`) for `soak.csv` and `soak.png`.
//!
//! The load: adds, gets and clears of keys that are used unequally (Zipf), and beside them values of 8 MiB that are stored from parts,
//! read back and cleared. Clears keep the data at one size, so whatever grows is the node's own.
//!
//! The verdict compares the last quarter of the run with the second: by then every cache is full and every kind of merge has run.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

mod large;
#[path = "../node/mod.rs"]
mod node;
mod plot;
mod verdict;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use kv_storage::bench::{Distribution, Load, Payload, Second, run};

use node::{MIB, Node, setting};

const CONNECTIONS: usize = 32;
const KEYS: u64 = 20_000;
const VALUE_BYTES: usize = 500;
const MIX: &str = "add=8,get=10,clear=2";
const DRAIN: Duration = Duration::from_secs(10);

/// What was seen in one second.
#[derive(Debug, Clone)]
pub struct Sample {
    pub second: Second,
    pub resident: u64,
    pub files: u64,
    pub disk_bytes: u64,
}

fn main() -> anyhow::Result<()> {
    // Test runners start bench targets too; measuring is not what they want.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --features plot --bench soak`");
        return Ok(());
    }
    let seconds: u64 = setting("KV_SOAK_SECONDS", 3600)?;
    let rate_per_s: f64 = setting("KV_SOAK_RATE", 2_000.0)?;
    let folder = std::env::var_os("KV_SOAK_FOLDER").map_or_else(|| PathBuf::from("target/soak"), PathBuf::from);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let node = Node::start()?;
    let load = Load {
        addresses: vec![node.address],
        connections: CONNECTIONS,
        warmup: Duration::ZERO,
        duration: Duration::from_secs(seconds),
        rate_per_s: Some(rate_per_s),
        mix: MIX.parse().map_err(anyhow::Error::msg)?,
        keys: KEYS,
        distribution: Distribution::Zipf { theta: 0.99 },
        seed: 1,
        drain: DRAIN,
    };
    let stop = AtomicBool::new(false);
    let (samples, report, large) = std::thread::scope(|scope| {
        let large = scope.spawn(|| large::store_and_read(&node, &stop));
        let outcome = drive(&node, &load, &folder);
        stop.store(true, Ordering::Relaxed);
        let large = large
            .join()
            .map_err(|_| anyhow::anyhow!("the thread of large values failed"))??;
        let (samples, report) = outcome?;
        anyhow::Ok((samples, report, large))
    })?;
    let picture = folder.join("soak.png");
    plot::draw(&samples, &picture)?;
    println!(
        "\n{report}{large} values of {} MiB were stored, read and cleared",
        large::VALUE_BYTES / MIB
    );
    println!("{} and {}\n", folder.join("soak.csv").display(), picture.display());
    let missed = verdict::judge(&samples);
    anyhow::ensure!(missed == 0 && report.errors.is_empty(), "not stable");
    println!("stable");
    Ok(())
}

/// Samples each second, into the CSV file too, so that a run that is cut short leaves what it saw.
fn drive(
    node: &Node,
    load: &Load,
    folder: &std::path::Path,
) -> anyhow::Result<(Vec<Sample>, kv_storage::bench::Report)> {
    let mut csv = std::fs::File::create(folder.join("soak.csv"))?;
    writeln!(
        csv,
        "second,done,errors,p50_us,p99_us,max_us,resident_bytes,files,disk_bytes"
    )?;
    let protocol = node.protocol(&Payload::new("soak-", VALUE_BYTES, 1))?;
    let mut samples = Vec::new();
    let mut failed = None;
    let report = run(
        load,
        |_| protocol.clone(),
        |second| match sample(node, second) {
            Ok(sample) => {
                // The run goes on without the file.
                let _ = writeln!(csv, "{}", line(&sample));
                if samples.len() % 60 == 0 {
                    println!("{second}; {} MiB, {} files", sample.resident / MIB, sample.files);
                }
                samples.push(sample);
            }
            Err(error) => failed = Some(error),
        },
    )?;
    match failed {
        Some(error) => Err(error.context("the node could not be watched to the end")),
        None => Ok((samples, report)),
    }
}

fn line(sample: &Sample) -> String {
    let Sample {
        second,
        resident,
        files,
        disk_bytes,
    } = sample;
    format!(
        "{:.0},{},{},{:.0},{:.0},{:.0},{resident},{files},{disk_bytes}",
        second.at_s, second.done, second.errors, second.p50_us, second.p99_us, second.max_us
    )
}

fn sample(node: &Node, second: &Second) -> anyhow::Result<Sample> {
    let files = node.files()?;
    Ok(Sample {
        second: second.clone(),
        resident: node.memory()?.resident,
        files: files.count,
        disk_bytes: files.bytes,
    })
}
