//! One shard with all slots, used as the shard actor uses it: commits in line, everything else on threads beside.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::Context;
use kv_storage::core::slot::{KeyHash, shard_slots, slot_of};
use kv_storage::core::stamp::OriginId;
use kv_storage::os::RealDisk;
use kv_storage::shard::{
    CleanupJob, MergeJob, MergeOutcome, Place, Shard, ShardConfig, SpaceJob, SpaceReady, Submitted, Write, WriteKind,
};
use kv_storage::store::cache::BlockCache;
use kv_storage::store::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};
use kv_storage::store::reader::KeyReader;
use kv_storage::types::{Key, UserId, WallMs};

use super::{CACHE_BYTES, Durability, Engine, Entry};

/// What is read of a list at once; a list here is shorter.
const BATCH_BYTES: usize = 64 * 1024;

enum Job {
    Space(SpaceJob),
    Merge(MergeJob),
    Cleanup(CleanupJob),
}

enum Done {
    Space(io::Result<SpaceReady>),
    Merge(MergeOutcome),
    Cleanup((Vec<u64>, u64)),
}

pub struct Ours {
    shard: Shard,
    user: UserId,
    now: WallMs,
    idle_ms: u64,
    /// One thread for what writes wait for, one for merges.
    space: Sender<Job>,
    merges: Sender<Job>,
    done: Receiver<Done>,
    under_way: usize,
}

impl Ours {
    pub fn open(folder: &Path, durability: Durability) -> anyhow::Result<Self> {
        let disk: Arc<dyn Disk> = match durability {
            Durability::Synced => Arc::new(RealDisk),
            Durability::Unsynced => Arc::new(LogsUnsynced),
        };
        let place = Place {
            disk,
            dir: folder.join("shard"),
            shard: 0,
            slots: shard_slots(0, 1),
            cache: Arc::new(BlockCache::new(CACHE_BYTES)),
        };
        let config = ShardConfig::default();
        let idle_ms = config.idle_ms;
        let (shard, _) = Shard::open(place, config, OriginId(1))?;
        let (report, done) = channel();
        let (space, merges) = (worker(report.clone()), worker(report));
        Ok(Self {
            shard,
            user: UserId::new("bench")?,
            now: WallMs(1_700_000_000_000),
            idle_ms,
            space,
            merges,
            done,
            under_way: 0,
        })
    }

    fn start_jobs(&mut self) -> anyhow::Result<()> {
        let gone = "a thread is gone";
        if let Some(job) = self.shard.next_space_job() {
            self.space.send(Job::Space(job)).ok().context(gone)?;
            self.under_way += 1;
        }
        if let Some(job) = self.shard.next_cleanup() {
            self.space.send(Job::Cleanup(job)).ok().context(gone)?;
            self.under_way += 1;
        }
        if let Some(job) = self.shard.next_merge(self.now) {
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
    fn poll_jobs(&mut self) -> anyhow::Result<()> {
        while let Ok(done) = self.done.try_recv() {
            self.take(done)?;
        }
        self.start_jobs()
    }

    fn wait_for_a_job(&mut self) -> anyhow::Result<()> {
        self.start_jobs()?;
        anyhow::ensure!(
            self.under_way > 0,
            "the shard waits for nothing: {:?}",
            self.shard.stats()
        );
        let done = self.done.recv()?;
        self.take(done)
    }

    fn commit_group(&mut self) -> anyhow::Result<()> {
        if let Some(job) = self.shard.next_commit() {
            self.shard.committed(job.run());
        }
        self.poll_jobs()
    }

    fn submit(&mut self, mut write: Write) -> anyhow::Result<()> {
        let mut committed = false;
        loop {
            match self.shard.submit(write, None, self.now)? {
                Submitted::InGroup(_) | Submitted::Repeated(_) => return Ok(()),
                Submitted::NeedsSpace(again) => {
                    write = again;
                    // A log gives way to the next one only when all of it is durable; that alone may be enough.
                    if committed {
                        self.wait_for_a_job()?;
                    } else {
                        self.commit_group()?;
                    }
                    committed = !committed;
                }
                Submitted::NeedsPast(..) => anyhow::bail!("a write without parts and request id needs no past"),
            }
        }
    }
}

impl Engine for Ours {
    fn name(&self) -> &'static str {
        "kv"
    }

    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()> {
        self.now.0 += 1;
        for entry in entries {
            let key = Key::new(entry.key)?;
            let hash = KeyHash::of(&self.user, &key);
            self.submit(Write {
                slot: slot_of(&self.user, hash),
                hash,
                user: self.user.clone(),
                key,
                kind: WriteKind::Add {
                    text: entry.value.into(),
                    finish: true,
                },
                request_id: None,
            })?;
        }
        self.commit_group()
    }

    fn get(&mut self, key: &str) -> anyhow::Result<(u64, usize)> {
        let key = Key::new(key)?;
        let hash = KeyHash::of(&self.user, &key);
        let source = self.shard.key(slot_of(&self.user, hash), hash, &self.user, &key)?;
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
        // As if a while had passed without writes.
        self.now.0 += self.idle_ms;
        self.shard.tick(self.now);
        self.poll_jobs()?;
        while self.under_way > 0 {
            self.wait_for_a_job()?;
            self.poll_jobs()?;
        }
        // What was sealed only now left its logs.
        self.shard.tick(self.now);
        self.poll_jobs()?;
        while self.under_way > 0 {
            self.wait_for_a_job()?;
        }
        Ok(())
    }

    fn bytes_per_idle_key(&self) -> Option<f64> {
        let stats = self.shard.stats();
        (stats.sealed_keys > 0).then(|| stats.segment_memory_bytes as f64 / stats.sealed_keys as f64)
    }
}

/// Runs jobs one after the other until their sender is dropped.
fn worker(report: Sender<Done>) -> Sender<Job> {
    let (jobs, inbox) = channel();
    std::thread::spawn(move || {
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

/// The real disk, but logs are left to the operating system. Everything else is synced as ever, as the rivals do it too.
struct LogsUnsynced;

impl Disk for LogsUnsynced {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = RealDisk.open(path, mode)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match kv_storage::store::log::parse_file_name(name) {
            Some(_) => Ok(Box::new(Unsynced(file))),
            None => Ok(file),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        RealDisk.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

struct Unsynced(Box<dyn DiskFile>);

impl DiskFile for Unsynced {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
