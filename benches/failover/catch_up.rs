//! A node that is away while much is written: what its return costs on the wire, and the clients.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kv_storage::api::{Operation, OperationTerms};
use kv_storage::bench::Payload;
use kv_storage::client::Client;
use tokio::task::JoinSet;

use super::lists::Expected;
use super::load::{Load, key, key_number};
use super::node::USER;
use super::node::cluster::{Cluster, NODES};
use super::table::Table;
use super::wire::Received;
use super::{SYNC_TIMEOUT, Settings, VALUE_BYTES, start};

/// The bars.
const SHIPPED_TIMES_MAX: f64 = 1.1;
const P99_TIMES_MAX: f64 = 2.0;

const MISSED_VALUE_BYTES: usize = 1000;
const MISSED_KEYS: u64 = 1000;
/// Values in one request.
const BATCH: u64 = 50;
const WRITERS: usize = 8;
const BEFORE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// What follows a return is watched for at least so long: a p99 of less says nothing.
const AFTER_MIN: Duration = Duration::from_secs(1);

struct Round {
    sync_s: f64,
    shipped_bytes: Option<f64>,
    missed_bytes: f64,
    p99_before_ms: f64,
    p99_ms: f64,
    failed: usize,
}

pub async fn measure(settings: Settings, table: &mut Table) -> anyhow::Result<()> {
    let mut rounds = Vec::new();
    for number in 0..settings.rounds {
        let round = round(settings, number % NODES).await?;
        eprintln!(
            "catch-up, node {}: {:.1} MB missed, {} received, in {:.2} s; p99 {:.1} ms before, {:.1} ms during; {} failed",
            number % NODES + 1,
            round.missed_bytes / 1e6,
            round
                .shipped_bytes
                .map_or_else(|| "?".to_owned(), |bytes| format!("{:.1} MB", bytes / 1e6)),
            round.sync_s,
            round.p99_before_ms,
            round.p99_ms,
            round.failed
        );
        rounds.push(round);
    }
    let missed = format!("{} MB missed", settings.missed_bytes / 1_000_000);
    let all = |figure: fn(&Round) -> f64| -> Vec<f64> { rounds.iter().map(figure).collect() };
    table.times(
        &format!("{missed}: back until it holds them"),
        &all(|round| round.sync_s),
        None,
    );
    let shipped: Vec<f64> = rounds
        .iter()
        .filter_map(|round| Some(round.shipped_bytes? / round.missed_bytes))
        .collect();
    table.ratios(
        &format!("{missed}: bytes shipped, times bytes missed"),
        &shipped,
        SHIPPED_TIMES_MAX,
    );
    let p99 = all(|round| round.p99_ms / round.p99_before_ms);
    table.ratios(
        &format!("{missed}: clients' p99 meanwhile, times that before"),
        &p99,
        P99_TIMES_MAX,
    );
    table.count(
        &format!("{missed}: failed requests"),
        rounds.iter().map(|round| round.failed).sum(),
    );
    Ok(())
}

async fn round(settings: Settings, node: usize) -> anyhow::Result<Round> {
    let mut cluster = start().await?;
    let load = Load::start(&cluster, settings.rate_per_s)?;
    // The first second is warm-up.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let steady = Received::start(&cluster, node);
    let before = Instant::now();
    tokio::time::sleep(BEFORE).await;
    let live_per_s = steady.stop().await?.map(|bytes| bytes / before.elapsed().as_secs_f64());
    let left = Instant::now();
    cluster.nodes[node].kill()?;
    let lengths = write(&cluster, node, settings.missed_bytes / MISSED_VALUE_BYTES as u64).await?;
    let mut missed_bytes = 0.0;
    for (key, count) in &lengths {
        missed_bytes += (key.len() + USER.len() + MISSED_VALUE_BYTES) as f64 * *count as f64;
    }
    let back = Instant::now();
    let acked = load.acked();
    for add in acked.iter().filter(|add| (left..back).contains(&add.at)) {
        missed_bytes += (key(key_number(add.number)).len() + USER.len() + VALUE_BYTES) as f64;
    }
    cluster.nodes[node].start()?;
    let received = Received::start(&cluster, node);
    let expected = Expected::new(&acked, back).with_lengths(lengths);
    while !cluster.nodes[node].is_ready().await {
        anyhow::ensure!(
            back.elapsed() < SYNC_TIMEOUT,
            "the node does not become ready:\n{}",
            cluster.logs()
        );
        tokio::time::sleep(LOOK).await;
    }
    let synced = expected.wait_until_held(&cluster.nodes[node]).await?;
    let sync_s = synced.map_or(SYNC_TIMEOUT, |at| at - back).as_secs_f64();
    let live_bytes = live_per_s.map(|per_s| per_s * back.elapsed().as_secs_f64());
    let received = received.stop().await?;
    tokio::time::sleep(AFTER_MIN.saturating_sub(back.elapsed())).await;
    let seen = Instant::now();
    let ended = load.stop().await?;
    Ok(Round {
        sync_s,
        // What came live meanwhile is not part of it.
        shipped_bytes: received.zip(live_bytes).map(|(received, live)| received - live),
        missed_bytes,
        p99_before_ms: ended.due_in(&(before..left)).p99_ms,
        p99_ms: ended.due_in(&(back..seen)).p99_ms,
        failed: ended.all().failed,
    })
}

/// So many values, in turn to each key, through the other nodes. Lengths of the lists.
async fn write(cluster: &Cluster, away: usize, values: u64) -> anyhow::Result<BTreeMap<String, u64>> {
    let payload = Payload::new("missed-", MISSED_VALUE_BYTES, 3);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = cluster.client(away + 1 + writer % (NODES - 1))?;
        let starts = (writer as u64 * BATCH..values).step_by(WRITERS * BATCH as usize);
        let payload = payload.clone();
        writers.spawn(async move {
            for start in starts {
                add(&client, &payload, start..(start + BATCH).min(values)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    let mut lengths = BTreeMap::new();
    for value in 0..values {
        *lengths.entry(payload.key_text(value % MISSED_KEYS)).or_default() += 1;
    }
    Ok(lengths)
}

async fn add(client: &Client, payload: &Payload, values: std::ops::Range<u64>) -> anyhow::Result<()> {
    let add = |value: u64| Operation::AddValue {
        key: payload.key_text(value % MISSED_KEYS).into(),
        value: payload.value_text(value.wrapping_mul(7919)).into(),
        finish_value: true,
        request_id: None,
        terms: OperationTerms::default(),
    };
    let mut adds: Vec<_> = values.map(add).collect();
    for result in client.batch(&mut adds).await? {
        result?;
    }
    Ok(())
}
