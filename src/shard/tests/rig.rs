//! A shard on a disk in memory, driven by hand.

use std::path::PathBuf;
use std::sync::Arc;

use super::super::*;
use crate::core::slot::{KeyHash, shard_slots, slot_of};
use crate::store::cache::BlockCache;
use crate::store::keys::KeyQuery;
use crate::store::log::LogSecret;
use crate::store::memory_disk::MemoryDisk;
use crate::store::reader::{Fragment, KeyReader};
use crate::types::{Key, RequestId, UserId};

pub(super) const ORIGIN: OriginId = OriginId(0xfeed);

pub(super) struct Rig {
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) config: ShardConfig,
    pub(super) shard: Shard,
    pub(super) now: WallMs,
}

pub(super) fn place(disk: &Arc<MemoryDisk>) -> Place {
    Place {
        disk: disk.clone(),
        dir: PathBuf::from("/data/shard"),
        shard: 0,
        slots: shard_slots(0, 1),
        cache: Arc::new(BlockCache::new(1 << 20)),
        new_secret: LogSecret::new([7; 16]),
        own_origins: None,
    }
}

pub(super) fn small() -> ShardConfig {
    ShardConfig {
        log_bytes: 128 * 1024,
        fill_bytes: 72 * 1024,
        ..ShardConfig::default()
    }
}

impl Rig {
    pub(super) fn new(config: ShardConfig) -> Self {
        let disk = Arc::new(MemoryDisk::new());
        let (shard, _) = Shard::open(place(&disk), config.clone(), ORIGIN).unwrap();
        Self {
            disk,
            config,
            shard,
            now: WallMs(1_000_000),
        }
    }

    pub(super) fn reopen(&mut self) -> OpenReport {
        let (shard, report) = Shard::open(place(&self.disk), self.config.clone(), ORIGIN).unwrap();
        self.shard = shard;
        report
    }

    pub(super) fn run_jobs(&mut self) {
        self.shard.settle(self.now);
    }

    pub(super) fn write(
        &mut self,
        user: &str,
        key: &str,
        kind: WriteKind,
        request: Option<&str>,
    ) -> Result<bool, WriteRefused> {
        self.write_in(WriteContext::default(), user, key, kind, request)
    }

    pub(super) fn write_in(
        &mut self,
        context: WriteContext,
        user: &str,
        key: &str,
        kind: WriteKind,
        request: Option<&str>,
    ) -> Result<bool, WriteRefused> {
        let (user, key) = (UserId::new(user).unwrap(), Key::new(key).unwrap());
        let hash = KeyHash::of(&user, &key);
        let mut write = Write {
            slot: slot_of(&user, hash),
            hash,
            user,
            key,
            kind,
            request_id: request.map(|text| RequestId::new(text).unwrap()),
            context,
        };
        self.now.0 += 1;
        let mut past = None;
        for _ in 0..20 {
            match self.shard.submit(write, past.take().as_deref(), self.now)? {
                Submitted::InGroup(..) => return Ok(true),
                Submitted::Repeated(_) => return Ok(false),
                Submitted::NeedsSpace(again) => {
                    write = again;
                    self.run_jobs();
                }
                Submitted::NeedsPast(again, mut lookup) => {
                    write = again;
                    lookup.run().unwrap();
                    past = Some(lookup);
                }
            }
        }
        panic!("the shard found no room: {:?}", self.shard.stats());
    }

    pub(super) fn add(&mut self, user: &str, key: &str, text: &str) {
        let kind = WriteKind::Add {
            text: text.into(),
            finish: true,
        };
        assert!(self.write(user, key, kind, None).unwrap());
    }

    pub(super) fn clear(&mut self, user: &str, key: &str) {
        assert!(self.write(user, key, WriteKind::Clear, None).unwrap());
    }

    pub(super) fn reader(&self, user: &str, key: &str, offset: u64, limit: u64) -> Result<KeyReader, Damaged> {
        let (user, key) = (UserId::new(user).unwrap(), Key::new(key).unwrap());
        let hash = KeyHash::of(&user, &key);
        let source = self.shard.reader().key(slot_of(&user, hash), hash, &user, &key)?;
        Ok(KeyReader::new(source, offset, limit))
    }

    pub(super) fn get_page(&self, user: &str, key: &str, offset: u64, limit: u64) -> Vec<String> {
        let mut reader = self.reader(user, key, offset, limit).unwrap();
        let mut values = Vec::new();
        let mut open = String::new();
        while let Some(Fragment { text, ends_value }) = reader.next().unwrap() {
            open.push_str(text.as_ref());
            if ends_value {
                values.push(std::mem::take(&mut open));
            }
        }
        assert!(open.is_empty());
        values
    }

    pub(super) fn get(&self, user: &str, key: &str) -> Vec<String> {
        self.get_page(user, key, 0, u64::MAX)
    }

    pub(super) fn keys(&self, user: &str, prefix: &str, limit: usize) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        let mut after = None;
        loop {
            let query = KeyQuery {
                user: UserId::new(user).unwrap(),
                prefix: prefix.to_owned(),
                after: after.clone(),
                limit,
                all: false,
            };
            let page = self.shard.reader().keys(query).unwrap().list().unwrap();
            assert!(page.keys.len() <= limit);
            keys.extend(page.keys.iter().map(|key| key.as_str().to_owned()));
            after = page.next_after.map(|key| key.as_str().to_owned());
            if after.is_none() {
                return keys;
            }
        }
    }
}

/// Text that does not compress.
pub(super) fn noise(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'!' + (state % 90) as u8
    };
    String::from_utf8((0..length).map(|_| next()).collect()).unwrap()
}

pub(super) fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}
