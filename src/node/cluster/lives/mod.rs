//! Who may vote. A member whose disk was rolled back (restored from an older copy) would vote without ops that it had
//! acknowledged, so each start is a *life* that peers record and compare.
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
//! Invariant: a replica *votes* (its word counts) for a slot only if its disk holds everything that it ever
//! acknowledged there. So it does not vote while it is new, where it is damaged, or before the asking peer and all
//! others that it can reach have confirmed that its disk is not rolled back.

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
