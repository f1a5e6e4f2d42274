//! The store's own shard as an engine: its jobs are run here, piece by piece and in a random order, as threads might run them.
//!
//! Invariant: between any two pieces of a job anything else may happen: writes, reads, other jobs, the crash.

use std::path::Path;
use std::sync::Arc;

use kv_storage::core::op::Body;
use kv_storage::core::slot::{KeyHash, SLOT_COUNT, slot_of};
use kv_storage::core::stamp::OriginId;
use kv_storage::node::Added;
use kv_storage::shard::{
    CleanupJob, MergeJob, MergeOutcome, Place as Home, Shard, ShardConfig, SpaceJob, Submitted, Write, WriteContext,
    WriteKind, WriteRefused,
};
use kv_storage::store::cache::BlockCache;
use kv_storage::store::disk::Disk;
use kv_storage::store::keys::KeyQuery;
use kv_storage::store::log::{LogSecret, SECRET_BYTES};
use kv_storage::store::reader::KeyReader;
use kv_storage::store::source::KeySource;
use kv_storage::types::{Key, RequestId, UserId, WallMs};

use crate::disk::Mount;
use crate::engine::{DATA_DIR, Engine, Place, Refusal, Seen, Tuning};
use crate::rng::Rng;

/// More rounds of work than this for one write mean that it waits for something that never comes.
const ROUNDS_MAX: usize = 2000;
/// Ticks after which an engine that nobody writes to has nothing left to do.
const TICKS_TO_SETTLE: usize = 4;
/// So small that blocks are pushed out all the time.
const CACHE_BYTES: u64 = 16 << 10;
/// How much of a value is read at once.
const READ_BYTES: usize = 4 << 10;
const ORIGIN: OriginId = OriginId(7);

/// What is under way besides the commits.
enum Job {
    Space(SpaceJob),
    Merge(MergeJob),
    Cleanup(CleanupJob),
    /// It ran; its result has not been handed back yet.
    Ran(Box<dyn FnOnce(&mut Shard)>),
}

impl Job {
    /// One piece of it.
    fn run(self) -> Self {
        match self {
            Self::Space(job) => {
                let result = job.run();
                Self::Ran(Box::new(move |shard| shard.space_made(result)))
            }
            Self::Merge(job) => match job.run() {
                MergeOutcome::More(job) => Self::Merge(job),
                MergeOutcome::Done(result) => Self::Ran(Box::new(move |shard| shard.merged(result))),
            },
            Self::Cleanup(job) => {
                let result = job.run();
                Self::Ran(Box::new(move |shard| shard.cleaned_up(result)))
            }
            Self::Ran(_) => self,
        }
    }
}

pub struct ShardEngine {
    shard: Shard,
    mount: Mount,
    rng: Rng,
    jobs: Vec<Job>,
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(error.to_string())
}

impl ShardEngine {
    /// Begins a job, goes on with one, or hands back a result; whether there was anything to do.
    fn background(&mut self, now: WallMs) -> bool {
        match self.rng.below(3) {
            0 => self.begin(now) || self.go_on(),
            _ => self.go_on() || self.begin(now),
        }
    }

    fn begin(&mut self, now: WallMs) -> bool {
        let kinds: [fn(&mut Shard, WallMs) -> Option<Job>; 3] = [
            |shard, _| shard.next_space_job().map(Job::Space),
            |shard, now| shard.next_merge(now).map(Job::Merge),
            |shard, _| shard.next_cleanup().map(Job::Cleanup),
        ];
        let first = self.rng.below(3) as usize;
        let job = (0..3).find_map(|turn| kinds[(first + turn) % 3](&mut self.shard, now));
        let found = job.is_some();
        self.jobs.extend(job);
        found
    }

    fn go_on(&mut self) -> bool {
        if self.jobs.is_empty() {
            return false;
        }
        let index = self.rng.below(self.jobs.len() as u64) as usize;
        match self.jobs.swap_remove(index) {
            Job::Ran(hand_back) => hand_back(&mut self.shard),
            job => self.jobs.push(job.run()),
        }
        true
    }

