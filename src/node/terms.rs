//! How far a request has to reach, and how long it may take.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::Consistency;

/// When nothing else is asked for.
const DEADLINE_USUAL: Duration = Duration::from_secs(10);

/// How many replicas a request must reach, and until when it may be answered. A list that streams has reached them, or failed,
/// before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub consistency: Consistency,
    pub deadline: Instant,
}

impl Terms {
    /// At a quorum, within ten seconds.
    pub fn usual() -> Self {
        Self {
            consistency: Consistency::Quorum,
            deadline: Instant::now() + DEADLINE_USUAL,
        }
    }

    /// The same level, until then.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}
