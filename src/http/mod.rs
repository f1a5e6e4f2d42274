//! The HTTP front: the JSON API of [`crate::api`] over HTTP/1.1 and cleartext HTTP/2.
//!
//! Invariant: what a client can make this module hold is bounded before it is held: connections, requests in flight, bytes
//! of bodies, bytes of an answer in the making, and the time that any of them may take ([`config`]).
//!
//! The way of a request through the files:
//!
//! | file | what it does |
//! | --- | --- |
//! | `serve` | accepts connections, hands them to hyper, shuts down gracefully |
//! | `protocol` | whether a connection speaks HTTP/1.1 or HTTP/2 |
//! | `watched` | a connection's bytes, which tell what it is doing |
//! | `connection` | what a connection is doing, and the sweep that cuts those which do nothing for too long |
//! | `front` | one request: route, permits, the call, then log and metrics; holds the front's shared state |
//! | `route` | which call a method and path name |
//! | `admission` | which requests are worked on when there are more than the node can do |
//! | `body` | reads a request's body under a permit for its bytes |
//! | `request` | a body with its credentials: parsing, and who it is from |
//! | `shape` | which fields each body has, with their limits: the one table behind `explain` and `openapi` |
//! | `explain` | every fault of a body that could not be read, for 422 |
//! | `calls` | the calls: on `keys`, in a `batch`, on `users`, on the `cluster`; `values` makes a key's list JSON, as a stream |
//! | `answer` | answers and their bodies |
//! | `untaken` | answers over HTTP/2 on their way, and how long they have waited to be taken |
//! | `failure` | every error with its status and words |
//! | `metrics` | what the front counts; `shards` and `cluster` add what the node counts |
//! | `openapi` | the description of all this |
//! | `backend` | what the front needs from below |
//! | `config` | the limits, each with its reason |
//!
//! A body is parsed once, straight into borrowing structs. Only when that fails is it read again by `explain`, which keeps
//! nothing but the faults. Nothing is revealed or changed before the credentials were checked.

mod admission;
mod answer;
mod backend;
mod body;
mod calls;
pub mod config;
mod connection;
mod explain;
mod failure;
mod front;
mod metrics;
mod openapi;
mod protocol;
mod request;
mod route;
mod serve;
mod shape;
mod untaken;
mod watched;

#[cfg(test)]
mod tests;

pub use crate::node::Terms;
pub use backend::{Backend, ClusterError, Live, Reader};
pub use config::FrontConfig;
pub use explain::faults_of_body;
pub use front::Front;
pub use metrics::MetricSource;
pub use openapi::document as openapi_document;
pub use serve::serve;
