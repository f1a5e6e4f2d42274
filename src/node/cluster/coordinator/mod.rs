//! The coordinator of a request: any replica of the key's slot, which does what the consistency level asks for. A
//! node that is no replica forwards the request to one.
//!
//! | file | job |
//! | --- | --- |
//! | `write`, `outcome`, `seen` | asking, stamping, appending everywhere; what became of it; what a clear is to remove |
//! | `series` | adds to one key that follow each other |
//! | `read`, `taking`, `elsewhere` | making enough replicas hold the same before one is read; where another one has to be read |
//! | `list` | listing keys of all nodes |
//! | `forward` | requests for slots that this node does not hold |
//!
//! Invariants: an op is acknowledged when as many replicas as its level asks for hold it durably; what is read at quorum is on a quorum, and
//! nothing of it is shown without all that was acknowledged before it.

mod elsewhere;
mod forward;
mod list;
mod outcome;
mod read;
mod seen;
mod series;
mod taking;
mod write;

pub use elsewhere::Elsewhere;
pub use forward::RemoteReader;
pub(super) use outcome::Taken;
pub(super) use read::Came;
pub(super) use taking::Taking;
pub(super) use write::{Patience, Try};

#[cfg(test)]
mod tests;
