//! The link to one peer, as its callers and its connection share it.
//!
//! Invariants:
//! - a call is in the link only while there is a connection; when that ends, every call of it ends too, and none moves to the next one:
//!   the peer may have carried it out;
//! - what waits for a peer is bounded in count and bytes, from the call to its answer, whether or not somebody still wants the answer. A
//!   frozen peer costs that much memory, and about as much again for those who wait.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::CallError;
use super::batch::{Batch, Hurry, Outgoing, SOON, Source, Waits};
use super::figures::{LinkCounters, PeerFigures};
use super::meter::Meter;
use super::on_answer::OnAnswer;
use super::pending::{Pending, Waiting};
use crate::types::NodeId;
use crate::wire::{MESSAGE_BYTES_MAX, Request, Response};

/// Encoded requests that may wait for one peer, bytes: a few of the largest, so that none of them has to find the queue empty.
pub const CALLS_BYTES_MAX: usize = 32 << 20;

/// Requests with one peer whose answers take long to make.
pub const LONG_CALLS_MAX: usize = 16;

pub struct Link {
    pub node: NodeId,
    /// Where it is said to be now.
    pub address: Mutex<SocketAddr>,
    pub connections: watch::Sender<u64>,
    pub counters: LinkCounters,
    /// Of all its connections.
    pub meter: Arc<Meter>,
    live: Mutex<Option<Live>>,
    /// Requests have begun to wait for others to go out with.
    some_wait: Notify,
    calls_max: usize,
    /// See `Peer::call_in_turn`.
    pub turns: Arc<Semaphore>,
    /// What `now_us` counts from.
    epoch: Instant,
    /// When the peer was last heard of.
    heard_us: AtomicU64,
}

/// What there is while there is a connection.
#[derive(Default)]
struct Live {
    outgoing: Outgoing,
    pending: Pending,
}

impl Link {
    pub fn new(node: NodeId, address: SocketAddr, calls_max: usize) -> Self {
        Self {
            node,
            address: Mutex::new(address),
            connections: watch::Sender::new(0),
            counters: LinkCounters::default(),
            meter: Arc::default(),
            live: Mutex::default(),
            some_wait: Notify::new(),
            calls_max,
            turns: Arc::new(Semaphore::new(LONG_CALLS_MAX)),
            epoch: Instant::now(),
            heard_us: AtomicU64::new(0),
        }
    }

