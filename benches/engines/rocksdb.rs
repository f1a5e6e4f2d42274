//! RocksDB: a log-structured merge tree, through the C interface of the system's library.
//!
//! Set up as a user of lists would: LZ4, filters of 10 bits a key that also know keys without the place behind them, so that
//! a list is looked for only where it may be, levels sized from the last one up, and two background threads for two processors.
//! Everything else is as it comes.
//!
//! The functions that are needed are declared here by hand (`rocksdb/c.h`): the crate would build all of RocksDB, and needs libclang.
//! All that is `unsafe` stays in this file. What it relies on:
//! - every pointer here was made by the library, is used only by its functions, and is freed once, when its owner is dropped;
//! - the database may be used by many threads at a time; iterators and batches stay with the thread that made them;
//! - what an iterator points to lives until it is moved.

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{NonNull, null, null_mut};

use anyhow::Context;

use super::{Durability, Engine, Entry, KEY_BYTES, Setup, place};

const FILTER_BITS_PER_KEY: f64 = 10.0;
/// `rocksdb_lz4_compression`.
const LZ4: c_int = 4;
const THREADS: c_int = 2;

/// Something of the library's, of which nothing is known here.
type Opaque = c_void;
type Failure = *mut c_char;

#[link(name = "rocksdb")]
unsafe extern "C" {
    fn rocksdb_options_create() -> *mut Opaque;
    fn rocksdb_options_destroy(options: *mut Opaque);
    fn rocksdb_options_set_create_if_missing(options: *mut Opaque, on: c_uchar);
    fn rocksdb_options_set_compression(options: *mut Opaque, compression: c_int);
    fn rocksdb_options_increase_parallelism(options: *mut Opaque, threads: c_int);
    fn rocksdb_options_set_level_compaction_dynamic_level_bytes(options: *mut Opaque, on: c_uchar);
    /// Takes the transform.
    fn rocksdb_options_set_prefix_extractor(options: *mut Opaque, transform: *mut Opaque);
    fn rocksdb_options_set_block_based_table_factory(options: *mut Opaque, table: *mut Opaque);
    fn rocksdb_slicetransform_create_fixed_prefix(bytes: usize) -> *mut Opaque;
    fn rocksdb_block_based_options_create() -> *mut Opaque;
    fn rocksdb_block_based_options_destroy(table: *mut Opaque);
    /// Takes the policy.
    fn rocksdb_block_based_options_set_filter_policy(table: *mut Opaque, policy: *mut Opaque);
    fn rocksdb_block_based_options_set_block_cache(table: *mut Opaque, cache: *mut Opaque);
    fn rocksdb_filterpolicy_create_bloom_full(bits_per_key: f64) -> *mut Opaque;
    fn rocksdb_cache_create_lru(bytes: usize) -> *mut Opaque;
    /// Gives up the caller's share of it.
    fn rocksdb_cache_destroy(cache: *mut Opaque);
    fn rocksdb_writeoptions_create() -> *mut Opaque;
    fn rocksdb_writeoptions_destroy(options: *mut Opaque);
    fn rocksdb_writeoptions_set_sync(options: *mut Opaque, on: c_uchar);
    fn rocksdb_readoptions_create() -> *mut Opaque;
    fn rocksdb_readoptions_destroy(options: *mut Opaque);
    fn rocksdb_readoptions_set_prefix_same_as_start(options: *mut Opaque, on: c_uchar);
    fn rocksdb_flushoptions_create() -> *mut Opaque;
    fn rocksdb_flushoptions_destroy(options: *mut Opaque);

    fn rocksdb_open(options: *const Opaque, name: *const c_char, failure: *mut Failure) -> *mut Opaque;
    fn rocksdb_close(database: *mut Opaque);
    fn rocksdb_write(database: *mut Opaque, options: *const Opaque, batch: *mut Opaque, failure: *mut Failure);
    fn rocksdb_flush(database: *mut Opaque, options: *const Opaque, failure: *mut Failure);
    fn rocksdb_compact_range(
        database: *mut Opaque,
        start: *const c_char,
        start_bytes: usize,
        limit: *const c_char,
        limit_bytes: usize,
    );
    fn rocksdb_writebatch_create() -> *mut Opaque;
    fn rocksdb_writebatch_destroy(batch: *mut Opaque);
    fn rocksdb_writebatch_clear(batch: *mut Opaque);
    fn rocksdb_writebatch_put(
        batch: *mut Opaque,
        key: *const c_char,
        key_bytes: usize,
        value: *const c_char,
        value_bytes: usize,
    );
    fn rocksdb_create_iterator(database: *mut Opaque, options: *const Opaque) -> *mut Opaque;
    fn rocksdb_iter_destroy(iterator: *mut Opaque);
    fn rocksdb_iter_seek(iterator: *mut Opaque, key: *const c_char, key_bytes: usize);
    fn rocksdb_iter_valid(iterator: *const Opaque) -> c_uchar;
    fn rocksdb_iter_next(iterator: *mut Opaque);
    fn rocksdb_iter_value(iterator: *const Opaque, bytes: *mut usize) -> *const c_char;
    fn rocksdb_iter_get_error(iterator: *const Opaque, failure: *mut Failure);
    fn rocksdb_free(memory: *mut c_void);
}

/// One of the library's things, with the function that frees it.
struct Owned(NonNull<Opaque>, unsafe extern "C" fn(*mut Opaque));

impl Owned {
    fn new(made: *mut Opaque, free: unsafe extern "C" fn(*mut Opaque)) -> anyhow::Result<Self> {
        Ok(Self(NonNull::new(made).context("RocksDB gave no memory")?, free))
    }

