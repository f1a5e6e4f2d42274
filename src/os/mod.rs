//! The edge to the operating system: the real disk, network, wall clock, entropy and threads behind [`Env`].
//!
//! Invariant: these files only translate. No decision that a simulation would have to see is made here.

pub mod blocking;
pub mod clock;
mod direct;
pub mod disk;
pub mod entropy;
pub mod limits;
pub mod net;
mod page_cache;

use std::sync::Arc;

use crate::env::Env;

pub use blocking::RuntimeThreads;
pub use clock::SystemClock;
pub use disk::RealDisk;
pub use entropy::OsEntropy;
pub use net::RealNet;

/// The world of a real machine. Must be called inside the tokio runtime whose threads are to carry the blocking work.
pub fn env() -> Env {
    Env {
        disk: Arc::new(RealDisk::default()),
        net: Arc::new(RealNet),
        wall: Arc::new(SystemClock),
        entropy: Arc::new(OsEntropy),
        blocking: Arc::new(RuntimeThreads::of_current_runtime()),
    }
}
