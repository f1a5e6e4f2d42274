//! The storage engine. Synchronous; it knows ops, segments and the disk, and nothing of actors or networks.

pub mod codec;
pub mod disk;
pub mod log;
