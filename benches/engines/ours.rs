//! Ours: shards, used as their actors use them: commits in line, everything else on threads beside.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context;
use kv_storage::core::slot::{KeyHash, SlotId, shard_of, shard_slots, slot_of};
use kv_storage::core::stamp::OriginId;
use kv_storage::os::RealDisk;
use kv_storage::shard::{
    CleanedUp, CleanupJob, MergeJob, MergeOutcome, Place, Shard, ShardConfig, SpaceFailed, SpaceJob, SpaceReady,
    Submitted, Write, WriteContext, WriteKind,
};
use kv_storage::store::cache::BlockCache;
use kv_storage::store::disk::Disk;
use kv_storage::store::log::{LogSecret, SECRET_BYTES};
use kv_storage::store::reader::KeyReader;
use kv_storage::types::{Key, UserId, WallMs};
use parking_lot::Mutex;

use super::unsynced::LogsUnsynced;
use super::{Durability, Engine, Entry, Setup};

/// What is read of a list at once; a list here is shorter.
const BATCH_BYTES: usize = 64 * 1024;

enum Job {
    Space(SpaceJob),
    Merge(MergeJob),
    Cleanup(CleanupJob),
}

enum Done {
    Space(Result<SpaceReady, SpaceFailed>),
    Merge(MergeOutcome),
    Cleanup(CleanedUp),
}

/// One shard, and the threads that run its jobs.
struct Running {
    shard: Shard,
    /// One thread for what writes wait for, one for merges.
    space: Sender<Job>,
    merges: Sender<Job>,
    /// Locked by nobody: only `&mut self` uses it.
    done: Mutex<Receiver<Done>>,
    under_way: usize,
}

impl Running {
    fn open(place: Place) -> anyhow::Result<Self> {
        let (shard, _) = Shard::open(place, ShardConfig::default(), OriginId(1))?;
        let (report, done) = channel();
        let (space, merges) = (worker(report.clone()), worker(report));
        Ok(Self {
            shard,
            space,
            merges,
            done: Mutex::new(done),
            under_way: 0,
        })
    }

    fn done(&mut self) -> &mut Receiver<Done> {
        self.done.get_mut()
    }

    fn start_jobs(&mut self, now: WallMs) -> anyhow::Result<()> {
        let gone = "a thread is gone";
        if let Some(job) = self.shard.next_space_job() {
            self.space.send(Job::Space(job)).ok().context(gone)?;
            self.under_way += 1;
        }
        if let Some(job) = self.shard.next_cleanup() {
            self.space.send(Job::Cleanup(job)).ok().context(gone)?;
            self.under_way += 1;
        }
        if let Some(job) = self.shard.next_merge(now) {
            self.merges.send(Job::Merge(job)).ok().context(gone)?;
            self.under_way += 1;
        }
        Ok(())
    }

    fn take(&mut self, done: Done) -> anyhow::Result<()> {
        self.under_way -= 1;
        match done {
            Done::Space(ready) => self.shard.space_made(ready),
            Done::Cleanup(result) => self.shard.cleaned_up(result),
            Done::Merge(MergeOutcome::Done(result)) => self.shard.merged(result),
            Done::Merge(MergeOutcome::More(job)) => {
                self.merges
                    .send(Job::Merge(job))
                    .ok()
                    .context("the merging thread is gone")?;
                self.under_way += 1;
            }
        }
        match self.shard.failure() {
            Some(why) => anyhow::bail!("the shard stopped: {why}"),
            None => Ok(()),
        }
    }

    /// Takes what is done, without waiting.
    fn poll_jobs(&mut self, now: WallMs) -> anyhow::Result<()> {
        while let Ok(done) = self.done().try_recv() {
            self.take(done)?;
        }
        self.start_jobs(now)
    }

    fn wait_for_a_job(&mut self, now: WallMs) -> anyhow::Result<()> {
        self.start_jobs(now)?;
        anyhow::ensure!(
            self.under_way > 0,
            "the shard waits for nothing: {:?}",
            self.shard.stats()
        );
        let done = self.done().recv()?;
        self.take(done)
    }

    fn commit_group(&mut self, now: WallMs) -> anyhow::Result<()> {
        if let Some(job) = self.shard.next_commit() {
            self.shard.committed(job.run());
        }
        self.poll_jobs(now)
    }

    fn submit(&mut self, mut write: Write, now: WallMs) -> anyhow::Result<()> {
        let mut committed = false;
        loop {
            match self.shard.submit(write, None, now)? {
                Submitted::InGroup(..) | Submitted::Repeated(_) => return Ok(()),
                Submitted::NeedsSpace(again) => {
                    write = again;
                    // A log gives way to the next one only when all of it is durable; that alone may be enough.
                    if committed {
                        self.wait_for_a_job(now)?;
                    } else {
                        self.commit_group(now)?;
                    }
                    committed = !committed;
                }
                Submitted::NeedsPast(..) => anyhow::bail!("a write without parts and request id needs no past"),
            }
        }
    }

