//! Real nodes, real sockets: clusters of `kv serve` processes under all that can happen to them.
//!
//! | file | job |
//! | --- | --- |
//! | `rig` | the processes of one cluster: started, killed, frozen; what each of them says |
//! | `load` | writers that remember what was acknowledged, and find it again |
//! | `wires` | network namespaces, and what can be cut between them |
//! | the others | the tests |

mod chaos;
mod cleared;
mod cut_off;
mod disks;
mod document;
mod load;
mod members;
mod partitions;
mod processes;
mod replay;
mod rig;
mod status;
mod strangers;
mod tls;
mod users;
mod wires;
mod zones;
