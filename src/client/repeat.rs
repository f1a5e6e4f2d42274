//! Whether, how long and how often a request is tried again.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Whether a request may be sent again after it may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Also beside a try that is under way.
    AtOnce,
    /// When a try has ended, also in silence, where it may still be at work.
    InTurn,
    /// When a try has ended, but not in silence. Of several nodes, one that is silent before is not sent it.
    InTurnUnlessSilent,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Repeat<'a> {
    pub again: Again,
    /// Set when a try may have taken effect, whatever becomes of the others: the error that is told is that of one try only.
    pub in_doubt: Option<&'a AtomicBool>,
    /// Of one that changes nothing, nobody is told that it may have taken effect.
    pub changes: bool,
}

impl Repeat<'static> {
    pub const SAFE: Self = Self {
        again: Again::AtOnce,
        in_doubt: None,
        changes: true,
    };
    pub const READ: Self = Self {
        changes: false,
        ..Self::SAFE
    };
}

/// How long and how often to try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Rounds through all nodes.
    pub rounds_max: u32,
    /// Of these, how many while no node was ever connected to: the addresses may be wrong.
    pub rounds_unconnected_max: u32,
    /// For all tries and pauses together.
    pub deadline: Duration,
}
