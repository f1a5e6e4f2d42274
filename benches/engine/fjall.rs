//! fjall: a log-structured merge tree.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{CACHE_BYTES, Durability, Engine, Entry};

pub struct Fjall {
    database: Database,
    entries: Keyspace,
    persist: PersistMode,
}

impl Fjall {
    pub fn open(folder: &Path, durability: Durability) -> anyhow::Result<Self> {
        let database = Database::builder(folder.join("fjall")).cache_size(CACHE_BYTES).open()?;
        Ok(Self {
            entries: database.keyspace("entries", KeyspaceCreateOptions::default)?,
            database,
            persist: match durability {
                Durability::Synced => PersistMode::SyncData,
                Durability::Unsynced => PersistMode::Buffer,
            },
        })
    }
}

/// The place comes in big-endian behind the key, so that a list lies side by side and in order.
pub fn place(key: &str, index: u64) -> Vec<u8> {
    let mut place = Vec::with_capacity(key.len() + 8);
    place.extend_from_slice(key.as_bytes());
    place.extend_from_slice(&index.to_be_bytes());
    place
}

impl Engine for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()> {
        let mut batch = self.database.batch().durability(Some(self.persist));
        for entry in entries {
            batch.insert(&self.entries, place(entry.key, entry.index), entry.value.as_bytes());
        }
        batch.commit()?;
        Ok(())
    }

    fn get(&mut self, key: &str) -> anyhow::Result<(u64, usize)> {
        let (mut values, mut bytes) = (0, 0);
        for entry in self.entries.prefix(key) {
            bytes += entry.value()?.len();
            values += 1;
        }
        Ok((values, bytes))
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        self.entries.rotate_memtable_and_wait()?;
        self.entries.major_compact()?;
        Ok(())
    }

    fn bytes_per_idle_key(&self) -> Option<f64> {
        None
    }
}
