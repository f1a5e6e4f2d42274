//! Catching up: whatever a replica lacks, it asks for itself, by its clock.
//!
//! | file | job |
//! | --- | --- |
//! | `sync` | round after round with each peer, and what follows from them for the slots |
//! | `compare`, `pull` | the steps of a round: what both hold, and taking what is lacking |
//! | `offer` | bringing to its replicas what was taken of a slot by the table from before |
//! | `heal` | when a slot that lost something is whole again |
//! | `give_up` | ops that nobody holds any more |
//!
//! Invariant: a slot counts as copied from a peer only when all that the peer had at one comparison is here, and of what the peer had dropped
//! by then nothing is left.

mod compare;
pub(super) mod give_up;
pub(super) mod heal;
mod offer;
mod pull;
pub(super) mod sync;

pub(super) use compare::DOTS_BYTES_MAX;
pub(super) use give_up::Why;

#[cfg(test)]
mod tests;
