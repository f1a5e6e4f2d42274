//! Why a try at another node brought nothing, and whether it may have had an effect.

use crate::node::OpError;
use crate::node::error::OTHER_REQUEST;
use crate::node::peers::CallError;
use crate::node::shards::permits::RETRY_AFTER_S;
use crate::wire::WireError;

/// Of a try that brought no answer.
pub(in crate::node::cluster) fn unanswered(error: &CallError, writes: bool) -> OpError {
    match error {
        // It was never sent.
        CallError::Busy => OpError::Overloaded {
            what: "the queue to a replica",
            retry_after_s: RETRY_AFTER_S,
        },
        CallError::NotConnected | CallError::TooLarge { .. } | CallError::Unreachable(_) => {
            OpError::ShardUnavailable { maybe_applied: false }
        }
        CallError::Lost | CallError::Deadline => OpError::ShardUnavailable { maybe_applied: writes },
    }
}

/// Whether another replica may do better.
pub fn is_worth_another(error: &OpError) -> bool {
    matches!(
        error,
        OpError::ShardUnavailable { .. }
            | OpError::ShuttingDown
            | OpError::DiskFull
            | OpError::Disk(_)
            | OpError::Peer(_)
            | OpError::Internal(_)
            | OpError::Damaged(_)
            | OpError::Overloaded { .. }
            | OpError::Quorum {
                maybe_applied: false,
                ..
            }
    )
}

pub fn maybe_applied(error: &OpError) -> bool {
    error.maybe_applied()
}

/// The error, after a try whose outcome is not known.
pub(in crate::node::cluster) fn doubted(error: OpError, in_doubt: bool) -> OpError {
    match in_doubt {
        true => error.doubted(),
        false => error,
    }
}

pub fn wire_error(error: OpError) -> WireError {
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    match error {
        OpError::Overloaded { retry_after_s, .. } => WireError::Overloaded { retry_after_s },
        OpError::DiskFull => WireError::DiskFull,
        OpError::NotReady(_) => WireError::Unavailable { maybe_applied: false },
        OpError::ShardUnavailable { maybe_applied } => WireError::Unavailable { maybe_applied },
        OpError::ValueTooLong { got, max } => WireError::ValueTooLong { got, max },
        // No variant of its own: nodes of before would cut the connection, and all that is on it.
        error @ OpError::OtherRequest => WireError::Refused(error.to_string()),
        OpError::Damaged(what) => WireError::Damaged(what),
        OpError::Disk(what) => WireError::Disk(what),
        error @ (OpError::Peer(_) | OpError::Internal(_)) => WireError::Refused(error.to_string()),
        OpError::Quorum {
            needed,
            answered,
            maybe_applied,
        } => WireError::Quorum {
            needed: small(needed),
            answered: small(answered),
            maybe_applied,
        },
        OpError::Deadline { maybe_applied } => WireError::Deadline { maybe_applied },
        OpError::ShuttingDown => WireError::ShuttingDown,
    }
}

pub fn error_of(error: WireError) -> OpError {
    match error {
        WireError::Refused(why) if why == OTHER_REQUEST => OpError::OtherRequest,
        WireError::Refused(why) => OpError::Peer(why),
        WireError::Overloaded { retry_after_s } => OpError::Overloaded {
            what: "a replica's queue",
            retry_after_s,
        },
        WireError::DiskFull => OpError::DiskFull,
        WireError::Unavailable { maybe_applied } => OpError::ShardUnavailable { maybe_applied },
        WireError::ValueTooLong { got, max } => OpError::ValueTooLong { got, max },
        WireError::Damaged(what) => OpError::Damaged(what),
        WireError::Disk(what) => OpError::Disk(what),
        WireError::Quorum {
            needed,
            answered,
            maybe_applied,
        } => OpError::Quorum {
            needed: needed as usize,
            answered: answered as usize,
            maybe_applied,
        },
        WireError::Deadline { maybe_applied } => OpError::Deadline { maybe_applied },
        WireError::ShuttingDown => OpError::ShuttingDown,
    }
}

/// What a peer asks for cannot be meant.
pub(in crate::node::cluster) fn refused(error: impl std::fmt::Display) -> OpError {
    error_of(WireError::Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_sent_had_no_effect() {
        let never_sent = [
            CallError::Busy,
            CallError::NotConnected,
            CallError::TooLarge { bytes: 1 },
        ];
        for error in never_sent {
            assert!(!maybe_applied(&unanswered(&error, true)), "{error}");
        }
        for error in [CallError::Lost, CallError::Deadline] {
            assert!(maybe_applied(&unanswered(&error, true)), "{error}");
            assert!(!maybe_applied(&unanswered(&error, false)), "{error}");
        }
        assert!(matches!(unanswered(&CallError::Busy, true), OpError::Overloaded { .. }));
    }
}