    /// As if a while had passed without writes, until there is nothing left to do.
    fn settle(&mut self, now: WallMs) -> anyhow::Result<()> {
        self.shard.tick(now);
        self.poll_jobs(now)?;
        while self.under_way > 0 {
            self.wait_for_a_job(now)?;
            self.poll_jobs(now)?;
        }
        Ok(())
    }
}

pub struct Ours {
    shards: Vec<Running>,
    cache: Arc<BlockCache>,
    user: UserId,
    now: WallMs,
    /// Whether a shard has taken ops that are not committed yet.
    open_groups: Vec<bool>,
}

impl Ours {
    /// Opens all shards at once, as a node does.
    pub fn open(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let disk: Arc<dyn Disk> = match setup.durability {
            Durability::Synced => Arc::new(RealDisk::default()),
            Durability::Unsynced => Arc::new(LogsUnsynced::default()),
        };
        let cache = Arc::new(BlockCache::new(setup.cache_bytes));
        let place = |index| Place {
            disk: disk.clone(),
            dir: setup.folder.join(format!("shard-{index}")),
            shard: index,
            slots: shard_slots(index, setup.shards),
            cache: cache.clone(),
            new_secret: LogSecret::new([1; SECRET_BYTES]),
            own_origins: None,
        };
        let shards = thread::scope(|scope| {
            let opening: Vec<_> = (0..setup.shards)
                .map(|index| scope.spawn(move || Running::open(place(index))))
                .collect();
            let joined = opening.into_iter().map(|thread| thread.join());
            joined
                .map(|opened| opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<anyhow::Result<Vec<_>>>()
        })?;
        Ok(Self {
            open_groups: vec![false; shards.len()],
            shards,
            cache,
            user: UserId::new("bench")?,
            now: WallMs(1_700_000_000_000),
        })
    }

    fn shard(&self, slot: SlotId) -> usize {
        usize::from(shard_of(slot, self.shards.len() as u16))
    }
}

impl Engine for Ours {
    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()> {
        self.now.0 += 1;
        for entry in entries {
            let key = Key::new(entry.key)?;
            let hash = KeyHash::of(&self.user, &key);
            let slot = slot_of(&self.user, hash);
            let index = self.shard(slot);
            let write = Write {
                slot,
                hash,
                user: self.user.clone(),
                key,
                kind: WriteKind::Add {
                    text: entry.value.into(),
                    finish: true,
                },
                request_id: None,
                context: WriteContext::default(),
            };
            self.shards[index].submit(write, self.now)?;
            self.open_groups[index] = true;
        }
        for (shard, open) in self.shards.iter_mut().zip(&mut self.open_groups) {
            if std::mem::take(open) {
                shard.commit_group(self.now)?;
            }
        }
        Ok(())
    }

    fn get(&self, key: &str) -> anyhow::Result<(u64, usize)> {
        let key = Key::new(key)?;
        let hash = KeyHash::of(&self.user, &key);
        let slot = slot_of(&self.user, hash);
        let source = self.shards[self.shard(slot)]
            .shard
            .reader()
            .key(slot, hash, &self.user, &key)?;
        let mut reader = KeyReader::new(source, 0, u64::MAX);
        let (mut values, mut bytes) = (0, 0);
        loop {
            let batch = reader.next_batch(BATCH_BYTES)?;
            if batch.is_empty() {
                return Ok((values, bytes));
            }
            for fragment in batch {
                values += u64::from(fragment.ends_value);
                bytes += fragment.text.len();
            }
        }
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        self.now.0 += ShardConfig::default().idle_ms;
        self.shards.iter_mut().try_for_each(|shard| shard.settle(self.now))?;
        // What was sealed only now left its logs.
        self.shards.iter_mut().try_for_each(|shard| shard.settle(self.now))
    }

    fn catch_up(&mut self) -> anyhow::Result<()> {
        self.settle()
    }

    fn bytes_per_idle_key(&self) -> Option<f64> {
        let stats: Vec<_> = self.shards.iter().map(|running| running.shard.stats()).collect();
        let keys: u64 = stats.iter().map(|stats| stats.sealed_keys).sum();
        let bytes: u64 = stats.iter().map(|stats| stats.segment_memory_bytes).sum();
        (keys > 0).then(|| bytes as f64 / keys as f64)
    }

    fn blocks_fetched(&self) -> Option<u64> {
        Some(self.cache.misses())
    }
}

/// Runs jobs one after the other until their sender is dropped.
fn worker(report: Sender<Done>) -> Sender<Job> {
    let (jobs, inbox) = channel();
    thread::spawn(move || {
        for job in inbox {
            let done = match job {
                Job::Space(job) => Done::Space(job.run()),
                Job::Merge(job) => Done::Merge(job.run()),
                Job::Cleanup(job) => Done::Cleanup(job.run()),
            };
            if report.send(done).is_err() {
                return;
            }
        }
    });
    jobs
}
