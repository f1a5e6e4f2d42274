//! The simulation: the store's own code on a simulated disk, every fault and every choice from one seed.
//!
//! `README.md` beside this says what there is and how it is run. `KV_SIM_SEEDS` says how many seeds each scenario runs, `KV_SIM_SEED` runs that one alone, `KV_SIM_SCENARIO` one scenario alone. A
//! failure prints the line that repeats it; with `KV_SIM_TRACE=FILE` its every step and disk operation go to that file.
#![deny(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "the simulation stands outside of what it simulates"
)]

mod cluster;
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