    pub fn now_us(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    pub fn is_up(&self) -> bool {
        self.live.lock().is_some()
    }

    pub fn call(&self, request: &Request) -> Result<oneshot::Receiver<Response>, CallError> {
        let (waiter, answer) = oneshot::channel();
        self.send(request, Hurry::Now, OnAnswer::Waiter(waiter))?;
        Ok(answer)
    }

    /// When it is refused, `on_answer` hears that there will be no answer before this returns.
    pub fn send(&self, request: &Request, hurry: Hurry, on_answer: OnAnswer) -> Result<(), CallError> {
        let since_us = self.now_us();
        let mut live = self.live.lock();
        let Live { outgoing, pending } = live.as_mut().ok_or(CallError::NotConnected)?;
        let has_room = pending.count() < self.calls_max;
        let Some(id) = pending.next_id().filter(|_| has_room) else {
            drop(live);
            return Err(self.busy());
        };
        let room = CALLS_BYTES_MAX - pending.bytes();
        let added = outgoing
            .batch
            .add(room.min(MESSAGE_BYTES_MAX), |out| request.encode(id, out));
        let bytes = match added {
            Ok(bytes) => bytes,
            Err(refused) => {
                drop(live);
                let too_large = refused.bytes > MESSAGE_BYTES_MAX;
                return Err(if too_large {
                    CallError::TooLarge { bytes: refused.bytes }
                } else {
                    self.busy()
                });
            }
        };
        let waiting = Waiting {
            on_answer,
            since_us,
            bytes,
        };
        pending.add(id, waiting);
        let waits = match hurry {
            Hurry::Now => Waits::No,
            Hurry::Soon => outgoing.begin_to_wait(),
        };
        let sleeper = if waits == Waits::No { outgoing.sleeper() } else { None };
        drop(live);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        if waits == Waits::First {
            self.some_wait.notify_one();
        }
        self.counters.requests.add(1);
        if let Request::Append(ops) = request {
            self.counters.pushed_ops.add(ops.len() as u64);
            self.counters.pushed_bytes.add(bytes as u64);
        }
        Ok(())
    }

    /// Has what can wait written when it has waited for long enough.
    pub async fn see_to_those_that_wait(&self) -> Infallible {
        loop {
            self.some_wait.notified().await;
            tokio::time::sleep(SOON).await;
            let sleeper = match &mut *self.live.lock() {
                Some(Live { outgoing, .. }) if outgoing.batch.messages() > 0 => outgoing.sleeper(),
                _ => None,
            };
            if let Some(sleeper) = sleeper {
                sleeper.wake();
            }
        }
    }

    fn busy(&self) -> CallError {
        self.counters.busy.add(1);
        CallError::Busy
    }

    /// From now on calls are taken, until the guard is dropped.
    pub fn open(self: &Arc<Self>) -> Opened {
        self.heard();
        *self.live.lock() = Some(Live::default());
        self.connections.send_modify(|count| *count += 1);
        Opened(self.clone())
    }

    /// Hands out the answers, emptying `answers`. Those that nobody waits for are dropped.
    pub fn answered(&self, answers: &mut Vec<(u64, Response)>) {
        self.heard();
        self.counters.responses.add(answers.len() as u64);
        let mut ready = Vec::with_capacity(answers.len());
        if let Some(Live { pending, .. }) = &mut *self.live.lock() {
            ready.extend(answers.drain(..).map(|(id, response)| (pending.take(id), response)));
        }
        // Woken without the lock: they may call again at once.
        for (waiting, response) in ready {
            if let Some(waiting) = waiting {
                waiting.on_answer.send(response);
            }
        }
    }

    pub fn heard(&self) {
        self.heard_us.store(self.now_us(), Relaxed);
    }

    fn oldest_since_us(&self) -> Option<u64> {
        self.live.lock().as_ref()?.pending.oldest_since_us()
    }

    pub fn waiting(&self) -> Duration {
        let oldest = self.oldest_since_us();
        let waited = oldest.map(|since| self.now_us().saturating_sub(since));
        Duration::from_micros(waited.unwrap_or_default())
    }

    pub fn silence(&self) -> Duration {
        let oldest = self.oldest_since_us();
        let since = oldest.map(|since| since.max(self.heard_us.load(Relaxed)));
        let silent = since.map(|since| self.now_us().saturating_sub(since));
        Duration::from_micros(silent.unwrap_or_default())
    }

    pub fn figures(&self) -> PeerFigures {
        let (is_up, waiting, waiting_bytes) = match &*self.live.lock() {
            Some(Live { pending, .. }) => (true, pending.count() as u64, pending.bytes() as u64),
            None => (false, 0, 0),
        };
        PeerFigures {
            is_up,
            waiting,
            waiting_bytes,
            bytes_sent: self.meter.sent(),
            bytes_received: self.meter.received(),
            requests: self.counters.requests.get(),
            responses: self.counters.responses.get(),
            frames_sent: self.counters.frames_sent.get(),
            connects: *self.connections.borrow(),
            dial_failures: self.counters.dial_failures.get(),
            busy: self.counters.busy.get(),
            silent: self.counters.silent.get(),
            round_trip_us: self.counters.round_trip_us.get(),
            pushed_ops: self.counters.pushed_ops.get(),
            pushed_bytes: self.counters.pushed_bytes.get(),
            pulled_ops: self.counters.pulled_ops.get(),
            pulled_bytes: self.counters.pulled_bytes.get(),
        }
    }
}

impl Source for Link {
    fn poll_outgoing(&self, context: &Context<'_>, batch: Option<&mut Batch>) -> Poll<()> {
        match &mut *self.live.lock() {
            Some(Live { outgoing, .. }) => outgoing.poll_take(context, batch),
            None => Poll::Pending,
        }
    }

    fn expects_more(&self) -> bool {
        // Others were asked for already, and whoever gets an answer mostly asks again.
        let live = self.live.lock();
        live.as_ref()
            .is_some_and(|live| live.pending.count() > live.outgoing.batch.messages())
    }
}

/// A connection that takes calls. Dropped however the connection ends: all its calls fail then.
pub struct Opened(Arc<Link>);

impl Drop for Opened {
    fn drop(&mut self) {
        let live = self.0.live.lock().take();
        // Without the lock: this wakes everyone who waits.
        drop(live);
    }
}
