//! What an admin is shown of the cluster. Nothing is decided by it.
//!
//! | file | job |
//! | --- | --- |
//! | `shown` | what each member says of itself, and what this one sees of it |
//! | `observe` | what shows only over time: clocks of others, the rate of the stream |

pub(super) mod observe;
mod shown;

pub(super) use observe::Observed;
pub use shown::{ClusterFigures, ClusterStatus, LagFigures, MemberStatus, OwnStatus, PeerSeen};
