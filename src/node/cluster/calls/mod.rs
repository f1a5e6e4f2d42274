//! Requests to peers, and what their answers mean. The ground that the other parts stand on: nothing here knows what a request is for.
//!
//! | file | job |
//! | --- | --- |
//! | `gather` | one request to several replicas, until enough gave an answer that counts |
//! | `ask` | one request of a round that ends early when it fails |
//! | `tries` | one request to one replica after the other |
//! | `errors`, `terms` | errors, terms and names, here and as they go over the wire |
//!
//! Invariant: an error says whether the request may have had an effect.

mod ask;
mod errors;
mod gather;
mod terms;
mod tries;

pub(super) use ask::{Broken, ask, connection_of};
pub use errors::is_worth_another;
pub(super) use errors::{doubted, error_of, maybe_applied, refused, unanswered, wire_error};
pub(super) use gather::{HEDGE, SLOW, gather};
pub(super) use terms::{names, terms_of, wire_terms};
pub(super) use tries::Tries;
