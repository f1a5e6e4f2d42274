//! What is said to whoever waits for a call that takes long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A call that is still being tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What the nodes said so far, and who has said nothing.
    pub why: String,
    /// Longest time of the call.
    pub deadline: Duration,
}

/// Who is told of such a call, once, and when.
#[derive(Clone)]
pub(super) struct Notice {
    pub after: Duration,
    pub say: Arc<dyn Fn(&Waiting) + Send + Sync>,
}

impl Notice {
    pub fn give(&self, waiting: &Waiting) {
        (self.say)(waiting);
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notice")
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}
