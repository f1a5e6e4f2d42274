//! What of the cluster shows only over time: how far the others' wall clocks are from this node's, and how fast ops come in.
//!
//! A peer tells its wall clock whenever its status is asked for. So that `/metrics` knows it too, that is done once on each connection
//! and then every minute: some three hundred bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use crate::node::cluster::Inner;
use crate::node::cluster::calls::connection_of;
use crate::node::peers::Peer;
use crate::types::NodeId;
use crate::wire::WireOp;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);
/// A clock that was seen so long ago is asked for again.
const SKEW_AGE_MAX: Duration = Duration::from_secs(60);
/// The rate is that of the time between the youngest and the oldest of so many looks.
const SAMPLES: usize = 6;

/// How fast ops come in from other replicas, live and to catch up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StreamRate {
    pub ops_per_s: f64,
    pub bytes_per_s: f64,
}

#[derive(Debug, Clone, Copy)]
struct Skew {
    ms: i64,
    seen_at: Instant,
    /// Which of the connections to the peer it was seen on.
    connection: u64,
}

#[derive(Default)]
pub(in crate::node::cluster) struct Observed {
    skews: Mutex<BTreeMap<NodeId, Skew>>,
    /// When, and how many ops and bytes had come in by then.
    came_in: Mutex<VecDeque<(Instant, u64, u64)>>,
}

impl Observed {
    /// The peer's wall clock read `theirs_ms` at some time between when it was asked and now.
    pub(super) fn note_wall(&self, peer: &Peer, theirs_ms: u64, now_ms: u64, asked_at: Instant) {
        let there_and_back_ms = asked_at.elapsed().as_millis() as u64;
        let then_ms = now_ms.saturating_sub(there_and_back_ms / 2);
        let skew = Skew {
            ms: difference(theirs_ms, then_ms),
            seen_at: Instant::now(),
            connection: connection_of(peer),
        };
        self.skews.lock().insert(peer.node(), skew);
    }

    /// How far the peer's wall clock is ahead of this node's; unknown where there is no connection.
    pub(super) fn skew_ms(&self, peer: &Peer) -> Option<i64> {
        let skews = self.skews.lock();
        let skew = skews.get(&peer.node()).filter(|_| peer.is_up());
        skew.map(|skew| skew.ms)
    }

    fn is_due(&self, peer: &Peer) -> bool {
        let skews = self.skews.lock();
        let is_recent = |skew: &Skew| skew.connection == connection_of(peer) && skew.seen_at.elapsed() < SKEW_AGE_MAX;
        peer.is_up() && !skews.get(&peer.node()).is_some_and(is_recent)
    }

    fn sample(&self, ops: u64, bytes: u64) {
        let mut samples = self.came_in.lock();
        samples.push_back((Instant::now(), ops, bytes));
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    /// Unknown right after the start.
    pub(super) fn stream_rate(&self) -> Option<StreamRate> {
        let samples = self.came_in.lock();
        let ((since, ops_before, bytes_before), (until, ops, bytes)) = (samples.front()?, samples.back()?);
        let time_s = (*until - *since).as_secs_f64();
        let per_s = |before: u64, now: u64| now.saturating_sub(before) as f64 / time_s;
        (time_s > 0.0).then(|| StreamRate {
            ops_per_s: per_s(*ops_before, *ops),
            bytes_per_s: per_s(*bytes_before, *bytes),
        })
    }
}

/// `a - b`, whatever the clocks read.
fn difference(a: u64, b: u64) -> i64 {
    let abs = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a >= b { abs } else { -abs }
}

impl Inner {
    /// Counts ops that were taken from the peer to catch up.
    pub(in crate::node::cluster) fn note_pulled(&self, peer: &Peer, ops: &[WireOp]) {
        let (ops, bytes) = (ops.len() as u64, ops.iter().map(WireOp::cost).sum::<usize>() as u64);
        self.counters.pulled_ops.fetch_add(ops, Ordering::Relaxed);
        self.counters.pulled_bytes.fetch_add(bytes, Ordering::Relaxed);
        peer.note_pulled(ops, bytes);
    }
}

/// Looks again and again, for as long as the node runs.
pub(in crate::node::cluster) async fn run(inner: Arc<Inner>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        inner.serving.close_idle();
        let counters = &inner.counters;
        inner.observed.sample(
            counters.taken_ops.load(Ordering::Relaxed),
            counters.taken_bytes.load(Ordering::Relaxed),
        );
        let due = inner.peers.all().into_iter().filter(|peer| inner.observed.is_due(peer));
        join_all(due.map(|peer| {
            let inner = &inner;
            async move { inner.status_of(&peer).await }
        }))
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_read_anything() {
        assert_eq!(difference(5, 8), -3);
        assert_eq!(difference(u64::MAX, 0), i64::MAX);
        assert_eq!(difference(0, u64::MAX), -i64::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_that_of_the_last_seconds() {
        let observed = Observed::default();
        assert_eq!(observed.stream_rate(), None);
        observed.sample(100, 5_000);
        assert_eq!(observed.stream_rate(), None, "one look tells of no time");
        for second in 1..=10 {
            tokio::time::advance(LOOK).await;
            observed.sample(100 + second * 10, 5_000 + second * 700);
        }
        let rate = observed.stream_rate().unwrap();
        assert_eq!((rate.ops_per_s, rate.bytes_per_s), (10.0, 700.0));
        for _ in 0..SAMPLES {
            tokio::time::advance(LOOK).await;
            observed.sample(200, 12_000);
        }
        assert_eq!(observed.stream_rate().unwrap().ops_per_s, 0.0);
    }
}
