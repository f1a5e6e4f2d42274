//! A load generator: many connections that send requests as a plan says, and what came of it.
//!
//! It shares its machine with the server it measures, so it must cost little: requests are put together from parts rendered
//! before the start, answers are parsed without being kept, and nothing is allocated per request.
//!
//! Invariants:
//! - with a rate, an operation's latency counts from the moment it was due, whether or not a connection was free then: a
//!   server that stalls cannot make the generator leave out the requests that would have shown it;
//! - a run ends: at its end, or when it is stopped, plus the time that answers under way may take.
#![expect(
    clippy::disallowed_methods,
    reason = "a load generator measures real time, on threads and sockets of its own; it never runs inside a node"
)]

mod answer;
mod connection;
mod keys;
mod kv;
mod mix;
mod pacer;
mod payload;
mod protocol;
mod record;
mod report;
mod run;
mod schedule;

pub use answer::HttpAnswers;
pub use keys::{Distribution, KeyPicker};
pub use kv::{KvProtocol, KvTarget};
pub use mix::{Mix, Operation};
pub use payload::Payload;
pub use protocol::{Answer, Garbled, Protocol, Step};
pub use record::Latencies;
pub use report::{Report, Second, Times, thousands, time};
pub use run::{Load, LoadError, run, run_or_stop};
