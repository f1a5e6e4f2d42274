//! The first moments of a cluster: nodes join freely only while it holds no user data, so none is taken before all that are expected are in,
//! or one of them does not come for too long.
//!
//! Expected is who stands in this node's own list. Whoever comes later than that takes a lost one's place, or stays out.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::node::cluster::Inner;

/// How long a new cluster waits for those who are missing, from when this node belongs to it. Long enough to start the machines one by one.
const GATHERING_MAX: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Gathering {
    since: OnceLock<Instant>,
    is_over: AtomicBool,
}

impl Inner {
    /// Why no user data is taken yet by a member, if none is.
    pub(in crate::node::cluster) fn why_gathering(&self) -> Option<String> {
        let gathering = &self.members.gathering;
        if gathering.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let table = &self.layout().table;
        if !table.is_up(self.me) {
            return None;
        }
        let since = gathering.since.get_or_init(Instant::now);
        let listed: BTreeSet<_> = self.config.join.iter().chain([&self.config.advertise]).collect();
        let (expected, known) = (listed.len(), table.seats_ever());
        if known >= expected || since.elapsed() >= GATHERING_MAX || self.local.holds_user_data() {
            gathering.is_over.store(true, Ordering::Relaxed);
            return None;
        }
        Some(format!(
            "the cluster is new, and {known} of {expected} members are in: it takes data when all are, or {} s after it was founded",
            GATHERING_MAX.as_secs()
        ))
    }
}