    /// Some other things happen meanwhile, or nothing.
    fn meanwhile(&mut self, now: WallMs) {
        if self.rng.percent(30) {
            for _ in 0..self.rng.below(5) {
                self.background(now);
            }
        }
    }

    fn commit_all(&mut self, now: WallMs) -> Result<(), Refusal> {
        while let Some(job) = self.shard.next_commit() {
            let result = job.run();
            self.meanwhile(now);
            self.shard.committed(result);
        }
        match self.shard.failure() {
            Some(why) => Err(failed(why)),
            None => Ok(()),
        }
    }

    fn submit(
        &mut self,
        place: &Place,
        kind: WriteKind,
        request_id: Option<RequestId>,
        now: WallMs,
    ) -> Result<Added, Refusal> {
        let hash = KeyHash::of(&place.user, &place.key);
        let mut write = Write {
            slot: slot_of(&place.user, hash),
            hash,
            user: place.user.clone(),
            key: place.key.clone(),
            kind,
            request_id,
            context: WriteContext::default(),
        };
        let mut past = None;
        for _ in 0..ROUNDS_MAX {
            match self.shard.submit(write, past.as_deref(), now) {
                Ok(Submitted::InGroup(..)) => return Ok(Added::Appended),
                Ok(Submitted::Repeated(_)) => return Ok(Added::Repeated),
                Ok(Submitted::NeedsSpace(same)) => {
                    write = same;
                    self.commit_all(now)?;
                    if !self.background(now) {
                        self.wait_a_second(now)?;
                    }
                }
                Ok(Submitted::NeedsPast(same, mut lookup)) => {
                    write = same;
                    self.meanwhile(now);
                    lookup.run().map_err(failed)?;
                    self.meanwhile(now);
                    past = Some(lookup);
                }
                Err(WriteRefused::DiskFull) => return Err(Refusal::DiskFull),
                Err(WriteRefused::ValueTooLong { .. }) => return Err(Refusal::TooLong),
                Err(refused @ (WriteRefused::Stopped | WriteRefused::Unsealed | WriteRefused::OtherRequest)) => {
                    return Err(failed(format!("{refused}: {:?}", self.shard.failure())));
                }
            }
        }
        panic!(
            "a write waits for ever: {:?}, {} jobs",
            self.shard.stats(),
            self.jobs.len()
        );
    }

    /// There is nothing to do but to wait for the next tick.
    fn wait_a_second(&mut self, now: WallMs) -> Result<(), Refusal> {
        // A machine that is down has no next tick.
        self.mount.exists(Path::new(DATA_DIR)).map_err(failed)?;
        self.shard.tick(now);
        Ok(())
    }

    fn source(&self, place: &Place) -> Result<KeySource, Refusal> {
        let hash = KeyHash::of(&place.user, &place.key);
        self.shard
            .reader()
            .key(slot_of(&place.user, hash), hash, &place.user, &place.key)
            .map_err(failed)
    }
}

impl Engine for ShardEngine {
    fn open(disk: Mount, dir: &Path, tuning: &Tuning, seed: u64, _now: WallMs) -> Result<Self, Refusal> {
        let home = Home {
            disk: Arc::new(disk.clone()),
            dir: dir.to_owned(),
            shard: 0,
            slots: 0..SLOT_COUNT,
            cache: Arc::new(BlockCache::new(CACHE_BYTES)),
            new_secret: LogSecret::new([seed as u8; SECRET_BYTES]),
            own_origins: None,
        };
        let config = ShardConfig {
            log_bytes: tuning.log_bytes,
            fill_bytes: tuning.fill_bytes,
            frozen_max: tuning.frozen_max,
            fan_out: tuning.fan_out,
            value_bytes_max: tuning.value_bytes_max,
            idle_ms: tuning.idle_ms,
            replicated: false,
        };
        let (shard, report) = Shard::open(home, config, ORIGIN).map_err(failed)?;
        // No bit was flipped on this disk: whatever a crash left is no damage.
        assert!(
            report.damage.is_empty(),
            "damage was reported where there is none: {:?}",
            report.damage
        );
        Ok(Self {
            shard,
            mount: disk,
            rng: Rng::new(seed),
            jobs: Vec::new(),
        })
    }

