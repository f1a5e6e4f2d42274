//! The actors that hold the shards.
//!
//! `supervisor` starts one `shard_actor` per shard and one for the system's own key range, and starts a dead one again from its files. What
//! a shard is asked for gathers in its `inbox`, as `messages`; `permits` bound it. `spreading` sends an op to the other replicas once it
//! has its dot and stamp; `refused` are ops that are taken from nobody; `news` is what peers say of their clocks. `commit_time` is how long
//! commits take.

mod commit_time;
pub mod inbox;
pub mod messages;
pub mod news;
pub mod permits;
mod refused;
mod shard_actor;
pub mod spreading;
pub mod supervisor;
