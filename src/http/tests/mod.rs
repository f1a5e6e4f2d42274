//! The front over real sockets (and in-memory ones where what is buffered must be exact), with a fake store below.

mod admin;
mod batch;
mod bodies;
mod calls;
mod cluster;
mod described;
pub mod fake;
mod limits;
mod lists;
mod overload;
mod places;
mod protocol;
mod random;
mod rig;
mod slow;
mod strangers;
mod untaken;
