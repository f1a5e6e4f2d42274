//! A node: the actors and the handle through which everything above talks to them.

pub mod error;
pub mod handle;

pub use error::OpError;
pub use handle::{Added, Fragment, KeyPage, Node, ValueReader};
