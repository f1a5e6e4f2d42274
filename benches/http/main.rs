//! The node against what its users would pick instead, over the network, side by side in one run.
//!
//! `cargo bench --bench http`. `KV_BENCH_SECONDS` (5) is the length of a round, `KV_BENCH_ROUNDS` (3) how often each server gets
//! its turn, `KV_BENCH_ONLY` the names of servers to keep, with commas between.
//!
//! What keeps it honest:
//! - one load generator drives them all, with requests rendered ahead and answers parsed only as far as needed;
//! - every server makes each add durable (fdatasync) before it answers, except the bare one, which keeps nothing: it is the ceiling
//!   of HTTP and JSON on this machine;
//! - servers take turns, round after round, so that what else the machine does falls on all of them; medians are shown;
//! - CPU is the server's own, user and kernel, as the kernel counts it.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

mod bare;
mod etcd;
mod install;
mod machine;
#[path = "../node/mod.rs"]
mod node;
mod resp;
mod servers;
mod table;

use std::time::Duration;

use anyhow::Context;
use kv_storage::bench::{Distribution, Load, Mix, Operation, Payload, Report, run};

use node::setting;
use servers::Server;
use table::Sample;

const KEYS: u64 = 100_000;
const LIST_LENGTH: u64 = 4;
const VALUE_BYTES: usize = 100;
const WARMUP: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_secs(10);

/// What is measured: a row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub operation: Operation,
    pub connections: usize,
    /// Gets have keys of their own, with lists of a known length.
    pub key_prefix: &'static str,
}

const ROWS: [Row; 3] = [
    Row {
        name: "durable add, 100 bytes, 64 connections",
        operation: Operation::Add,
        connections: 64,
        key_prefix: "add-",
    },
    Row {
        name: "durable add, 100 bytes, 1 connection",
        operation: Operation::Add,
        connections: 1,
        key_prefix: "add-",
    },
    Row {
        name: "get, lists of 4, warm, 64 connections",
        operation: Operation::Get,
        connections: 64,
        key_prefix: "get-",
    },
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == bare::ARGUMENT) {
        return bare::serve();
    }
    // Test runners start bench targets too; measuring is not what they want.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench http`");
        return Ok(());
    }
    let seconds: f64 = setting("KV_BENCH_SECONDS", 5.0)?;
    let rounds: usize = setting("KV_BENCH_ROUNDS", 3)?;
    let servers = servers::start_all()?;
    for server in &servers {
        let payload = Payload::new(ROWS[2].key_prefix, VALUE_BYTES, 1);
        server
            .fill(&payload, KEYS, LIST_LENGTH)
            .with_context(|| format!("{} could not be filled", server.name()))?;
    }
    let mut samples = Vec::new();
    for round in 1..=rounds {
        for row in ROWS {
            for server in servers
                .iter()
                .filter(|server| row.operation == Operation::Add || server.has_lists())
            {
                let sample = measure(server, row, round, Duration::from_secs_f64(seconds))?;
                eprintln!("round {round} of {rounds}: {}: {}: {sample}", row.name, server.name());
                samples.push((row.name, server.name(), sample));
            }
        }
    }
    println!("{}", table::markdown(&ROWS.map(|row| row.name), &samples));
    println!("{rounds} rounds of {seconds} s, medians; {}", machine::describe());
    Ok(())
}

fn measure(server: &Server, row: Row, round: usize, duration: Duration) -> anyhow::Result<Sample> {
    let payload = Payload::new(row.key_prefix, VALUE_BYTES, 1);
    let load = Load {
        addresses: vec![server.address],
        connections: row.connections,
        warmup: WARMUP,
        duration,
        rate_per_s: None,
        mix: Mix::only(row.operation),
        keys: KEYS,
        distribution: Distribution::Uniform,
        seed: round as u64,
        drain: DRAIN,
    };
    let before = server.cpu()?;
    let report = server.drive(&load, &payload)?;
    let cpu = server.cpu()? - before;
    check(server, &report)?;
    // The CPU is that of the warm-up too, and so are these.
    let all: u64 = report.timeline.iter().map(|second| second.done).sum();
    let operation = report.operations.values().next().context("no operation was measured")?;
    Ok(Sample {
        per_s: report.done_per_s,
        p50_us: operation.p50_us,
        p99_us: operation.p99_us,
        user_us: cpu.user_s * 1e6 / all as f64,
        system_us: cpu.system_s * 1e6 / all as f64,
    })
}

/// A figure with errors in it would compare nothing.
fn check(server: &Server, report: &Report) -> anyhow::Result<()> {
    anyhow::ensure!(
        report.done > 0 && report.errors.is_empty(),
        "{} failed under load:\n{report}",
        server.name()
    );
    Ok(())
}

/// Runs a load with any protocol.
fn drive<P: kv_storage::bench::Protocol>(load: &Load, protocol: impl Fn() -> P) -> anyhow::Result<Report> {
    Ok(run(load, |_| protocol(), |_| {})?)
}
