//! The storage engine. Synchronous; it knows ops, segments and the disk, and nothing of actors or networks.

pub mod codec;
pub mod disk;
#[cfg(test)]
pub mod memory_disk;
