//! redb: a copy-on-write B+tree.

use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition};

use super::fjall::place;
use super::{CACHE_BYTES, Durability, Engine, Entry};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

pub struct Redb {
    database: Database,
    durability: redb::Durability,
}

impl Redb {
    pub fn open(folder: &Path, durability: Durability) -> anyhow::Result<Self> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES as usize)
            .create(folder.join("entries.redb"))?;
        let durability = match durability {
            Durability::Synced => redb::Durability::Immediate,
            Durability::Unsynced => redb::Durability::None,
        };
        Ok(Self { database, durability })
    }
}

impl Engine for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            for entry in entries {
                table.insert(&*place(entry.key, entry.index), entry.value.as_bytes())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn get(&mut self, key: &str) -> anyhow::Result<(u64, usize)> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(ENTRIES)?;
        let (mut values, mut bytes) = (0, 0);
        for entry in table.range(&*place(key, 0)..=&*place(key, u64::MAX))? {
            let (_, value) = entry?;
            bytes += value.value().len();
            values += 1;
        }
        Ok((values, bytes))
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        self.durability = redb::Durability::Immediate;
        self.commit(&[])?;
        self.database.compact()?;
        Ok(())
    }

    fn bytes_per_idle_key(&self) -> Option<f64> {
        // Nothing but its cache.
        None
    }
}
