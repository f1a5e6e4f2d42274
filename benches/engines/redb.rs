//! redb: a copy-on-write B+tree. As it comes, but for the cache.

use redb::{Database, ReadableDatabase, TableDefinition};

use super::{Durability, Engine, Entry, Setup, place};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

pub struct Redb {
    database: Database,
    durability: redb::Durability,
}

impl Redb {
    pub fn open(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let database = Database::builder()
            .set_cache_size(setup.cache_bytes as usize)
            .create(setup.folder.join("entries.redb"))?;
        let durability = match setup.durability {
            Durability::Synced => redb::Durability::Immediate,
            Durability::Unsynced => redb::Durability::None,
        };
        Ok(Self { database, durability })
    }

    fn write(&self, entries: &[Entry<'_>], durability: redb::Durability) -> anyhow::Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(ENTRIES)?;
            for entry in entries {
                table.insert(&*place(entry.key, entry.index), entry.value.as_bytes())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Engine for Redb {
    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()> {
        self.write(entries, self.durability)
    }

    fn get(&self, key: &str) -> anyhow::Result<(u64, usize)> {
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
        // Whatever was not durable yet becomes so with the next commit that is.
        self.write(&[], redb::Durability::Immediate)?;
        self.database.compact()?;
        Ok(())
    }
}
