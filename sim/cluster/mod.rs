//! Whole clusters of real nodes in one deterministic process.
//!
//! Each node is `kv_storage::server::Server`, started as in production, on a tokio runtime of its own; `Env` and libc's clock and
//! chance are simulated. Clients speak HTTP to it through the simulated network, some of them through the product's own client, and what they saw is checked in the end.

mod audit;
mod bug;
mod check;
mod child;
mod client;
mod env;
mod faults;
mod find;
mod history;
mod host;
mod lie;
mod listing;
mod net;
mod node;
mod once;
mod os;
mod plan;
mod product;
mod record;
mod runs;
mod scale;
mod scale_table;
mod survey;
mod trace;
mod workload;
mod world;
