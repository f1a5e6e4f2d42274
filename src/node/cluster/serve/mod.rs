//! What this node answers to other members.
//!
//! | file | job |
//! | --- | --- |
//! | `door` | the way in, and where the answer to each request comes from |
//! | `writes`, `reads` | answers to who coordinates a write; to who reads through this node, or catches up with it |
//! | `opened` | readers and pulls that peers have open here |
//!
//! Invariant: nobody's word is taken for more than it is: who does not know this node's life, or is no replica of the slot by this node's table,
//! gets no vote and no acknowledgement.

mod door;
mod opened;
mod reads;
mod writes;

pub(super) use door::Door;
pub(super) use opened::Opened;
