//! The data folder of a node: its lock and the node's name (`identity`), which `identity_keeper` writes while the node runs, in files that carry a
//! checksum (`checked_json`).

pub(in crate::node) mod checked_json;
pub mod identity;
pub(in crate::node) mod identity_keeper;
