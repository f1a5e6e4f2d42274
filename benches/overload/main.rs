//! What a node does with four times the load that it can carry.
//!
//! `cargo bench --bench overload`. First the peak: 64 connections, each sending when it has its answer. Then four times as many
//! operations a second, over many connections, each due at its moment. Then the peak once more: what the machine has to give changes
//! while this runs, so the throughput in between is compared with the mean of both. `KV_OVERLOAD_SECONDS` (10) is the length of each part,
//! `KV_OVERLOAD_CONNECTIONS` (1000) the connections of the second, `KV_OVERLOAD_TIMES` (4) how many times the first peak.
//!
//! Two times are shown for what was served: from when it was sent, which is the node's own, and from when it was due, which also has
//! what it waited in the generator while every connection was still waiting for an answer.
//!
//! Node and generator share the machine. What the generator could not send at its moment, because the machine had no more to give,
//! is shown as never sent.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

#[path = "../node/mod.rs"]
mod node;

use std::time::Duration;

use kv_storage::api;
use kv_storage::bench::{Distribution, Load, Mix, Operation, Payload, Report, run, thousands, time};

use node::{MIB, Node, setting};

const PEAK_CONNECTIONS: usize = 64;
const KEYS: u64 = 20_000;
const LIST_LENGTH: u64 = 4;
const VALUE_BYTES: usize = 100;
const WARMUP: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(10);

/// The bars: of the mean throughput of the peaks before and afterwards, times the p99 of the one before, and memory beyond that one's.
const THROUGHPUT_PART_MIN: f64 = 0.9;
const P99_TIMES_MAX: f64 = 10.0;
const GROWTH_BYTES_MAX: u64 = 64 * MIB;
/// What counts as prompt for a refusal.
const REFUSAL_P99_US_MAX: f64 = 100_000.0;

struct Part {
    report: Report,
    /// The most memory at the end of a second.
    resident_max: u64,
}

fn main() -> anyhow::Result<()> {
    // Test runners start bench targets too; measuring is not what they want.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench overload`");
        return Ok(());
    }
    kv_storage::os::limits::raise_open_files()?;
    let duration = Duration::from_secs_f64(setting("KV_OVERLOAD_SECONDS", 10.0)?);
    let connections = setting("KV_OVERLOAD_CONNECTIONS", 1000)?;
    let times: f64 = setting("KV_OVERLOAD_TIMES", 4.0)?;
    let mut failed = Vec::new();
    for operation in [Operation::Add, Operation::Get] {
        let node = Node::start()?;
        let payload = Payload::new("key-", VALUE_BYTES, 1);
        if operation == Operation::Get {
            fill(&node, &payload)?;
        }
        let part = |connections, rate_per_s| measure(&node, &payload, operation, connections, duration, rate_per_s);
        println!("\n## {}\n", operation.name());
        let peak = part(PEAK_CONNECTIONS, None)?;
        show("peak", &peak);
        let overload = part(connections, Some(peak.report.done_per_s * times))?;
        show(&format!("{times} times the peak"), &overload);
        let after = part(PEAK_CONNECTIONS, None)?;
        show("afterwards", &after);
        failed.extend(judge(operation, &peak, &overload, &after));
    }
    anyhow::ensure!(failed.is_empty(), "missed: {}", failed.join("; "));
    Ok(())
}

fn fill(node: &Node, payload: &Payload) -> anyhow::Result<()> {
    let client = node.client()?;
    let add = |number: u64| api::Operation::AddValue {
        key: payload.key_text(number % KEYS).into(),
        value: payload.value_text(number).into(),
        finish_value: true,
        request_id: None,
        terms: api::OperationTerms::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for start in (0..KEYS * LIST_LENGTH).step_by(1000) {
            let mut adds: Vec<_> = (start..start + 1000).map(add).collect();
            for result in client.batch(&mut adds).await? {
                result?;
            }
        }
        Ok(())
    })
}

fn measure(
    node: &Node,
    payload: &Payload,
    operation: Operation,
    connections: usize,
    duration: Duration,
    rate_per_s: Option<f64>,
) -> anyhow::Result<Part> {
    let protocol = node.protocol(payload)?;
    let load = Load {
        addresses: vec![node.address],
        connections,
        // With a rate that cannot be kept up, what is sent after the warm-up was due in it, and would not count.
        warmup: if rate_per_s.is_some() { Duration::ZERO } else { WARMUP },
        duration,
        rate_per_s,
        mix: Mix::only(operation),
        keys: KEYS,
        distribution: Distribution::Uniform,
        seed: 1,
        drain: DRAIN,
    };
    let mut resident_max = 0;
    let report = run(
        &load,
        |_| protocol.clone(),
        |_| {
            let resident = node.memory().map_or(0, |memory| memory.resident);
            resident_max = resident_max.max(resident);
        },
    )?;
    Ok(Part { report, resident_max })
}

fn show(what: &str, part: &Part) {
    let Part { report, resident_max } = part;
    let due_p99_us = report.operations.values().next().map_or(0.0, |found| found.p99_us);
    println!(
        "{what}: {} connections, {} a second served: p50 {}, p99 {}, max {} from sending, p99 {} from when due",
        report.connections,
        thousands(report.done_per_s),
        time(report.served.p50_us),
        time(report.served.p99_us),
        time(report.served.max_us),
        time(due_p99_us),
    );
    println!(
        "  {} a second refused: p50 {}, p99 {}; never sent {} a second; memory at most {} MiB",
        thousands(report.refused.count as f64 / report.seconds),
        time(report.refused.p50_us),
        time(report.refused.p99_us),
        thousands(report.never_sent as f64 / report.seconds),
        resident_max / MIB
    );
    for (reason, count) in &report.errors {
        println!("  {reason}: {}", thousands(*count as f64));
    }
}

/// The bars that were missed.
fn judge(operation: Operation, peak: &Part, overload: &Part, after: &Part) -> Vec<String> {
    let peaks_per_s = [peak, after].map(|peak| peak.report.done_per_s);
    let part = overload.report.done_per_s / (peaks_per_s.iter().sum::<f64>() / peaks_per_s.len() as f64);
    let p99_times = overload.report.served.p99_us / peak.report.served.p99_us;
    let growth = overload.resident_max.saturating_sub(peak.resident_max);
    let refusal_p99_us = overload.report.refused.p99_us;
    let only_503 = overload.report.errors.keys().all(|reason| reason == "503");
    let bars = [
        (
            part >= THROUGHPUT_PART_MIN,
            format!(
                "throughput {:.0} % of the peak's (the mean of {} and, afterwards, {} a second)",
                part * 100.0,
                thousands(peaks_per_s[0]),
                thousands(peaks_per_s[1])
            ),
        ),
        (
            p99_times < P99_TIMES_MAX,
            format!("p99 {p99_times:.1} times the peak's"),
        ),
        (
            growth < GROWTH_BYTES_MAX,
            format!("memory {} MiB over the peak's", growth / MIB),
        ),
        (
            refusal_p99_us < REFUSAL_P99_US_MAX,
            format!("refused within {}", time(refusal_p99_us)),
        ),
        (only_503, "nothing but 200 and 503".to_owned()),
    ];
    let mut missed = Vec::new();
    println!();
    for (is_met, what) in bars {
        println!("{} {what}", if is_met { "met:   " } else { "MISSED:" });
        if !is_met {
            missed.push(format!("{}: {what}", operation.name()));
        }
    }
    missed
}
