//! The simulation: the store's own code on a simulated disk, every fault and every choice from one seed.
//!
//! `KV_SIM_SEEDS` says how many seeds each scenario runs, `KV_SIM_SEED` runs that one alone, `KV_SIM_SCENARIO` one scenario alone. A
//! failure prints the line that repeats it.
#![forbid(unsafe_code)]

mod contract;
mod disk;
mod engine;
mod habits;
mod model;
mod rng;
mod scenario;
mod shard;
mod toy;
mod world;
