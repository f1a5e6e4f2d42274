//! Whose word counts: a member that runs on an older copy of its disk would vote by what that copy holds.
//!
//! | file | job |
//! | --- | --- |
//! | `introduce` | this node names its life to each peer and tells its clocks; it meets the lives of others |
//! | `file` | the record of the lives that were met, on the disk |
//!
//! Invariant: a replica's word counts (it *votes*) only if its disk holds all that it ever acknowledged of the slot: not while it is new, not
//! where it is damaged, not before the peer that asks, and whoever else it can reach, has seen that it is no older copy of itself.

mod file;
mod introduce;

pub(super) use introduce::Lives;

#[cfg(test)]
mod tests;
