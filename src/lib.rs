//! KV-Storage.
#![forbid(unsafe_code)]

pub mod api;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod env;
pub mod http;
pub mod node;
pub mod os;
pub mod server;
pub mod shard;
pub mod store;
pub mod types;
pub mod users;
