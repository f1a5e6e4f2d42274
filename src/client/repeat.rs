//! Whether, how long and how often a request is tried again.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::entropy;
use super::error::ClientError;

/// First pause between two rounds; it doubles from round to round.
const BACKOFF_MS: u64 = 100;
/// Longest pause between two rounds.
const BACKOFF_MS_MAX: u64 = 5_000;
/// A `Retry-After` beyond this is cut: the node is asked again after at most this long.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);

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
    /// Given, with the answer of one try, what came of another one that may have taken effect. That answer may say of parts of the request that
    /// they were not done.
    pub elsewhere: Option<&'a Mutex<Option<ClientError>>>,
    /// Of one that changes nothing, nobody is told that it may have taken effect.
    pub changes: bool,
}

impl Repeat<'static> {
    pub const SAFE: Self = Self {
        again: Again::AtOnce,
        in_doubt: None,
        elsewhere: None,
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

/// Half of the pause is random, so that clients that failed together do not come back together.
pub(super) fn pause(round: u32, error: &ClientError) -> Duration {
    let full_ms = BACKOFF_MS
        .saturating_mul(1 << round.saturating_sub(1).min(16))
        .min(BACKOFF_MS_MAX);
    let pause = Duration::from_millis(full_ms / 2 + entropy::u64() % (full_ms / 2 + 1));
    match error {
        ClientError::Unavailable {
            retry_after: Some(asked),
            ..
        } => pause.max((*asked).min(RETRY_AFTER_MAX)),
        _ => pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_keep_to_what_the_node_asked_for() {
        let broken = ClientError::Broken {
            url: "u".to_owned(),
            reason: "r".to_owned(),
            silent: false,
        };
        assert!(pause(1, &broken) <= Duration::from_millis(BACKOFF_MS));
        assert!(pause(60, &broken) <= Duration::from_millis(BACKOFF_MS_MAX));
        assert!(pause(60, &broken) >= Duration::from_millis(BACKOFF_MS_MAX / 2));
        let asked = |seconds| ClientError::Unavailable {
            detail: String::new(),
            code: None,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(pause(1, &asked(3)), Duration::from_secs(3));
        assert_eq!(pause(1, &asked(3600)), RETRY_AFTER_MAX);
    }
}
