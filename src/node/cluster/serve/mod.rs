//! What this node answers to other members.
//!
//! | file | job |
//! | --- | --- |
//! | `door` | the way in, and the answer to each request |
//! | `opened` | readers and pulls that peers have open here |
//!
//! Invariant: nobody's word is taken for more than it is: who does not know this node's life, or is no replica of the slot by this node's table,
//! gets no vote and no acknowledgement.

mod door;
mod opened;

pub(super) use door::Door;
pub(super) use opened::Opened;