    fn add(
        &mut self,
        place: &Place,
        text: &str,
        finish: bool,
        request: Option<RequestId>,
        now: WallMs,
    ) -> Result<Added, Refusal> {
        let text = text.into();
        self.submit(place, WriteKind::Add { text, finish }, request, now)
    }

    fn clear(&mut self, place: &Place, now: WallMs) -> Result<(), Refusal> {
        self.submit(place, WriteKind::Clear, None, now).map(|_| ())
    }

    fn commit(&mut self, now: WallMs) -> Result<(), Refusal> {
        self.commit_all(now)
    }

    fn get(&mut self, place: &Place, now: WallMs) -> Result<Seen, Refusal> {
        let source = self.source(place)?;
        // The snapshot stays what it is, whatever happens to the files under it.
        self.meanwhile(now);
        let mut seen = Seen::default();
        let mut ops = source.ops();
        while let Some(op) = ops.next().map_err(failed)? {
            if let Body::Part(text) | Body::Value(text) = &op.body {
                seen.ops.push((op.dot, text.as_ref().to_owned()));
            }
        }
        let count = KeyReader::new(source.clone(), 0, u64::MAX).count().map_err(failed)?;
        let mut reader = KeyReader::new(source, 0, u64::MAX);
        let mut open = String::new();
        loop {
            let fragments = reader.next_batch(READ_BYTES).map_err(failed)?;
            if fragments.is_empty() {
                break;
            }
            for fragment in fragments {
                open.push_str(fragment.text.as_ref());
                if fragment.ends_value {
                    seen.values.push(std::mem::take(&mut open));
                }
            }
            self.meanwhile(now);
        }
        assert!(open.is_empty(), "a read ended inside a value");
        assert_eq!(
            count,
            seen.values.len() as u64,
            "a count that is not the number of values"
        );
        Ok(seen)
    }

    fn keys(
        &mut self,
        user: &UserId,
        after: Option<&str>,
        limit: usize,
        now: WallMs,
    ) -> Result<(Vec<String>, Option<String>), Refusal> {
        let query = KeyQuery {
            user: user.clone(),
            prefix: String::new(),
            after: after.map(str::to_owned),
            limit,
            all: false,
        };
        let lister = self.shard.reader().keys(query).map_err(failed)?;
        self.meanwhile(now);
        let page = lister.list().map_err(failed)?;
        assert!(page.keys.len() <= limit, "a page longer than asked for");
        let text = |key: &Key| key.as_str().to_owned();
        let next = page.next_after.as_ref().map(text);
        Ok((page.keys.iter().map(text).collect(), next))
    }

    fn maintain(&mut self, now: WallMs) -> Result<bool, Refusal> {
        if self.rng.percent(10) {
            self.shard.tick(now);
        }
        let busy = self.background(now);
        match self.shard.failure() {
            Some(why) => Err(failed(why)),
            None => Ok(busy),
        }
    }

    fn settle(&mut self, now: WallMs) -> Result<(), Refusal> {
        // What the first tick sets off may need another one: a probe finds space, then the merges that waited for it begin.
        for _ in 0..TICKS_TO_SETTLE {
            self.commit_all(now)?;
            self.shard.tick(now);
            let mut rounds = 0;
            while self.background(now) {
                rounds += 1;
                assert!(
                    rounds < ROUNDS_MAX,
                    "the background work never ends: {:?}",
                    self.shard.stats()
                );
            }
        }
        self.commit_all(now)
    }
}
