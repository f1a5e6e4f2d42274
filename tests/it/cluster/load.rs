//! Writers that remember what was acknowledged. None of their requests may fail.
//!
//! Each has keys of its own, whose content it knows exactly at any time, and one key is everybody's. They use the client of this
//! repository, which knows all nodes. `KV_CLUSTER_SEED` makes them do other things, `KV_CLUSTER_LENGTH` more of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kv_storage::client::Client;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::rig::{Cluster, ensure, number_from, wait_for};
use crate::common::Chance;
use crate::common::calls::Caller;

pub const WRITERS: u64 = 4;
const KEYS_PER_WRITER: u64 = 3;
pub const SHARED_KEY: &str = "shared";
/// Between two requests of a writer: the machine has other things to do.
pub const PAUSE: Duration = Duration::from_millis(4);

/// What the writers do.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Longest text, bytes.
    pub text_max: u64,
    pub clears: bool,
    /// They try for as long as it takes, also while no node is there.
    pub patient: bool,
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            text_max: 100,
            clears: true,
            patient: false,
        }
    }
}

#[derive(Default, Clone)]
struct Remembered {
    values: Vec<String>,
    open: String,
}

struct Writer {
    id: u64,
    kind: Kind,
    chance: Chance,
    client: Client,
    keys: Vec<Remembered>,
    shared: Vec<String>,
    sent: u64,
}

impl Writer {
    async fn act(&mut self) {
        let index = self.chance.below(KEYS_PER_WRITER);
        match self.chance.below(100) {
            0..45 => self.add(index, true).await,
            45..60 => self.add(index, false).await,
            60..75 => self.add_shared().await,
            75..80 if self.kind.clears => {
                let cleared = self.client.clear_key(&self.key(index)).await;
                cleared.unwrap_or_else(|error| panic!("a clear failed: {error}"));
                self.keys[index as usize] = Remembered::default();
            }
            _ => self.check(index).await,
        }
    }

    fn key(&self, index: u64) -> String {
        format!("writer {} key {index}", self.id)
    }

    fn next_text(&mut self) -> String {
        self.sent += 1;
        let filler = self.chance.below(self.kind.text_max) as usize;
        format!("{}-{} {};", self.id, self.sent, "x".repeat(filler))
    }

    async fn add(&mut self, index: u64, finish: bool) {
        let text = self.next_text();
        let key = self.key(index);
        let added = match finish {
            true => self.client.add_value(&key, &text).await,
            false => self.client.add_value_part(&key, &text).await,
        };
        added.unwrap_or_else(|error| panic!("an add failed: {error}"));
        let key = &mut self.keys[index as usize];
        key.open.push_str(&text);
        if finish {
            key.values.push(std::mem::take(&mut key.open));
        }
    }

    async fn add_shared(&mut self) {
        let text = self.next_text();
        let added = self.client.add_value(SHARED_KEY, &text).await;
        added.unwrap_or_else(|error| panic!("an add failed: {error}"));
        self.shared.push(text);
    }

    /// A read at quorum sees exactly what was acknowledged.
    async fn check(&self, index: u64) {
        let key = self.key(index);
        let found = self.client.get_value(&key).await;
        let found = found.unwrap_or_else(|error| panic!("a read failed: {error}"));
        let expected = &self.keys[index as usize].values;
        assert!(found == *expected, "{key}: {}", difference(expected, &found));
    }
}

fn difference(expected: &[String], found: &[String]) -> String {
    let short = |values: &[String]| -> Vec<String> {
        values
            .iter()
            .map(|value| format!("{value:.40}… ({} bytes)", value.len()))
            .collect()
    };
    format!("expected {:#?}\nfound {:#?}", short(expected), short(found))
}

pub struct Load {
    runtime: Runtime,
    ending: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Writer>>,
}

