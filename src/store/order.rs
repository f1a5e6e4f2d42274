//! The order in which the ops of one key stand in every sorted source and come out of every merge of sources.
//!
//! Invariant: copies of one op stand side by side, and the one that counts comes first: the `Spent` remainder of a cleared op before the op
//! itself. So a merge takes the first and drops the others.

use crate::core::op::{Body, Op};
use crate::core::stamp::Stamp;

/// Stamp; then the sequence; then whether it is the op itself.
pub type Rank = (Stamp, u64, bool);

pub fn rank_of(op: &Op) -> Rank {
    (op.stamp(), op.dot.seq, !matches!(op.body, Body::Spent { .. }))
}
