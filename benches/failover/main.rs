//! A node of three that dies, freezes, or comes back to what it missed, under a steady load from clients that know all three.
//!
//! `cargo bench --bench failover`. `KV_FAILOVER_ROUNDS` (3): how often each, every time with another node. `KV_FAILOVER_AWAY_S` (10): how
//! long it is away. `KV_FAILOVER_RATE` (1000): operations a second, half of them adds. `KV_FAILOVER_MISSED_MB` (50): what is written
//! before a node comes back. `KV_FAILOVER_ONLY`: some of idle, kill, freeze, catch-up, with commas between.
//!
//! What keeps it honest:
//! - each request is due at its moment and is timed from then, whether or not others still wait;
//! - every value names its add, so that what was lost or came twice is seen in the lists themselves, of each node by itself;
//! - a node counts as in sync when it holds, by itself, every value that was acknowledged before it came back;
//! - bytes are those that the kernel counts: of the node's own sockets (`ss`), and of the whole loopback in a network namespace of this
//!   run alone.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

mod absence;
mod catch_up;
mod idle;
mod lists;
mod load;
mod namespace;
#[path = "../node/mod.rs"]
mod node;
mod table;
mod wire;

use std::time::Duration;

use kv_storage::bench::Payload;
use kv_storage::client::Client;

use absence::How;
use node::cluster::{Cluster, NODES};
use node::setting;
use table::Table;

/// Keys that are read: lists that do not change.
pub const LISTS: u64 = 500;
pub const LIST_LENGTH: u64 = 4;
pub const VALUE_BYTES: usize = 100;
/// A node that is not in sync after so long will not be.
pub const SYNC_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub rounds: usize,
    pub away: Duration,
    pub rate_per_s: f64,
    pub missed_bytes: u64,
}

fn main() -> anyhow::Result<()> {
    // Test runners start bench targets too; measuring is not what they want.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench failover`");
        return Ok(());
    }
    let alone = namespace::enter();
    let settings = Settings {
        rounds: setting("KV_FAILOVER_ROUNDS", 3)?,
        away: Duration::from_secs_f64(setting("KV_FAILOVER_AWAY_S", 10.0)?),
        rate_per_s: setting("KV_FAILOVER_RATE", 1000.0)?,
        missed_bytes: setting("KV_FAILOVER_MISSED_MB", 50)? * 1_000_000,
    };
    let only = std::env::var("KV_FAILOVER_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|one| one.trim() == name);
    let mut table = Table::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if wanted("kill") {
            absence::measure(How::Kill, settings, &mut table).await?;
        }
        if wanted("freeze") {
            absence::measure(How::Freeze, settings, &mut table).await?;
        }
        if wanted("catch-up") {
            catch_up::measure(settings, &mut table).await?;
        }
        if wanted("idle") {
            idle::measure(alone, &mut table).await?;
        }
        anyhow::Ok(())
    })?;
    println!("{table}");
    println!(
        "{} rounds, {} operations a second over {NODES} nodes, half of them adds of {VALUE_BYTES} bytes; medians, and the worst in brackets",
        settings.rounds, settings.rate_per_s
    );
    Ok(())
}

/// A cluster with lists to read.
async fn start() -> anyhow::Result<Cluster> {
    let cluster = Cluster::start().await?;
    let client = cluster.client(0)?;
    let payload = Payload::new("", VALUE_BYTES, 1);
    for list in 0..LISTS {
        fill(&client, &payload, list).await?;
    }
    Ok(cluster)
}

async fn fill(client: &Client, payload: &Payload, list: u64) -> anyhow::Result<()> {
    for number in 0..LIST_LENGTH {
        let value = payload.value_text(list * LIST_LENGTH + number);
        client.add_value(&list_key(list), value).await?;
    }
    Ok(())
}

fn list_key(list: u64) -> String {
    format!("list-{list}")
}
