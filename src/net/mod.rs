//! Connections between nodes: who may take part, and how what they say is kept from everybody else.
//!
//! One cluster key, given to every node, is all that makes a node a member. `key` reads it and derives from it what `datagram` (gossip)
//! and `secure` (streams of frames) use.
//!
//! Invariant: nothing that a stranger sends is remembered, and no length that a stranger names is allocated.

pub mod datagram;
pub mod frame_reader;
pub mod frame_writer;
pub mod key;
mod noise;
mod preamble;
mod record;
mod replay;
pub mod secure;

pub use datagram::{DATAGRAM_BYTES_MAX, Newest, Opener, Refused, RefusedCounts, Sealer};
pub use frame_reader::{FrameError, FrameReader};
pub use frame_writer::{FrameTooLong, FrameWriter};
pub use key::{ClusterKey, KeyRing};
pub use preamble::Versions;
pub use record::FRAME_BYTES_MAX;
pub use secure::{Channel, HandshakeError, Hello, Local, accept, connect};
