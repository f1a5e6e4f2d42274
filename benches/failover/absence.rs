//! A node that dies and is started again, or that freezes and goes on, under load.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::lists::{Expected, judge};
use super::load::{Ended, Load};
use super::node::MIB;
use super::node::cluster::{Cluster, NODES};
use super::table::{Table, seconds};
use super::{SYNC_TIMEOUT, Settings, start};

/// The bars.
const KILL_STALL_S_MAX: f64 = 2.0;
const FREEZE_STALL_S_MAX: f64 = 1.0;
const SYNC_S_MAX: f64 = 5.0;
/// What counts as flat: the load itself fills memtables meanwhile.
const GROWTH_BYTES_MAX: u64 = 32 * MIB;

const BEFORE: Duration = Duration::from_secs(3);
/// What is due so shortly before it leaves may wait for it.
const EDGE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// `kill -9`, then started again.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Freeze,
}

/// One absence.
struct Round {
    before: Range<Instant>,
    /// From its beginning until the node was in sync again.
    during: Range<Instant>,
    ready_s: f64,
    /// None: not within `SYNC_TIMEOUT`.
    sync_s: Option<f64>,
    said_s: Option<f64>,
    /// Of the other nodes, whichever grew most.
    growth_bytes: u64,
}

pub async fn measure(how: How, settings: Settings, table: &mut Table) -> anyhow::Result<()> {
    let mut cluster = start().await?;
    let load = Load::start(&cluster, settings.rate_per_s)?;
    let mut rounds = Vec::new();
    for number in 0..settings.rounds {
        let node = number % NODES;
        let round = round(&mut cluster, &load, how, node, settings.away).await?;
        eprintln!(
            "{how:?}, node {}: ready after {:.2} s, in sync after {}, says so after {}; others grew {} MiB",
            node + 1,
            round.ready_s,
            or_never(round.sync_s),
            or_never(round.said_s),
            round.growth_bytes / MIB
        );
        rounds.push(round);
    }
    let ended = load.stop().await?;
    tell(how, &rounds, &ended);
    let verdict = judge(&cluster, &ended.acked).await?;
    show(how, &rounds, &ended, table);
    let (all, acked) = (ended.all(), &ended.acked);
    let what = name(how);
    table.count(&format!("{what}: failed requests of {}", all.count), all.failed);
    table.count(
        &format!("{what}: values that came twice, of {}", acked.len()),
        verdict.doubled,
    );
    table.count(&format!("{what}: acknowledged values that are lost"), verdict.lost);
    table.count(
        &format!("{what}: lists that differ between nodes at the end"),
        verdict.unequal,
    );
    if verdict.lost + verdict.doubled + verdict.unequal > 0 {
        eprintln!("{}", cluster.logs());
    }
    Ok(())
}

fn name(how: How) -> &'static str {
    match how {
        How::Kill => "kill -9",
        How::Freeze => "SIGSTOP",
    }
}

fn or_never(time_s: Option<f64>) -> String {
    time_s.map_or_else(|| format!("more than {} s", SYNC_TIMEOUT.as_secs()), seconds)
}

/// What became of the requests.
fn tell(how: How, rounds: &[Round], ended: &Ended) {
    for (number, round) in rounds.iter().enumerate() {
        let (before, during) = (ended.due_in(&round.before), ended.due_in(&round.during));
        let error = during
            .first_error
            .map_or_else(String::new, |error| format!(" ({error})"));
        eprintln!(
            "{how:?}, node {}: {} requests before: p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms; {} during: p50 {:.1} ms, p99 {:.1} ms, max \
             {:.0} ms, {} failed{error}",
            number % NODES + 1,
            before.count,
            before.p50_ms,
            before.p99_ms,
            before.max_ms,
            during.count,
            during.p50_ms,
            during.p99_ms,
            during.max_ms,
            during.failed,
        );
    }
}

