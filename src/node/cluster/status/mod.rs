//! What an admin is shown of the cluster, and where that comes from.
//!
//! | file | job |
//! | --- | --- |
//! | `shown` | what each member says of itself, and what this one sees of it |
//! | `figures` | what this node counts and sees, and how far it is behind |
//! | `observe` | what shows only over time: clocks of others, the rate of the stream, and what peers left open here |
//!
//! Invariant: what a member does not know, or does not tell, is absent. It is never shown as nothing.

mod figures;
pub(super) mod observe;
mod shown;

pub use figures::{ClusterFigures, LagFigures, PeerSeen};
pub(super) use observe::Observed;
pub use shown::{ClusterStatus, MemberStatus, OwnStatus};
