//! The integration tests: real binaries, real sockets, real disks; and what the sources, the README and the files of older versions have
//! to hold.
//!
//! One program, so that all of them run side by side (most wait for processes) and are linked once. What counts allocations has its own:
//! `bounded_memory`, `fuzz_bounded`.
//!
//! | module | what it tests |
//! | --- | --- |
//! | `architecture`, `readme` | imports and files of the source; every command and number of the README |
//! | `seed_document`, `usage_example` | the contract: the original product's document |
//! | `bad_input`, `isolation` | what is refused over HTTP; what a user sees of others |
//! | `cli`, `command_line`, `load`, `local_cluster` | `kv`, `kv bench`, `kv run-cluster` |
//! | `kill_nine`, `graceful`, `full_disk`, `fixtures` | ends of all kinds, a full disk, files of every version |
//! | `huge` | huge values and lists in bounded memory |
//! | `cluster` | clusters of real processes, in network namespaces where these are permitted |
#![allow(clippy::disallowed_methods, reason = "tests of the real program on the real machine")]

mod architecture;
mod bad_input;
mod cli;
mod cluster;
mod command_line;
#[path = "../common/mod.rs"]
mod common;
mod fixtures;
mod full_disk;
mod graceful;
mod huge;
mod isolation;
mod kill_nine;
mod load;
mod local_cluster;
mod readme;
mod seed_document;
mod usage_example;
