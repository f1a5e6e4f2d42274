//! One key with a long list, by the storage engine alone: what adds with request ids cost while it grows, and what pages of it cost.
//!
//! `cargo bench --bench long_list`. `KV_BENCH_ENTRIES` (300000) is how many values of 100 bytes are added, each with a request id;
//! the log is left to the operating system. Every shard job runs in line, one after the other, so the figures have no noise but the
//! machine's; "look-ups" are those that ask segments whether they hold a request id.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark runs on the real machine, outside of any node"
)]

#[path = "../engines/unsynced.rs"]
mod unsynced;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kv_storage::bench::Payload;
use kv_storage::core::slot::{KeyHash, shard_slots, slot_of};
use kv_storage::core::stamp::OriginId;
use kv_storage::shard::{Place, Shard, ShardConfig, Submitted, Write, WriteContext, WriteKind};
use kv_storage::store::cache::BlockCache;
use kv_storage::store::log::{LogSecret, SECRET_BYTES};
use kv_storage::store::reader::KeyReader;
use kv_storage::types::{Key, RequestId, UserId, WallMs};

use unsynced::LogsUnsynced;

const VALUE_BYTES: usize = 100;
const GROUP: u64 = 64;
const CACHE_BYTES: u64 = 64 << 20;
const PAGE_VALUES: u64 = 1000;
const PAGE_ROUNDS: u32 = 20;

fn main() -> anyhow::Result<()> {
    // Test runners start bench targets too; measuring is not what they want.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run it with `cargo bench --bench long_list`");
        return Ok(());
    }
    let entries = match std::env::var("KV_BENCH_ENTRIES") {
        Ok(text) => text.parse().context("KV_BENCH_ENTRIES is not a number")?,
        Err(_) => 300_000,
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut list = LongList::open(folder.path())?;
    list.grow(entries)?;
    list.page(entries)
}

struct LongList {
    shard: Shard,
    payload: Payload,
    user: UserId,
    key: Key,
    now: WallMs,
    look_ups: u64,
    looked_up: Duration,
    longest_look_up: Duration,
}

impl LongList {
    fn open(folder: &std::path::Path) -> anyhow::Result<Self> {
        let place = Place {
            disk: Arc::new(LogsUnsynced::default()),
            dir: folder.join("shard"),
            shard: 0,
            slots: shard_slots(0, 1),
            cache: Arc::new(BlockCache::new(CACHE_BYTES)),
            new_secret: LogSecret::new([1; SECRET_BYTES]),
            own_origins: None,
        };
        let (shard, _) = Shard::open(place, ShardConfig::default(), OriginId(1))?;
        Ok(Self {
            shard,
            payload: Payload::new("key-", VALUE_BYTES, 1),
            user: UserId::new("bench")?,
            key: Key::new("list")?,
            now: WallMs(1_700_000_000_000),
            look_ups: 0,
            looked_up: Duration::ZERO,
            longest_look_up: Duration::ZERO,
        })
    }

    /// Adds the values, then one of them again, with the same id.
    fn grow(&mut self, entries: u64) -> anyhow::Result<()> {
        let start = Instant::now();
        for number in 0..entries {
            anyhow::ensure!(self.add(number)?, "value {number} counts as repeated");
            if number % GROUP == GROUP - 1 {
                self.now.0 += 1;
                if let Some(job) = self.shard.next_commit() {
                    self.shard.committed(job.run());
                }
            }
        }
        self.shard.settle(self.now);
        let whole = start.elapsed();
        println!(
            "{entries} adds with ids: {:.2} s, of it {:.2} s in {} look-ups, the longest {:.1} ms",
            whole.as_secs_f64(),
            self.looked_up.as_secs_f64(),
            self.look_ups,
            millis(self.longest_look_up)
        );
        println!(
            "look-ups: {:.2} us an add",
            self.looked_up.as_secs_f64() * 1e6 / entries as f64
        );
        let start = Instant::now();
        for number in [0, entries / 2, entries - 1] {
            anyhow::ensure!(!self.add(number)?, "value {number} was taken twice");
        }
        println!("a repeated add: {:.2} ms", millis(start.elapsed() / 3));
        let stats = self.shard.stats();
        println!("segments: {}, {} bytes", stats.segments, stats.segment_bytes);
        Ok(())
    }

    /// Whether the value was taken.
    fn add(&mut self, number: u64) -> anyhow::Result<bool> {
        let hash = KeyHash::of(&self.user, &self.key);
        let mut write = Write {
            slot: slot_of(&self.user, hash),
            hash,
            user: self.user.clone(),
            key: self.key.clone(),
            kind: WriteKind::Add {
                text: self.payload.value_text(number.wrapping_mul(0x9e37_79b9)).into(),
                finish: true,
            },
            request_id: Some(RequestId::new(&format!("request {number}"))?),
            context: WriteContext::default(),
        };
        let mut past = None;
        loop {
            match self.shard.submit(write, past.take().as_deref(), self.now)? {
                Submitted::InGroup(..) => return Ok(true),
                Submitted::Repeated(_) => return Ok(false),
                Submitted::NeedsSpace(again) => {
                    write = again;
                    self.shard.settle(self.now);
                }
                Submitted::NeedsPast(again, mut lookup) => {
                    write = again;
                    let start = Instant::now();
                    lookup.run()?;
                    let took = start.elapsed();
                    self.look_ups += 1;
                    self.looked_up += took;
                    self.longest_look_up = self.longest_look_up.max(took);
                    past = Some(lookup);
                }
            }
        }
    }

    fn page(&self, entries: u64) -> anyhow::Result<()> {
        for percent in [0, 50, 99] {
            let offset = entries * percent / 100;
            let start = Instant::now();
            for _ in 0..PAGE_ROUNDS {
                let (mut reader, mut values) = (self.reader(offset, PAGE_VALUES)?, 0);
                loop {
                    let batch = reader.next_batch(64 * 1024)?;
                    if batch.is_empty() {
                        break;
                    }
                    values += batch.len() as u64;
                }
                anyhow::ensure!(
                    values == PAGE_VALUES.min(entries - offset),
                    "{values} values at {percent}%"
                );
            }
            println!(
                "a page of {PAGE_VALUES} at {percent}%: {:.2} ms",
                millis(start.elapsed() / PAGE_ROUNDS)
            );
        }
        let start = Instant::now();
        let counted = self.reader(0, u64::MAX)?.count()?;
        anyhow::ensure!(counted == entries, "{counted} values of {entries}");
        println!("count: {:.2} ms", millis(start.elapsed()));
        Ok(())
    }

    fn reader(&self, offset: u64, limit: u64) -> anyhow::Result<KeyReader> {
        let hash = KeyHash::of(&self.user, &self.key);
        let slot = slot_of(&self.user, hash);
        let source = self.shard.reader().key(slot, hash, &self.user, &self.key)?;
        Ok(KeyReader::new(source, offset, limit))
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
