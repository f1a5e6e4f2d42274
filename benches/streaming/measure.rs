//! What a node's memory and time are while one huge value and one huge list go in and come out.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use kv_storage::api::{Operation, OperationTerms};
use kv_storage::bench::Payload;
use kv_storage::client::{Client, Page};

use super::node::{MIB, Memory, Node};

/// Parts as the client and the command line send them.
const PART_BYTES: u64 = MIB;
/// The same for values of the list, and how many go into one batch.
const LISTED_BYTES: u64 = 100;
const BATCH: u64 = 200;
const BATCHES_IN_FLIGHT: usize = 128;
const PAGE: u64 = 1_000;
/// Pages read at each place; the quickest counts, for the others met what else the machine does.
const PAGES_EACH: usize = 5;

/// One step of the measurement.
pub struct Row {
    pub what: String,
    pub took: Duration,
    pub before: Memory,
    /// Its peak is that of the step.
    pub after: Memory,
}

impl Row {
    /// How much more memory than at first the node held at some moment of the step.
    pub fn growth_bytes(&self, first: Memory) -> u64 {
        self.after.peak.saturating_sub(first.resident)
    }
}

/// Time of a page of the list, by the part of the list before it, in percent.
pub struct PageTime {
    pub at_percent: u64,
    pub took: Duration,
}

pub struct Measured {
    /// When the node had started and answered once.
    pub first: Memory,
    pub rows: Vec<Row>,
    pub pages: Vec<PageTime>,
}

impl Measured {
    pub fn growth_bytes(&self) -> u64 {
        self.rows
            .iter()
            .map(|row| row.growth_bytes(self.first))
            .max()
            .unwrap_or(0)
    }
}

struct Run<'n> {
    node: &'n Node,
    client: Client,
    rows: Vec<Row>,
}

impl Run<'_> {
    async fn step(&mut self, what: String, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        self.node.forget_peak()?;
        let (before, started) = (self.node.memory()?, Instant::now());
        work.await.with_context(|| what.clone())?;
        let (took, after) = (started.elapsed(), self.node.memory()?);
        eprintln!("{what}: {took:.2?}, at most {} MiB", after.peak / MIB);
        let row = Row {
            what,
            took,
            before,
            after,
        };
        self.rows.push(row);
        Ok(())
    }
}

/// Stores a value of `value_bytes` from parts and a list of `values`, and reads both back; every byte is checked.
pub async fn measure(node: &Node, value_bytes: u64, values: u64) -> anyhow::Result<Measured> {
    let client = node.client()?;
    client.add_value("warm", "up").await?;
    client.get_value("warm").await?;
    let first = node.memory()?;
    let mut run = Run {
        node,
        client: client.clone(),
        rows: Vec::new(),
    };
    let mib = value_bytes / MIB;
    run.step(format!("store a value of {mib} MiB"), store_value(&client, value_bytes))
        .await?;
    for _ in 0..2 {
        run.step(format!("read the value of {mib} MiB"), read_value(&client, value_bytes))
            .await?;
    }
    run.step(format!("store a list of {values}"), store_list(node, values))
        .await?;
    let mut order = Vec::new();
    for _ in 0..2 {
        run.step(
            format!("read the list of {values}"),
            read_list(&client, values, &mut order),
        )
        .await?;
    }
    let mut pages = Vec::new();
    let client = run.client.clone();
    run.step(format!("read pages of {PAGE}"), async {
        for at_percent in [0, 25, 50, 75, 99] {
            pages.push(page_time(&client, &order, at_percent).await?);
        }
        Ok(())
    })
    .await?;
    Ok(Measured {
        first,
        rows: run.rows,
        pages,
    })
}

/// Texts that do not compress, each cut from another place.
fn payload(bytes: u64) -> Payload {
    Payload::new("", bytes as usize, 7)
}

/// Where part or value number `index` is cut: far from its neighbours', and another one for each.
fn cut(index: u64) -> u64 {
    index.wrapping_mul(7_919)
}

