//! One huge value and one huge list: what they cost a node in memory and time.
//!
//! `cargo bench --bench streaming`. `KV_STREAM_BYTES` (1 GiB) is the length of the value, `KV_STREAM_VALUES` (1,000,000) that of
//! the list. Fails when the node's memory grows by `KV_STREAM_GROWTH_BYTES` (64 MiB) or more.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

mod measure;
#[path = "../node/mod.rs"]
mod node;

use node::{MIB, Node, setting};

fn main() -> anyhow::Result<()> {
    // Test runners start bench targets too; measuring is not what they want.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench streaming`");
        return Ok(());
    }
    let value_bytes = setting("KV_STREAM_BYTES", 1024 * MIB)?;
    let values = setting("KV_STREAM_VALUES", 1_000_000)?;
    let growth_max = setting("KV_STREAM_GROWTH_BYTES", 64 * MIB)?;
    let node = Node::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(measure::measure(&node, value_bytes, values))?;
    let first = measured.first;
    println!(
        "| what | time | memory before | peak | peak over the first {} MiB |",
        first.resident / MIB
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    for row in &measured.rows {
        println!(
            "| {} | {:.2} s | {} MiB | {} MiB | {} MiB |",
            row.what,
            row.took.as_secs_f64(),
            row.before.resident / MIB,
            row.after.peak / MIB,
            row.growth_bytes(first) / MIB
        );
    }
    println!("\n| page of 1,000 at | time |\n| --- | ---: |");
    for page in &measured.pages {
        println!("| {} % | {:.1} ms |", page.at_percent, page.took.as_secs_f64() * 1e3);
    }
    let growth = measured.growth_bytes();
    anyhow::ensure!(
        growth < growth_max,
        "the node's memory grew by {} MiB, which is not less than {} MiB",
        growth / MIB,
        growth_max / MIB
    );
    println!("\nmemory grew by {} MiB at most", growth / MIB);
    Ok(())
}
