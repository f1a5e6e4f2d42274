//! What the nodes hold, each by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kv_storage::client::Client;

use super::load::{Acked, KEYS, key, key_number, number_in};
use super::node::cluster::{Cluster, Member};
use super::{SYNC_TIMEOUT, node};

const POLL: Duration = Duration::from_millis(50);

/// What a node has to hold to count as in sync. Each key is read until it is whole, and then no more, so that looking costs little.
pub struct Expected {
    /// Numbers of the adds, by key.
    grown: BTreeMap<String, BTreeSet<u64>>,
    /// Lengths of lists that only grew while nobody looked.
    lengths: BTreeMap<String, u64>,
}

impl Expected {
    /// All that was acknowledged before `before`.
    pub fn new(acked: &[Acked], before: Instant) -> Self {
        let mut grown: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for add in acked.iter().filter(|add| add.at < before) {
            grown.entry(key(key_number(add.number))).or_default().insert(add.number);
        }
        Self {
            grown,
            lengths: BTreeMap::new(),
        }
    }

    pub fn with_lengths(self, lengths: BTreeMap<String, u64>) -> Self {
        Self { lengths, ..self }
    }

    /// When the node held it all; None when it still does not after `SYNC_TIMEOUT`.
    pub async fn wait_until_held(mut self, node: &Member) -> anyhow::Result<Option<Instant>> {
        let client = node.client()?;
        let started = Instant::now();
        while started.elapsed() < SYNC_TIMEOUT {
            if self.is_held(&client).await {
                return Ok(Some(Instant::now()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(None)
    }

    async fn is_held(&mut self, client: &Client) -> bool {
        while let Some(entry) = self.lengths.first_entry() {
            if client.count(entry.key()).await.is_ok_and(|count| count >= *entry.get()) {
                entry.remove();
            } else {
                return false;
            }
        }
        while let Some(entry) = self.grown.first_entry() {
            let Ok(list) = client.get_value(entry.key()).await else {
                return false;
            };
            let numbers: BTreeSet<u64> = list.iter().filter_map(|value| number_in(value)).collect();
            if !numbers.is_superset(entry.get()) {
                return false;
            }
            entry.remove();
        }
        true
    }
}

/// What is wrong with the lists at the end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verdict {
    /// Acknowledged and not there.
    pub lost: usize,
    /// There more than once.
    pub doubled: usize,
    /// Keys whose lists are not the same on all nodes.
    pub unequal: usize,
}

/// Waits until the lists are the same on all nodes, if that takes less than `SYNC_TIMEOUT`.
pub async fn judge(cluster: &Cluster, acked: &[Acked]) -> anyhow::Result<Verdict> {
    let started = Instant::now();
    let mut verdict = Verdict::default();
    let wanted: BTreeSet<u64> = acked.iter().map(|add| add.number).collect();
    for number in 0..KEYS {
        let key = key(number);
        let lists = loop {
            let lists = lists(cluster, &key).await;
            let equal = lists
                .as_ref()
                .is_ok_and(|lists| lists.windows(2).all(|pair| pair[0] == pair[1]));
            if equal || started.elapsed() > SYNC_TIMEOUT {
                break lists?;
            }
            tokio::time::sleep(POLL).await;
        };
        verdict.unequal += usize::from(lists.windows(2).any(|pair| pair[0] != pair[1]));
        let list: Vec<u64> = lists[0].iter().filter_map(|value| number_in(value)).collect();
        let unique: BTreeSet<u64> = list.iter().copied().collect();
        verdict.doubled += list.len() - unique.len();
        let of_key = wanted.iter().filter(|add| key_number(**add) == number);
        verdict.lost += of_key.filter(|add| !unique.contains(add)).count();
    }
    Ok(verdict)
}

async fn lists(cluster: &Cluster, key: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let mut lists = Vec::with_capacity(node::cluster::NODES);
    for node in &cluster.nodes {
        lists.push(node.client()?.get_value(key).await?);
    }
    Ok(lists)
}
