//! The simulation: the store's own code on a simulated disk, every fault and every choice from one seed.
#![forbid(unsafe_code)]

mod contract;
mod disk;
mod rng;
