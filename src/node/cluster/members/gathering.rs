//! The first moments of a cluster: nodes join freely only while it holds no user data, so none is taken before all that are expected are in, and
//! the word of each of them counts, or one of them does not come for too long.
//!
//! Expected is who stands in this node's own list. Whoever comes later than that takes a lost one's place, or stays out.
//!
//! Why their word has to count: a member that still copies what the others hold has to have heard of each of them, so where one of three
//! goes down before that, the two that are left would be no quorum until it is back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::core::slot::SYSTEM_SLOT;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::ask;
use crate::types::NodeId;
use crate::wire::{Request, Response};

/// How long a new cluster waits for those who are missing, from when this node belongs to it. Long enough to start the machines one by one.
const GATHERING_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whose word counts.
const LOOK: Duration = Duration::from_millis(100);
/// Who is silent does not keep the others from being heard for longer.
const LOOK_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Gathering {
    since: OnceLock<Instant>,
    is_over: AtomicBool,
    /// Members that have said that their word counts.
    counting: Mutex<BTreeSet<NodeId>>,
}

/// Looks who is in, and whose word counts, until user data is taken.
pub(in crate::node::cluster) async fn run(inner: Arc<Inner>) {
    let gathering = &inner.members.gathering;
    // From now on it waits for the others, whether or not somebody writes.
    while inner.why_gathering().is_some() || !gathering.is_over.load(Ordering::Relaxed) {
        inner.look_who_counts().await;
        sleep(LOOK).await;
    }
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
        let missing = match known < expected {
            true => format!("{known} of {expected} members are in: it takes data when all are"),
            false => match self.not_counting() {
                0 => String::new(),
                not => format!(
                    "{not} of {} members still look at what the others hold: it takes data when all have",
                    table.up().count()
                ),
            },
        };
        if missing.is_empty() || since.elapsed() >= GATHERING_MAX || self.local.holds_user_data() {
            gathering.is_over.store(true, Ordering::Relaxed);
            return None;
        }
        Some(format!(
            "the cluster is new, and {missing}, or {} s after it was founded",
            GATHERING_MAX.as_secs()
        ))
    }

    /// Of how many members the word does not count yet, as far as this one has heard. One that was restarted, or takes a lost one's place, does not
    /// come to a new cluster, and waits for none of them.
    fn not_counting(&self) -> usize {
        let table = &self.layout().table;
        let takes_a_place = table.get(self.me).is_some_and(|record| record.replaces.is_some());
        if !self.local.life().is_new || takes_a_place {
            return 0;
        }
        let counting = self.members.gathering.counting.lock();
        let counts = |node| counting.contains(&node) || node == self.me && self.votes(SYSTEM_SLOT);
        table.up().filter(|(node, _)| !counts(*node)).count()
    }

    pub(super) async fn look_who_counts(&self) {
        let others: Vec<NodeId> = {
            let counting = self.members.gathering.counting.lock();
            let layout = self.layout();
            let others = layout.table.up().map(|(node, _)| node);
            others
                .filter(|node| *node != self.me && !counting.contains(node))
                .collect()
        };
        let looks = others.into_iter().map(|node| async move {
            // One that has not introduced itself here would be none of the first write's quorum.
            let peer = self.up_peers(&[node]).pop()?;
            let request = Request::Digest { slot: SYSTEM_SLOT.0 };
            match timeout(LOOK_MAX, ask(&peer, request)).await {
                Ok(Ok(Response::Digest { votes: true, .. })) => Some(node),
                _ => None,
            }
        });
        let found = futures_util::future::join_all(looks).await;
        self.members
            .gathering
            .counting
            .lock()
            .extend(found.into_iter().flatten());
    }
}
