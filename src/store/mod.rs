//! The storage engine. Synchronous; it knows ops, segments and the disk, and nothing of actors or networks.
//!
//! | file | what it is |
//! | --- | --- |
//! | `disk`, `memory_disk` | the medium; one in memory for tests |
//! | `codec`, `names`, `order` | what the others share: encoding, hashes of names, the order of ops |
//! | `log`, `memtable`, `segment` | what holds ops: on disk as written, in memory by key, on disk sorted |
//! | `filter`, `cache` | which segments may hold a key; segments' blocks in memory |
//! | `source`, `waiting` | a key's ops from the memtables and segments that hold some, merged in the order of their stamps |
//! | `reader`, `plain`, `spread` | reading a key: by the fold, and faster where it is all text, or a long list of values |
//! | `keys`, `standing` | listing keys; whether a key has anything to show |
//! | `compact` | sealing and merging |
//! | `export` | what peers need of this replica |
//! | `recover` | opening a shard's folder, whatever is left of it |
//! | `whole_file` | small files that are written whole |

pub mod cache;
pub mod codec;
pub mod compact;
pub mod disk;
pub mod export;
pub mod filter;
pub mod keys;
pub mod log;
#[cfg(test)]
pub mod memory_disk;
pub mod memtable;
pub mod names;
pub mod order;
mod plain;
pub mod reader;
pub mod recover;
pub mod segment;
pub mod source;
mod spread;
mod standing;
pub mod waiting;
pub mod whole_file;