impl Load {
    pub fn start(cluster: &Cluster, caller: &Caller, kind: Kind) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (ending, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let seed = number_from("KV_CLUSTER_SEED", 1);
        let writer = |id: u64| {
            // Each begins at another node.
            let urls = (0..3).map(|place| cluster.url((place + id as usize) % 3));
            let mut client = Client::builder()
                .urls(urls)
                .user(&caller.name)
                .password_hash(&caller.hash);
            if kind.patient {
                client = client.retries(u32::MAX - 1);
            }
            let mut writer = Writer {
                id,
                kind,
                chance: Chance(seed.wrapping_mul(1_000_003).wrapping_add(id)),
                client: client.build().unwrap(),
                keys: vec![Remembered::default(); KEYS_PER_WRITER as usize],
                shared: Vec::new(),
                sent: 0,
            };
            let (ending, done) = (ending.clone(), done.clone());
            runtime.spawn(async move {
                while !ending.load(Ordering::Relaxed) {
                    writer.act().await;
                    done.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
                for index in 0..KEYS_PER_WRITER {
                    writer.check(index).await;
                }
                writer
            })
        };
        Self {
            writers: (0..WRITERS).map(writer).collect(),
            runtime,
            ending,
            done,
        }
    }

    /// How many requests were answered.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Until so many more requests were answered; ends early when a writer found something wrong.
    pub fn wait_done(&self, more: u64) {
        self.wait_once(more * number_from("KV_CLUSTER_LENGTH", 1));
    }

    /// The same, however long the run is to be.
    pub fn wait_once(&self, more: u64) {
        let until = self.done() + more;
        while self.done() < until {
            let before = self.done();
            wait_for("the writers go on", || {
                let given_up = self.writers.iter().any(JoinHandle::is_finished);
                assert!(!given_up, "a writer gave up: see above");
                ensure(self.done() > before, || format!("{before} of {until} requests"))
            });
        }
    }

    /// Lets the writers come to an end.
    pub fn finish(self) -> Acknowledged {
        self.ending.store(true, Ordering::Relaxed);
        let mut all = Acknowledged::default();
        for writer in self.writers {
            let writer = self.runtime.block_on(writer).expect("a writer gave up: see above");
            for index in 0..KEYS_PER_WRITER {
                all.own
                    .insert(writer.key(index), writer.keys[index as usize].values.clone());
            }
            all.shared.insert(writer.id, writer.shared);
        }
        all
    }
}

/// What the writers know to be there.
#[derive(Default)]
pub struct Acknowledged {
    own: BTreeMap<String, Vec<String>>,
    /// By writer, in the order of its adds.
    shared: BTreeMap<u64, Vec<String>>,
}

impl Acknowledged {
    /// All nodes come to hold the same: every acknowledged add once and in order, and nothing that was cleared.
    pub fn check(&self, cluster: &Cluster, caller: &Caller) {
        cluster.wait_whole();
        let keys: Vec<String> = self.own.keys().cloned().chain([SHARED_KEY.to_owned()]).collect();
        let mut held = cluster.wait_equal(caller, &keys);
        let shared = held.pop().unwrap();
        for ((key, expected), found) in self.own.iter().zip(&held) {
            assert!(expected == found, "{key}: {}", difference(expected, found));
        }
        for (writer, expected) in &self.shared {
            let own = format!("{writer}-");
            let found: Vec<String> = shared.iter().filter(|text| text.starts_with(&own)).cloned().collect();
            assert!(*expected == found, "the shared key: {}", difference(expected, &found));
        }
        assert_eq!(shared.len(), self.shared.values().map(Vec::len).sum::<usize>());
        for index in cluster.running() {
            let caller = caller.at(cluster.http(index));
            let with_values = self.own.iter().filter(|(_, values)| !values.is_empty());
            assert_eq!(
                caller.keys("writer", 1000),
                with_values.map(|(key, _)| key.clone()).collect::<Vec<_>>()
            );
        }
    }
}
