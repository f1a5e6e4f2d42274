//! What is counted of the connections between nodes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Of the link to one peer. Bytes are those on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerFigures {
    pub is_up: bool,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub requests: u64,
    pub responses: u64,
    /// Frames that the requests went out in.
    pub frames_sent: u64,
    /// Requests without an answer, now.
    pub waiting: u64,
    pub waiting_bytes: u64,
    pub connects: u64,
    /// Attempts to connect that brought no connection.
    pub dial_failures: u64,
    /// Requests refused because too much waited.
    pub busy: u64,
    /// Connections that were closed because the peer had gone silent.
    pub silent: u64,
    /// Of the last keep-alive.
    pub round_trip_us: u64,
    /// Ops sent to it as they were written here, whether or not it took them, and the bytes of these messages.
    pub pushed_ops: u64,
    pub pushed_bytes: u64,
    /// Ops taken from it to catch up.
    pub pulled_ops: u64,
    pub pulled_bytes: u64,
}

/// Of all that concerns no single link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeersFigures {
    /// Connections of others that are being served.
    pub serving: u64,
    /// Connections of others whose handshake succeeded.
    pub accepted: u64,
    /// Connections of others that were turned away: a stranger, another cluster, too many at once.
    pub refused: u64,
    /// Peers that turned out to be another node, or of another cluster, or not to know the key.
    pub wrong_peers: u64,
    /// Connections closed because of bytes that were no message.
    pub garbage: u64,
    /// Requests of others.
    pub requests: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The live counters that `PeerFigures` is a snapshot of.
#[derive(Default)]
pub struct LinkCounters {
    pub requests: Counter,
    pub responses: Counter,
    pub frames_sent: Counter,
    pub dial_failures: Counter,
    pub busy: Counter,
    pub silent: Counter,
    pub round_trip_us: Counter,
    pub pushed_ops: Counter,
    pub pushed_bytes: Counter,
    pub pulled_ops: Counter,
    pub pulled_bytes: Counter,
}

/// Behind `PeersFigures`.
#[derive(Default)]
pub struct Counters {
    pub serving: AtomicU64,
    pub accepted: Counter,
    pub refused: Counter,
    pub wrong_peers: Counter,
    pub garbage: Counter,
    pub requests: Counter,
}
