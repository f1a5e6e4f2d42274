//! The replicated data type, the hash space, and which nodes hold which slot. Pure: no clock, no I/O, no async, no actors.
//!
//! | file | what it is |
//! | --- | --- |
//! | `op`, `stamp` | the facts of which a key is the set, and the total order over them |
//! | `clock`, `dots` | which ops a replica covers; dots gathered to become a clock |
//! | `fold` | a key's ops as the list of values that a reader sees |
//! | `key_ops` | the same for a key in memory: the reference model |
//! | `slot`, `placement` | the hash space; which nodes hold each slot |

pub mod clock;
pub mod dots;
pub mod fold;
pub mod key_ops;
pub mod op;
pub mod placement;
pub mod slot;
pub mod stamp;
