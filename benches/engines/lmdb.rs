//! LMDB: a copy-on-write B+tree in a file that is mapped into memory. Its cache is the operating system's.
//!
//! Without read-ahead where the data is larger than memory, as its documentation advises. It has no compaction but a copy of the
//! whole file, which nobody makes of a store in use: what it takes on disk is what writing left behind.

use anyhow::Context;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use super::{Durability, Engine, Entry, Setup, place};

/// Address space, not memory: more than any benchmark writes.
const MAP_BYTES: usize = 64 << 30;
/// Threads that may read at the same time.
const READERS_MAX: u32 = 256;

pub struct Lmdb {
    environment: Env,
    entries: Database<'static, Bytes, Bytes>,
}

impl Lmdb {
    pub fn open(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let mut flags = EnvFlags::empty();
        if setup.durability == Durability::Unsynced {
            flags |= EnvFlags::NO_SYNC;
        }
        if setup.larger_than_memory {
            flags |= EnvFlags::NO_READ_AHEAD;
        }
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(READERS_MAX);
        // SAFETY: the file is mapped, so nobody else may write to it: the folder is the benchmark's own, and only one process has
        // it open at a time. NO_SYNC risks the file in a power failure, which ends the benchmark with it.
        let environment = unsafe { options.flags(flags).open(setup.folder)? };
        let transaction = environment.write_txn()?;
        let created = environment.create_databases_and_commit(transaction, |opener, transaction| {
            let entries = opener.create_database(transaction, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(entries))
        })?;
        let entries = created.commit().context("LMDB did not commit")?;
        Ok(Self { environment, entries })
    }
}

impl Engine for Lmdb {
    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()> {
        let mut transaction = self.environment.write_txn()?;
        for entry in entries {
            let place = place(entry.key, entry.index);
            self.entries.put(&mut transaction, &place, entry.value.as_bytes())?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn get(&self, key: &str) -> anyhow::Result<(u64, usize)> {
        let transaction = self.environment.read_txn()?;
        let (mut values, mut bytes) = (0, 0);
        for entry in self.entries.prefix_iter(&transaction, key.as_bytes())? {
            let (_, value) = entry?;
            bytes += value.len();
            values += 1;
        }
        Ok((values, bytes))
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        self.environment.force_sync()?;
        Ok(())
    }
}
