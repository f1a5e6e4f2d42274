//! The steady load: adds and gets in turn, each due at its moment, from clients that know all nodes and ask another one first each.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kv_storage::bench::Payload;
use kv_storage::client::Client;
use parking_lot::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::node::cluster::Cluster;
use super::{LISTS, VALUE_BYTES, list_key};

/// Two for each node.
const CLIENTS: usize = 6;
/// Lists that grow.
pub const KEYS: u64 = 200;
const TICK: Duration = Duration::from_millis(1);

/// How one request ended.
#[derive(Debug, Clone)]
struct Done {
    due: Instant,
    took: Duration,
    error: Option<String>,
}

/// An add that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Acked {
    /// Its value begins with this.
    pub number: u64,
    pub at: Instant,
}

pub struct Load {
    shared: Arc<Shared>,
    generator: JoinHandle<()>,
}

struct Shared {
    clients: Vec<Client>,
    payload: Payload,
    rate_per_s: f64,
    stop: AtomicBool,
    done: Mutex<Vec<Done>>,
    acked: Mutex<Vec<Acked>>,
}

/// Which key add number `number` goes to. Every other request is an add.
pub fn key_number(number: u64) -> u64 {
    number / 2 % KEYS
}

pub fn key(key_number: u64) -> String {
    format!("grows-{key_number}")
}

/// The number in a value.
pub fn number_in(value: &str) -> Option<u64> {
    value.split_once(':')?.0.parse().ok()
}

impl Load {
    pub fn start(cluster: &Cluster, rate_per_s: f64) -> anyhow::Result<Self> {
        let clients = (0..CLIENTS)
            .map(|number| cluster.client(number))
            .collect::<Result<_, _>>()?;
        let shared = Arc::new(Shared {
            clients,
            payload: Payload::new("", VALUE_BYTES, 2),
            rate_per_s,
            stop: AtomicBool::new(false),
            done: Mutex::default(),
            acked: Mutex::default(),
        });
        let generator = tokio::spawn(generate(shared.clone()));
        Ok(Self { shared, generator })
    }

    /// Those acknowledged so far.
    pub fn acked(&self) -> Vec<Acked> {
        self.shared.acked.lock().clone()
    }

    /// Returns when every request has ended: only then the longest ones are known.
    pub async fn stop(self) -> anyhow::Result<Ended> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.generator.await?;
        Ok(Ended {
            acked: self.shared.acked.lock().clone(),
            done: self.shared.done.lock().clone(),
        })
    }
}

/// A load of which every request has ended.
pub struct Ended {
    pub acked: Vec<Acked>,
    done: Vec<Done>,
}

impl Ended {
    /// Of the requests that were due in between.
    pub fn due_in(&self, moments: &Range<Instant>) -> Stats {
        Stats::new(self.done.iter().filter(|done| moments.contains(&done.due)))
    }

    pub fn all(&self) -> Stats {
        Stats::new(self.done.iter())
    }
}

async fn generate(shared: Arc<Shared>) {
    let start = Instant::now();
    let mut requests = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    let mut next: u64 = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let due_now = (start.elapsed().as_secs_f64() * shared.rate_per_s) as u64;
        while next < due_now {
            let due = start + Duration::from_secs_f64(next as f64 / shared.rate_per_s);
            requests.spawn(request(shared.clone(), next, due));
            next += 1;
        }
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

async fn request(shared: Arc<Shared>, number: u64, due: Instant) {
    let client = &shared.clients[number as usize / 2 % CLIENTS];
    let outcome = if number.is_multiple_of(2) {
        let text = format!("{number}:");
        let value = format!("{text}{}", &shared.payload.value_text(number)[text.len()..]);
        client.add_value(&key(key_number(number)), &value).await
    } else {
        // Any order will do, as long as it is not that of the clients.
        client
            .get_value(&list_key(number.wrapping_mul(7919) % LISTS))
            .await
            .map(|_| ())
    };
    let now = Instant::now();
    if outcome.is_ok() && number.is_multiple_of(2) {
        shared.acked.lock().push(Acked { number, at: now });
    }
    shared.done.lock().push(Done {
        due,
        took: now - due,
        error: outcome.err().map(|error| error.to_string()),
    });
}

/// Times in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub count: usize,
    pub failed: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub first_error: Option<String>,
}

impl Stats {
    fn new<'a>(done: impl Iterator<Item = &'a Done>) -> Self {
        let mut stats = Self::default();
        let mut times_ms = Vec::new();
        for one in done {
            times_ms.push(one.took.as_secs_f64() * 1e3);
            stats.failed += usize::from(one.error.is_some());
            stats.first_error = stats.first_error.or_else(|| one.error.clone());
        }
        times_ms.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = times_ms.len().saturating_sub(1);
            times_ms
                .get((last as f64 * part).round() as usize)
                .copied()
                .unwrap_or(0.0)
        };
        stats.count = times_ms.len();
        (stats.p50_ms, stats.p99_ms, stats.max_ms) = (at(0.5), at(0.99), at(1.0));
        stats
    }
}