    fn get(&self) -> *mut Opaque {
        self.0.as_ptr()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: it was made by the library for this function, and nobody uses it any more.
        unsafe { (self.1)(self.get()) }
    }
}

// SAFETY: all that is shared are the database and options that are not changed any more, which many threads may use at a time.
// A batch or an iterator never leaves the call that uses it, or is reached only through `&mut`.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

/// Gives `call` a place for a failure, and reports what it put there.
fn check<T>(call: impl FnOnce(*mut Failure) -> T) -> anyhow::Result<T> {
    let mut failure: Failure = null_mut();
    let result = call(&raw mut failure);
    if failure.is_null() {
        return Ok(result);
    }
    // SAFETY: the library puts a text there that ends with a zero and is the caller's to free.
    let text = unsafe {
        let text = CStr::from_ptr(failure).to_string_lossy().into_owned();
        rocksdb_free(failure.cast());
        text
    };
    anyhow::bail!("RocksDB: {text}")
}

pub struct RocksDb {
    // Fields are dropped in this order: the database before what it may still use.
    batch: Owned,
    database: Owned,
    write: Owned,
    read: Owned,
    flush: Owned,
    _options: Owned,
    _table: Owned,
    _cache: Owned,
}

impl RocksDb {
    pub fn open(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let path = CString::new(setup.folder.join("rocksdb").as_os_str().as_bytes())?;
        // SAFETY: plain constructors and setters; what is handed over (the transform, the policy) is not kept here.
        unsafe {
            let cache = Owned::new(
                rocksdb_cache_create_lru(setup.cache_bytes as usize),
                rocksdb_cache_destroy,
            )?;
            let table = Owned::new(
                rocksdb_block_based_options_create(),
                rocksdb_block_based_options_destroy,
            )?;
            rocksdb_block_based_options_set_block_cache(table.get(), cache.get());
            let filter = rocksdb_filterpolicy_create_bloom_full(FILTER_BITS_PER_KEY);
            rocksdb_block_based_options_set_filter_policy(table.get(), filter);
            let options = Owned::new(rocksdb_options_create(), rocksdb_options_destroy)?;
            rocksdb_options_set_create_if_missing(options.get(), 1);
            rocksdb_options_set_compression(options.get(), LZ4);
            rocksdb_options_increase_parallelism(options.get(), THREADS);
            rocksdb_options_set_level_compaction_dynamic_level_bytes(options.get(), 1);
            let prefix = rocksdb_slicetransform_create_fixed_prefix(KEY_BYTES);
            rocksdb_options_set_prefix_extractor(options.get(), prefix);
            rocksdb_options_set_block_based_table_factory(options.get(), table.get());
            let write = Owned::new(rocksdb_writeoptions_create(), rocksdb_writeoptions_destroy)?;
            rocksdb_writeoptions_set_sync(write.get(), u8::from(setup.durability == Durability::Synced));
            let read = Owned::new(rocksdb_readoptions_create(), rocksdb_readoptions_destroy)?;
            rocksdb_readoptions_set_prefix_same_as_start(read.get(), 1);
            let database = check(|failure| rocksdb_open(options.get(), path.as_ptr(), failure))?;
            Ok(Self {
                batch: Owned::new(rocksdb_writebatch_create(), rocksdb_writebatch_destroy)?,
                database: Owned::new(database, rocksdb_close)?,
                write,
                read,
                flush: Owned::new(rocksdb_flushoptions_create(), rocksdb_flushoptions_destroy)?,
                _options: options,
                _table: table,
                _cache: cache,
            })
        }
    }
}

impl Engine for RocksDb {
    fn commit(&mut self, entries: &[Entry<'_>]) -> anyhow::Result<()> {
        let batch = self.batch.get();
        // SAFETY: the batch is ours alone (`&mut self`), and copies the bytes that it is given.
        unsafe {
            rocksdb_writebatch_clear(batch);
            for entry in entries {
                let place = place(entry.key, entry.index);
                let value = entry.value;
                rocksdb_writebatch_put(
                    batch,
                    place.as_ptr().cast(),
                    place.len(),
                    value.as_ptr().cast(),
                    value.len(),
                );
            }
            check(|failure| rocksdb_write(self.database.get(), self.write.get(), batch, failure))
        }
    }

    fn get(&self, key: &str) -> anyhow::Result<(u64, usize)> {
        let (mut values, mut bytes) = (0, 0);
        // SAFETY: the iterator does not leave this call, and is dropped before the database; only the length of what it points to
        // is looked at.
        unsafe {
            let made = rocksdb_create_iterator(self.database.get(), self.read.get());
            let iterator = Owned::new(made, rocksdb_iter_destroy)?;
            rocksdb_iter_seek(iterator.get(), key.as_ptr().cast(), key.len());
            while rocksdb_iter_valid(iterator.get()) != 0 {
                let mut value_bytes = 0;
                rocksdb_iter_value(iterator.get(), &raw mut value_bytes);
                bytes += value_bytes;
                values += 1;
                rocksdb_iter_next(iterator.get());
            }
            check(|failure| rocksdb_iter_get_error(iterator.get(), failure))?;
        }
        Ok((values, bytes))
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        // SAFETY: no bounds means everything.
        unsafe {
            check(|failure| rocksdb_flush(self.database.get(), self.flush.get(), failure))?;
            rocksdb_compact_range(self.database.get(), null(), 0, null(), 0);
        }
        Ok(())
    }
}