async fn store_value(client: &Client, value_bytes: u64) -> anyhow::Result<()> {
    let payload = payload(PART_BYTES);
    let parts = value_bytes / PART_BYTES;
    for index in 0..parts {
        let request_id = format!("part-{index}");
        let finish = index + 1 == parts;
        client
            .add_one("large", payload.value_text(cut(index)), finish, &request_id)
            .await?;
    }
    Ok(())
}

async fn read_value(client: &Client, value_bytes: u64) -> anyhow::Result<()> {
    let payload = payload(PART_BYTES);
    let mut stream = client.get_value_stream("large", Page::default()).await?;
    let mut at = 0;
    let mut ended = 0;
    while let Some(piece) = stream.next_piece().await? {
        let mut rest = piece.text.as_bytes();
        while !rest.is_empty() {
            let (index, offset) = (at / PART_BYTES, (at % PART_BYTES) as usize);
            let part = &payload.value(cut(index))[offset..];
            let (now, later) = rest.split_at(rest.len().min(part.len()));
            anyhow::ensure!(part.starts_with(now), "the value is another at byte {at}");
            at += now.len() as u64;
            rest = later;
        }
        ended += u64::from(piece.ends_value);
    }
    anyhow::ensure!((at, ended) == (value_bytes, 1), "{at} bytes in {ended} values");
    Ok(())
}

/// Adds of one batch to one key wait for one another, so batches are sent side by side; the order of the list is theirs. Without
/// request ids, which the client would give: looking for an id in the past of so long a list is what another measurement is for.
async fn store_list(node: &Node, values: u64) -> anyhow::Result<()> {
    let batches = (0..values).step_by(BATCH as usize);
    let sent = batches.map(|start| store_batch(node, start..(start + BATCH).min(values)));
    stream::iter(sent)
        .buffer_unordered(BATCHES_IN_FLIGHT)
        .try_collect::<()>()
        .await
}

async fn store_batch(node: &Node, indexes: Range<u64>) -> anyhow::Result<()> {
    let payload = payload(LISTED_BYTES);
    let count = indexes.end - indexes.start;
    let add = |index| Operation::AddValue {
        key: "list".into(),
        value: listed(&payload, index).into(),
        finish_value: true,
        request_id: None,
        terms: OperationTerms::default(),
    };
    let answer = node.batch(indexes.map(add).collect()).await?;
    let done = answer.matches("\"status_code\":200").count() as u64;
    anyhow::ensure!(done == count, "{done} of {count} were stored: {answer}");
    Ok(())
}

fn listed(payload: &Payload, index: u64) -> String {
    format!("{index:09} {}", payload.value_text(cut(index)))
}

/// The order of the list, after every value was found to be there once.
async fn read_list(client: &Client, values: u64, order: &mut Vec<u64>) -> anyhow::Result<()> {
    let payload = payload(LISTED_BYTES);
    let mut stream = client.get_value_stream("list", Page::default()).await?;
    order.clear();
    while let Some(value) = stream.next_value().await? {
        let index = value
            .get(..9)
            .and_then(|digits| digits.parse().ok())
            .context("no index")?;
        anyhow::ensure!(value == listed(&payload, index), "value {index} is another");
        order.push(index);
    }
    let mut sorted = order.clone();
    sorted.sort_unstable();
    anyhow::ensure!(sorted.into_iter().eq(0..values), "not every value is there once");
    Ok(())
}

async fn page_time(client: &Client, order: &[u64], at_percent: u64) -> anyhow::Result<PageTime> {
    let payload = payload(LISTED_BYTES);
    let offset = order.len() as u64 * at_percent / 100;
    let expected: Vec<String> = order
        .iter()
        .skip(offset as usize)
        .take(PAGE as usize)
        .map(|index| listed(&payload, *index))
        .collect();
    let page = Page {
        offset,
        limit: Some(PAGE),
    };
    let mut took = Duration::MAX;
    for _ in 0..PAGES_EACH {
        let started = Instant::now();
        let got = client.get_value_page("list", page).await?;
        took = took.min(started.elapsed());
        anyhow::ensure!(got == expected, "the page at {offset} is another");
    }
    Ok(PageTime { at_percent, took })
}
