//! What a cluster sends that is in sync and has nothing to do.

use std::time::{Duration, Instant};

use super::node::cluster::NODES;
use super::table::Table;
use super::wire::{Received, datagrams, loopback};
use super::{SYNC_TIMEOUT, start};

/// The bar, for each pair of nodes.
const BYTES_PER_S_MAX: f64 = 2_000.0;

const SETTLE: Duration = Duration::from_secs(5);
const WATCH: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);
const PAIRS: f64 = (NODES * (NODES - 1) / 2) as f64;

/// `alone`: nobody else uses this loopback.
pub async fn measure(alone: bool, table: &mut Table) -> anyhow::Result<()> {
    let cluster = start().await?;
    let started = Instant::now();
    for node in &cluster.nodes {
        while !node.says_it_is_in_sync().await && started.elapsed() < SYNC_TIMEOUT {
            tokio::time::sleep(LOOK).await;
        }
    }
    tokio::time::sleep(SETTLE).await;
    let (before, datagrams_before) = (loopback()?, datagrams()?);
    let watched: Vec<Received> = (0..NODES).map(|node| Received::start(&cluster, node)).collect();
    let began = Instant::now();
    tokio::time::sleep(WATCH).await;
    let seconds = began.elapsed().as_secs_f64();
    let (after, datagrams_after) = (loopback()?, datagrams()?);
    let mut tcp_bytes = Some(0.0);
    for received in watched {
        tcp_bytes = received.stop().await?.zip(tcp_bytes).map(|(one, sum)| one + sum);
    }
    let per_pair = |count: f64| count / seconds / PAIRS;
    if let Some(tcp_bytes) = tcp_bytes {
        table.bytes_per_s(
            "idle: text of the peers' connections, for each pair",
            per_pair(tcp_bytes),
            BYTES_PER_S_MAX,
        );
    }
    if alone {
        let bytes = per_pair((after.0 - before.0) as f64);
        table.bytes_per_s(
            "idle: all, with gossip and headers, for each pair",
            bytes,
            BYTES_PER_S_MAX,
        );
        eprintln!(
            "idle, for each pair: {:.1} packets/s, of which {:.1} datagrams/s",
            per_pair((after.1 - before.1) as f64),
            per_pair((datagrams_after - datagrams_before) as f64)
        );
    }
    Ok(())
}
