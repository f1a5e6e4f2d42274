//! What this node knows of its peers' clocks, which are all that two replicas compare.
//!
//! | file | job |
//! | --- | --- |
//! | `book` | what the others told, what all of them know, and of whom this node has everything |
//! | `book::claim`, `book::due`, `book::lag`, `book::moment` | what a peer is being asked for; what has to come before a slot is in sync; how much is lacking; when it was heard of |
//! | `told` | what a peer told in its life before, and has to hold in the next |
//! | `exchange` | comparing digests with a peer, and exchanging the clocks that differ |
//! | `settled` | when two have nothing to tell each other |
//!
//! Invariant: a clock that is known covers only what was durable at its node when it told it; damage, another life and another table end
//! what was concluded from it.

mod book;
mod exchange;
mod settled;
mod told;

pub(super) use book::{ClockBook, Moment};
pub(super) use exchange::{Portions, clock_bytes, digest_of, portions, split};
pub(super) use told::Finding;
