//! fjall: a log-structured merge tree. As it comes (LZ4, filters of about 10 bits a key), but for the cache.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Durability, Engine, Entry, Setup, place};

pub struct Fjall {
    database: Database,
    entries: Keyspace,
    persist: PersistMode,
}

impl Fjall {
    pub fn open(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let database = Database::builder(setup.folder.join("fjall"))
            .cache_size(setup.cache_bytes)
            .open()?;
        Ok(Self {
            entries: database.keyspace("entries", KeyspaceCreateOptions::default)?,
            database,
            persist: match setup.durability {
                Durability::Synced => PersistMode::SyncData,
                Durability::Unsynced => PersistMode::Buffer,
            },
        })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()> {
        let mut batch = self.database.batch().durability(Some(self.persist));
        for entry in entries {
            batch.insert(&self.entries, place(entry.key, entry.index), entry.value.as_bytes());
        }
        batch.commit()?;
        Ok(())
    }

    fn get(&self, key: &str) -> anyhow::Result<(u64, usize)> {
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
        self.database.persist(PersistMode::SyncAll)?;
        Ok(())
    }
}
