//! Three nodes against three of etcd, over the network, side by side in one run.
//!
//! `cargo bench --bench cluster`. `KV_BENCH_SECONDS` (5) is the length of a round, `KV_BENCH_ROUNDS` (3) how often each cluster gets its
//! turn, `KV_BENCH_ROWS` a part of the names of the rows to keep.
//!
//! What keeps it honest:
//! - one load generator drives both, with requests rendered ahead and answers parsed only as far as needed; its connections are
//!   spread over all three nodes, and a single one goes to another node in each round;
//! - both make each write durable on a quorum before they answer. A list of 4 values here is one value of the same length there;
//! - the clusters take turns, round after round, so that what else the machine does falls on both; medians are shown;
//! - CPU is that of all three nodes together, user and kernel, as the kernel counts it.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

#[path = "../http/etcd.rs"]
mod etcd;
#[path = "../http/install.rs"]
mod install;
#[path = "../http/machine.rs"]
mod machine;
#[path = "../node/mod.rs"]
mod node;
mod rival;
mod side;
mod table;

use std::time::Duration;

use anyhow::Context;
use kv_storage::bench::{Distribution, Load, Mix, Operation, Payload};
use kv_storage::client::Consistency;

use node::setting;
use side::Side;
use table::Sample;

const VALUE_BYTES: usize = 100;
const LIST_LENGTH: usize = 4;
const ADD_KEYS: u64 = 1_000_000;
const GET_KEYS: u64 = 20_000;
const GET_PREFIX: &str = "get-";
const CONNECTIONS: usize = 64;
const WARMUP: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_secs(10);

/// What is measured: a row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub operation: Operation,
    pub consistency: Consistency,
    pub connections: usize,
    /// How many times etcd's rate is asked for.
    pub bar: f64,
}

const ROWS: [Row; 5] = [
    Row {
        name: "durable quorum add, 100 bytes, 64 connections",
        operation: Operation::Add,
        consistency: Consistency::Quorum,
        connections: CONNECTIONS,
        bar: 5.0,
    },
    Row {
        name: "quorum get of a list of 4, 64 connections (etcd: linearizable)",
        operation: Operation::Get,
        consistency: Consistency::Quorum,
        connections: CONNECTIONS,
        bar: 5.0,
    },
    Row {
        name: "get of a list of 4 from one replica, 64 connections (etcd: serializable)",
        operation: Operation::Get,
        consistency: Consistency::One,
        connections: CONNECTIONS,
        bar: 7.0,
    },
    Row {
        name: "durable quorum add, 1 connection",
        operation: Operation::Add,
        consistency: Consistency::Quorum,
        connections: 1,
        bar: 1.5,
    },
    Row {
        name: "quorum get of a list of 4, 1 connection (etcd: linearizable)",
        operation: Operation::Get,
        consistency: Consistency::Quorum,
        connections: 1,
        bar: 1.5,
    },
];

fn main() -> anyhow::Result<()> {
    // Test runners start bench targets too; measuring is not what they want.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench cluster`");
        return Ok(());
    }
    let seconds: f64 = setting("KV_BENCH_SECONDS", 5.0)?;
    let rounds: usize = setting("KV_BENCH_ROUNDS", 3)?;
    let wanted = std::env::var("KV_BENCH_ROWS").unwrap_or_default();
    let rows: Vec<Row> = ROWS.into_iter().filter(|row| row.name.contains(&wanted)).collect();
    let sides = side::start_all()?;
    for side in &sides {
        side.fill()
            .with_context(|| format!("{} could not be filled", side.name()))?;
    }
    let mut samples = Vec::new();
    for round in 1..=rounds {
        for row in &rows {
            for side in &sides {
                let sample = measure(side, *row, round, Duration::from_secs_f64(seconds))?;
                eprintln!("round {round} of {rounds}: {}: {}: {sample}", row.name, side.name());
                samples.push((row.name, side.name(), sample));
            }
        }
    }
    println!("{}", table::markdown(&rows, &samples));
    println!(
        "{rounds} rounds of {seconds} s, medians, maxima of all; {}",
        machine::describe()
    );
    Ok(())
}

fn measure(side: &Side, row: Row, round: usize, duration: Duration) -> anyhow::Result<Sample> {
    let mut addresses = side.addresses();
    let nodes = addresses.len();
    addresses.rotate_left(round % nodes);
    let load = Load {
        addresses,
        connections: row.connections,
        warmup: WARMUP,
        duration,
        rate_per_s: None,
        mix: Mix::only(row.operation),
        keys: if row.operation == Operation::Add {
            ADD_KEYS
        } else {
            GET_KEYS
        },
        distribution: Distribution::Uniform,
        seed: round as u64,
        drain: DRAIN,
    };
    let before = side.cpu()?;
    let report = side.drive(&load, row)?;
    let cpu = side.cpu()? - before;
    // A figure with errors in it would compare nothing.
    anyhow::ensure!(
        report.done > 0 && report.errors.is_empty(),
        "{} failed under load:\n{report}\n{}",
        side.name(),
        side.logs()
    );
    // The CPU is that of the warm-up too, and so are these.
    let all: u64 = report.timeline.iter().map(|second| second.done).sum();
    let operation = report.operations.values().next().context("no operation was measured")?;
    Ok(Sample {
        per_s: report.done_per_s,
        p50_us: operation.p50_us,
        p99_us: operation.p99_us,
        p99_9_us: operation.p99_9_us,
        max_us: operation.max_us,
        user_us: cpu.user_s * 1e6 / all as f64,
        system_us: cpu.system_s * 1e6 / all as f64,
    })
}

/// What is sent for a row: keys of adds and gets are apart.
fn payload(side_value_bytes: usize, operation: Operation) -> Payload {
    match operation {
        Operation::Add | Operation::Clear => Payload::new("add-", VALUE_BYTES, 1),
        Operation::Get => Payload::new(GET_PREFIX, side_value_bytes, 1),
    }
}
