//! Who belongs to the cluster, on which seat, and where it is.
//!
//! | file | job |
//! | --- | --- |
//! | `table` | the member table, kept as records of the system's own key range, which every node holds. Pure |
//! | `layout` | the table and the placement that follows from it, watched for change |
//! | `gossip` | who is there |
//! | `join`, `asked` | coming in, letting in, replacing; what came of a round of asking |
//! | `asking`, `place`, `strangers` | who asks to be let in; whose an address is; who is there and in no record |
//! | `gathering`, `standstill` | when no user data is taken: in the first moments, and while the table changes |
//!
//! Invariant: on each seat sits one node, and no data moves but to a new seat, or to whoever takes a lost node's.

mod asked;
mod asking;
mod gathering;
pub(super) mod gossip;
pub(super) mod join;
pub(super) mod layout;
mod place;
mod standstill;
pub(super) mod strangers;
mod table;

pub(super) use asking::Asking;
pub(super) use gathering::Gathering;
pub use join::{MemberChange, MemberRefused};
pub(super) use layout::{Layout, Layouts};
pub(super) use standstill::Standstill;
pub(super) use strangers::{SHOWING_MAX, Strangers};
pub use table::{MemberState, MemberTable};

#[cfg(test)]
mod tests;
