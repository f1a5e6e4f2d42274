//! Real nodes, real sockets: clusters of `kv serve` processes under all that can happen to them.
//!
//! | file | job |
//! | --- | --- |
//! | `rig` | the processes of one cluster: started, killed, frozen; what each of them says |
//! | `load` | writers that remember what was acknowledged, and find it again |
//! | `wires` | network namespaces, and what can be cut between them |
//! | the others | the tests |
#![allow(
    clippy::disallowed_methods,
    reason = "a test of the real program on the real machine"
)]

mod common;

#[path = "cluster/chaos.rs"]
mod chaos;
#[path = "cluster/cleared.rs"]
mod cleared;
#[path = "cluster/cut_off.rs"]
mod cut_off;
#[path = "cluster/disks.rs"]
mod disks;
#[path = "cluster/document.rs"]
mod document;
#[path = "cluster/load.rs"]
mod load;
#[path = "cluster/members.rs"]
mod members;
#[path = "cluster/partitions.rs"]
mod partitions;
#[path = "cluster/processes.rs"]
mod processes;
#[path = "cluster/replay.rs"]
mod replay;
#[path = "cluster/rig.rs"]
mod rig;
#[path = "cluster/status.rs"]
mod status;
#[path = "cluster/strangers.rs"]
mod strangers;
#[path = "cluster/tls.rs"]
mod tls;
#[path = "cluster/users.rs"]
mod users;
#[path = "cluster/wires.rs"]
mod wires;
#[path = "cluster/zones.rs"]
mod zones;
