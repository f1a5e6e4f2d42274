//! Whose word counts: a member that runs on an older copy of its disk would vote by what that copy holds.
//!
//! | file | job |
//! | --- | --- |
//! | `introduce` | this node names its life to each peer, and tells its clocks |
//! | `meet` | what it answers to the others' |
//! | `known` | who knows its life, and whether those who would know better had their say |
//! | `file` | the record of the lives that were met, on the disk |
//! | `votes` | whether the word of this node counts |
//! | `named` | whether what a new member has durably makes a quorum |
//!
//! Invariant: a replica's word counts (it *votes*) only if its disk holds all that it ever acknowledged of the slot: not while it is new, not
//! where it is damaged, not before the peer that asks, and whoever else it can reach, has seen that it is no older copy of itself.

mod file;
mod introduce;
mod known;
mod meet;
mod named;
mod votes;

pub(super) use known::Lives;
pub(super) use named::Named;

#[cfg(test)]
mod tests;
