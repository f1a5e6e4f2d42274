//! Answers over HTTP/2 on their way to the client, and how long they have waited to be taken.
//!
//! There a client lets each of its streams send as much as it likes, or nothing, while the socket under them goes on taking bytes. So
//! each answer counts by itself, from when a piece of it was handed over, and anew whenever some of it went out.
//!
//! Counted by periods, so that there is neither a timer nor a list: the sweep begins a new one each [`PERIODS_OF_TIMEOUT`]th of the
//! timeout, and each connection counts how many of its answers wait since which of the last few.
//!
//! Invariant: what an answer holds is held until its last piece has left, or its stream or connection is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::quota::Share;

use super::answer::Hold;

/// An answer that has waited for one period more than these is overdue, so one is cut after one to one and a half times the timeout.
const PERIODS_OF_TIMEOUT: u64 = 2;
/// The one at hand, those in which an answer may go on waiting, and the one of those that are overdue.
const PERIODS: u64 = PERIODS_OF_TIMEOUT + 2;
/// A client that takes less of an answer within the timeout is as one that takes nothing.
const PROGRESS_BYTES: usize = 1024;

/// Moved by the sweep alone.
#[derive(Debug)]
pub struct Clock {
    /// As long as there are connections: it goes on while the front is started again.
    started: Instant,
    /// Begins at 1: 0 stands for "not now" wherever a time of this clock is kept.
    now_ms: AtomicU64,
    period: AtomicU64,
    period_since_ms: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            now_ms: AtomicU64::new(1),
            period: AtomicU64::new(0),
            period_since_ms: AtomicU64::new(1),
        }
    }
}

impl Clock {
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Relaxed)
    }

    fn period(&self) -> u64 {
        self.period.load(Relaxed)
    }

    pub fn move_on(&self, timeout: Duration) {
        self.move_to(self.started.elapsed().as_millis() as u64, timeout);
    }

    /// One period at most is begun at a time, however late the sweep comes: none is skipped, so none is overlooked.
    pub fn move_to(&self, elapsed_ms: u64, timeout: Duration) {
        let now_ms = elapsed_ms + 1;
        self.now_ms.store(now_ms, Relaxed);
        let period_ms = timeout.as_millis() as u64 / PERIODS_OF_TIMEOUT;
        if now_ms.saturating_sub(self.period_since_ms.load(Relaxed)) >= period_ms {
            self.period_since_ms.store(now_ms, Relaxed);
            self.period.fetch_add(1, Relaxed);
        }
    }
}

/// How many answers of one connection wait since which period.
#[derive(Debug)]
pub struct Untaken {
    clock: Arc<Clock>,
    since: [AtomicUsize; PERIODS as usize],
}

impl Untaken {
    pub fn new(clock: Arc<Clock>) -> Self {
        Self {
            clock,
            since: Default::default(),
        }
    }

    fn since(&self, period: u64) -> Option<&AtomicUsize> {
        self.since.get((period % PERIODS) as usize)
    }

    /// Whether some answer waits for longer than the timeout.
    pub fn is_overdue(&self) -> bool {
        // The next period takes the place of the oldest one.
        let oldest = self.since(self.clock.period() + 1);
        oldest.is_some_and(|count| count.load(Relaxed) > 0)
    }
}

/// An answer on its way.
pub struct Taking {
    hold: Hold,
    _room: Option<Share>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Handed over and not gone yet.
    pieces: usize,
    /// Since when it waits, if it does.
    since: Option<u64>,
    /// Of those, bytes that went out since then.
    taken_bytes: usize,
}

impl Taking {
    pub fn new(hold: Hold, room: Option<Share>) -> Arc<Self> {
        Arc::new(Self {
            hold,
            _room: room,
            state: Mutex::default(),
        })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let untaken = self.hold.untaken();
        let mut state = self.state.lock();
        let before = state.since;
        change(&mut state);
        if state.pieces == 0 {
            state.since = None;
        } else if state.since.is_none() || state.taken_bytes >= PROGRESS_BYTES {
            state.since = Some(untaken.clock.period());
            state.taken_bytes = 0;
        }
        if before != state.since {
            let count_of = |since: Option<u64>| since.and_then(|period| untaken.since(period));
            if let Some(count) = count_of(state.since) {
                count.fetch_add(1, Relaxed);
            }
            if let Some(count) = count_of(before) {
                count.fetch_sub(1, Relaxed);
            }
        }
    }
}

/// Bytes of an answer, with what must be held for as long as they are.
pub struct Piece {
    bytes: Bytes,
    /// None over HTTP/1: there the socket tells when the client takes nothing.
    taking: Option<Arc<Taking>>,
    _room: Option<Share>,
}

impl Piece {
    pub fn new(bytes: Bytes, taking: Option<Arc<Taking>>, room: Option<Share>) -> Self {
        if let Some(taking) = &taking {
            taking.change(|state| state.pieces += 1);
        }
        Self {
            bytes,
            taking,
            _room: room,
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(taking) = &self.taking {
            // What is left of the answer begins to wait only now.
            taking.change(|state| {
                state.pieces -= 1;
                state.taken_bytes = PROGRESS_BYTES;
            });
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(taking) = &self.taking {
            taking.change(|state| state.taken_bytes += count);
        }
    }
}
