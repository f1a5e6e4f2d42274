//! What can become of a request to a node.

use crate::env::Abandoned;
use crate::shard::WriteRefused;
use crate::store::segment::ReadError;

pub(super) const OTHER_REQUEST: &str =
    "this request_id was used for another add or clear of this key: nothing was changed";

/// Why an operation was not carried out. `maybe_applied` says whether it may have taken effect all the same: then a retry
/// with the same request id is the way to be sure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    #[error("the node is overloaded: {what} is full; retry after {retry_after_s} s")]
    Overloaded { what: &'static str, retry_after_s: u32 },
    #[error("the disk is full: adds are refused until space returns; reads and clear_key go on")]
    DiskFull,
    #[error("the shard that owns this key is restarting; retry{}", if *maybe_applied { " (this request may have taken effect)" } else { "" })]
    ShardUnavailable { maybe_applied: bool },
    #[error("the value would grow to {got} bytes; a value assembled from parts is limited to {max} bytes")]
    ValueTooLong { got: u64, max: u64 },
    #[error("{OTHER_REQUEST}")]
    OtherRequest,
    #[error("part of this key's data is damaged on disk and no replica could supply it: {0}")]
    Damaged(String),
    #[error("the disk failed: {0}")]
    Disk(String),
    #[error("another node sent, or refused, what this program does not understand: {0}")]
    Peer(String),
    #[error("this program made something that it cannot use itself: {0}")]
    Internal(String),
    #[error("{needed} {} needed and {answered} answered", if *needed == 1 { "replica is" } else { "replicas are" })]
    Quorum {
        needed: usize,
        answered: usize,
        maybe_applied: bool,
    },
    /// This node cannot carry out anything yet, and says why.
    #[error("{0}")]
    NotReady(String),
    /// The time that the request gave is over.
    #[error("no answer within the request's deadline")]
    Deadline { maybe_applied: bool },
    /// Nothing of it was begun.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl OpError {
    /// Whether it may have taken effect all the same.
    pub fn maybe_applied(&self) -> bool {
        matches!(
            self,
            Self::ShardUnavailable { maybe_applied: true }
                | Self::Deadline { maybe_applied: true }
                | Self::Quorum {
                    maybe_applied: true,
                    ..
                }
        )
    }

    /// This error where the outcome is not known.
    pub fn doubted(self) -> Self {
        match self {
            error if error.maybe_applied() => error,
            Self::Quorum { needed, answered, .. } => Self::Quorum {
                needed,
                answered,
                maybe_applied: true,
            },
            Self::Deadline { .. } => Self::Deadline { maybe_applied: true },
            _ => Self::ShardUnavailable { maybe_applied: true },
        }
    }
}

impl From<WriteRefused> for OpError {
    fn from(refused: WriteRefused) -> Self {
        match refused {
            WriteRefused::ValueTooLong { got, max } => Self::ValueTooLong { got, max },
            WriteRefused::OtherRequest => Self::OtherRequest,
            WriteRefused::DiskFull => Self::DiskFull,
            WriteRefused::Stopped | WriteRefused::Unsealed => Self::ShardUnavailable { maybe_applied: false },
        }
    }
}

impl From<ReadError> for OpError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(block) => Self::Damaged(block.to_string()),
            error @ ReadError::Io { .. } => Self::Disk(error.to_string()),
        }
    }
}

impl From<Abandoned> for OpError {
    fn from(_: Abandoned) -> Self {
        Self::ShuttingDown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_doubt_is_told_as_what_it_was() {
        let quorum = |maybe_applied| OpError::Quorum {
            needed: 2,
            answered: 1,
            maybe_applied,
        };
        let late = |maybe_applied| OpError::Deadline { maybe_applied };
        for of in [quorum, late] {
            assert_eq!([of(false).doubted(), of(true).doubted()], [of(true), of(true)]);
        }
        assert!(OpError::DiskFull.doubted().maybe_applied());
    }
}
