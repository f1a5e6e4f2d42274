//! Who belongs to the cluster, on which seat, and where it is.
//!
//! | file | job |
//! | --- | --- |
//! | `table` | the member table, kept as records of the system's own key range, which every node holds. Pure |
//! | `records`, `layout` | its records, read and added; the table and the placement that follows from it, as it is now |
//! | `gossip` | who is there |
//! | `join`, `join_round`, `admit`, `change` | coming in; what came of a round of asking; letting in; what an admin changes |
//! | `join_requests`, `place`, `strangers` | who asks to be let in; whose an address is; who is there and in no record |
//! | `gathering`, `standstill`, `outside` | when no user data is taken: in the first moments, while the table changes, by who is no member |
//!
//! Invariant: on each seat sits one node, and no data moves but to a new seat, or to whoever takes a lost node's.

mod admit;
mod change;
pub(super) mod gathering;
pub(super) mod gossip;
pub(super) mod join;
mod join_requests;
mod join_round;
pub(super) mod layout;
mod outside;
mod place;
mod records;
mod standstill;
pub(super) mod strangers;
mod table;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::node::membership::{ClusterView, Membership};

use gathering::Gathering;
use join_requests::JoinRequests;
use layout::Layouts;
use standstill::Standstill;
use strangers::Strangers;

pub use change::{MemberChange, MemberRefused};
pub(super) use layout::Layout;
pub(super) use strangers::SHOWING_MAX;
pub use table::{MemberState, MemberTable};

/// What a member knows of the members.
#[derive(Default)]
pub(super) struct Members {
    layouts: Layouts,
    membership: Mutex<Option<Membership>>,
    /// What gossip saw last.
    pub(super) view: watch::Sender<ClusterView>,
    /// Why this node is not let in, as it was told or knows itself.
    why_not_in: Mutex<Option<String>>,
    join_requests: JoinRequests,
    gathering: Gathering,
    standstill: Standstill,
    strangers: Strangers,
    /// Held by whoever changes the member table.
    pub(super) changing: tokio::sync::Mutex<()>,
}

#[cfg(test)]
mod tests;
