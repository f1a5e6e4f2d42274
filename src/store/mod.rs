//! The storage engine. Synchronous; it knows ops, segments and the disk, and nothing of actors or networks.

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
