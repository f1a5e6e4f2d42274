//! The replicated data type, the hash space, and which nodes hold which slot. Pure: no clock, no I/O, no async, no actors.

pub mod clock;
pub mod dots;
pub mod fold;
pub mod key_ops;
pub mod op;
pub mod placement;
pub mod slot;
pub mod stamp;
