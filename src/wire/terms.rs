//! How a forwarded request is to be carried out, and what became of one that was not.

use serde::{Deserialize, Serialize};

/// Consistency level and time left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireTerms {
    /// 0 one, 1 quorum, 2 all.
    pub level: u8,
    /// What is left of the deadline, milliseconds.
    pub left_ms: u32,
}

/// Why a request was not carried out; see `node::OpError`, whose variants these are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireError {
    /// It will not do this at all, or not understand it.
    Refused(String),
    Overloaded {
        retry_after_s: u32,
    },
    DiskFull,
    Unavailable {
        maybe_applied: bool,
    },
    ValueTooLong {
        got: u64,
        max: u64,
    },
    Damaged(String),
    Disk(String),
    Quorum {
        needed: u32,
        answered: u32,
        maybe_applied: bool,
    },
    Deadline {
        maybe_applied: bool,
    },
    ShuttingDown,
}
