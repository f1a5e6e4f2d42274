//! The storage engine. Synchronous; it knows ops, segments and the disk, and nothing of actors or networks.

pub mod cache;
pub mod codec;
pub mod disk;
pub mod filter;
#[cfg(test)]
pub mod memory_disk;
pub mod segment;
