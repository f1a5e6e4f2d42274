//! The order in which the ops of one key stand in every sorted source and come out of every merge of sources.
//!
//! Invariant: copies of one op stand side by side, and of them the one that counts comes first: what is left of a cleared op ahead of
//! the op itself. So whoever merges takes the first and drops the others.

use crate::core::op::{Body, Dot, Op};
use crate::core::stamp::{HybridTime, Stamp};

/// Stamp; then the sequence; then whether it is the op itself.
pub(super) type Rank = (Stamp, u64, bool);

pub(super) fn rank_of(op: &Op) -> Rank {
    (op.stamp(), op.dot.seq, !matches!(op.body, Body::Spent { .. }))
}

/// What copies of one op share, and no two ops of a key. A copy with a raised stamp is another one: which of the two stands is for the fold.
pub(super) fn copy_of(op: &Op) -> (Dot, HybridTime) {
    (op.dot, op.time)
}
