//! What a member counts of its requests and of its catching up.

use std::sync::atomic::{AtomicU64, Ordering};

/// What went wrong or was repaired, since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) quorum_failures: AtomicU64,
    pub(super) read_repairs: AtomicU64,
    pub(super) forwarded: AtomicU64,
    pub(super) hedged: AtomicU64,
    pub(super) pulled_ops: AtomicU64,
    pub(super) pulled_bytes: AtomicU64,
    /// Ops that came from other replicas, live, for a read, or to catch up.
    pub(super) taken_ops: AtomicU64,
    pub(super) taken_bytes: AtomicU64,
    pub(super) reconciled_slots: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