fn show(how: How, rounds: &[Round], ended: &Ended, table: &mut Table) {
    let what = name(how);
    let all = |figure: fn(&Round) -> f64| -> Vec<f64> { rounds.iter().map(figure).collect() };
    let never = SYNC_TIMEOUT.as_secs_f64();
    let stall_max = match how {
        How::Kill => KILL_STALL_S_MAX,
        How::Freeze => FREEZE_STALL_S_MAX,
    };
    let longest = |due: fn(&Round) -> &Range<Instant>| -> Vec<f64> {
        let rounds = rounds.iter();
        rounds.map(|round| ended.due_in(due(round)).max_ms / 1e3).collect()
    };
    let stalls = longest(|round| &round.during);
    table.times(&format!("{what}: longest stall of a request"), &stalls, Some(stall_max));
    let before = longest(|round| &round.before);
    table.times(
        &format!("{what}: the same in the {} s before", BEFORE.as_secs()),
        &before,
        None,
    );
    table.times(
        &format!("{what}: back until ready"),
        &all(|round| round.ready_s),
        Some(SYNC_S_MAX),
    );
    let synced: Vec<f64> = rounds.iter().map(|round| round.sync_s.unwrap_or(never)).collect();
    table.times(
        &format!("{what}: back until it holds all it missed"),
        &synced,
        Some(SYNC_S_MAX),
    );
    let said: Vec<f64> = rounds.iter().map(|round| round.said_s.unwrap_or(never)).collect();
    table.times(
        &format!("{what}: back until its status says so"),
        &said,
        Some(SYNC_S_MAX),
    );
    let growth: Vec<f64> = all(|round| round.growth_bytes as f64);
    table.memory(
        &format!("{what}: growth of another node's memory"),
        &growth,
        GROWTH_BYTES_MAX as f64,
    );
}

async fn round(cluster: &mut Cluster, load: &Load, how: How, node: usize, away: Duration) -> anyhow::Result<Round> {
    let start = Instant::now();
    tokio::time::sleep(BEFORE).await;
    let memory = memory_of_others(cluster, node)?;
    let left = Instant::now();
    match how {
        How::Kill => cluster.nodes[node].kill()?,
        How::Freeze => cluster.nodes[node].freeze()?,
    }
    let mut growth_bytes = 0;
    while left.elapsed() < away {
        tokio::time::sleep(LOOK).await;
        for (before, now) in memory.iter().zip(memory_of_others(cluster, node)?) {
            growth_bytes = growth_bytes.max(now.saturating_sub(*before));
        }
    }
    let back = Instant::now();
    let expected = Expected::new(&load.acked(), back);
    match how {
        How::Kill => cluster.nodes[node].start()?,
        How::Freeze => cluster.nodes[node].thaw()?,
    }
    let node = &cluster.nodes[node];
    while !node.is_ready().await {
        anyhow::ensure!(
            back.elapsed() < SYNC_TIMEOUT,
            "the node does not become ready:\n{}",
            cluster.logs()
        );
        tokio::time::sleep(POLL).await;
    }
    let ready_s = back.elapsed().as_secs_f64();
    let synced = expected.wait_until_held(node).await?;
    let mut said_s = None;
    while said_s.is_none() && back.elapsed() < SYNC_TIMEOUT {
        if node.says_it_is_in_sync().await {
            said_s = Some(back.elapsed().as_secs_f64());
        } else {
            tokio::time::sleep(LOOK).await;
        }
    }
    tokio::time::sleep(AFTER).await;
    Ok(Round {
        before: start..left - EDGE,
        during: left - EDGE..Instant::now(),
        ready_s,
        sync_s: synced.map(|at| (at - back).as_secs_f64()),
        said_s,
        growth_bytes,
    })
}

fn memory_of_others(cluster: &Cluster, node: usize) -> anyhow::Result<Vec<u64>> {
    let others = cluster.nodes.iter().enumerate().filter(|(index, _)| *index != node);
    others.map(|(_, other)| Ok(other.memory()?.resident)).collect()
}
