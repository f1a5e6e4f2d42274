//! Waiting is bounded at the door: ractor's mailboxes are not, so a permit is taken before a message is sent.

use crate::node::OpError;
use crate::node::pages::Pages;
use crate::node::peers::CALLS_MAX;
use crate::planted::{Bug, planted};
use crate::quota::{Quota, Share};

/// Writes that may wait for one shard: at 100,000 a second, about 40 ms worth.
pub const SHARD_REQUESTS_MAX: usize = 4096;
/// Text that may wait for one shard, bytes: four of the largest requests.
const SHARD_BYTES_MAX: usize = 32 << 20;
/// Shorter texts are bounded by the count of their requests.
const COUNTED_BYTES_MIN: usize = 1024;
/// What a caller is told to wait before it tries again, seconds.
pub const RETRY_AFTER_S: u32 = 1;

/// How much may wait inside a node, and how much of it goes at once. Nobody but tests and the simulation has it other than it is by default.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Writes for one shard; and as many that other replicas sent.
    pub shard_requests: usize,
    /// Their texts, bytes. A longer one waits alone.
    pub shard_bytes: usize,
    /// Requests to one peer without an answer.
    pub peer_calls: usize,
    pub pages: Pages,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shard_requests: SHARD_REQUESTS_MAX,
            shard_bytes: SHARD_BYTES_MAX,
            peer_calls: CALLS_MAX,
            pages: Pages::default(),
        }
    }
}

/// A place in the queue of a shard; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _count: Share,
    _bytes: Option<Share>,
}

#[derive(Debug, Clone)]
pub struct Permits {
    limits: Limits,
    count: Quota,
    bytes: Quota,
}

impl Permits {
    pub fn new(mut limits: Limits) -> Self {
        if planted(Bug::DoorOpen) {
            limits.shard_requests *= 2;
        }
        Self {
            limits,
            count: Quota::new(limits.shard_requests),
            bytes: Quota::new(limits.shard_bytes),
        }
    }

    /// A permit for a request that carries so much text, at once or not at all.
    pub fn take(&self, bytes: usize) -> Result<Permit, OpError> {
        let full = |what| OpError::Overloaded {
            what,
            retry_after_s: RETRY_AFTER_S,
        };
        if planted(Bug::PermitKept) {
            std::mem::forget(self.count.take(1));
        }
        let count = self.count.take(1).ok_or(full("the shard's request queue"))?;
        let bytes = match bytes.min(self.limits.shard_bytes) {
            ..COUNTED_BYTES_MIN => None,
            bytes => Some(self.bytes.take(bytes).ok_or(full("the shard's write buffer"))?),
        };
        Ok(Permit {
            _count: count,
            _bytes: bytes,
        })
    }

    /// Like [`take`](Self::take), but leaves half of all permits to others: for callers that take many, and can do with fewer.
    pub fn take_spare(&self, bytes: usize) -> Result<Permit, OpError> {
        let permit = self.take(bytes)?;
        let is_spare =
            self.count.free() >= self.limits.shard_requests / 2 && self.bytes.free() >= self.limits.shard_bytes / 2;
        is_spare.then_some(permit).ok_or(OpError::Overloaded {
            what: "the half of the shard's request queue that is for many at once",
            retry_after_s: RETRY_AFTER_S,
        })
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        self.limits.shard_requests - self.count.free()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bounds_a_request_is_refused_at_once_and_taken_again_later() {
        let permits = Permits::new(Limits::default());
        let large: Vec<_> = (0..4).map(|_| permits.take(8 << 20)).collect();
        assert!(large.iter().all(Result::is_ok));
        assert!(matches!(permits.take(8 << 20), Err(OpError::Overloaded { .. })));
        assert!(permits.take(10).is_ok());
        drop(large);
        let small: Vec<_> = (0..SHARD_REQUESTS_MAX).map(|_| permits.take(10)).collect();
        assert!(small.iter().all(Result::is_ok));
        assert_eq!(permits.waiting(), SHARD_REQUESTS_MAX);
        assert!(permits.take(10).is_err());
        drop(small);
        assert!(permits.take(8 << 20).is_ok());
    }

    #[test]
    fn who_takes_many_leaves_half_to_others() {
        let permits = Permits::new(Limits::default());
        let many: Vec<_> = (0..SHARD_REQUESTS_MAX)
            .map_while(|_| permits.take_spare(10).ok())
            .collect();
        assert_eq!(many.len(), SHARD_REQUESTS_MAX / 2);
        let others: Vec<_> = (0..SHARD_REQUESTS_MAX / 2).map(|_| permits.take(10)).collect();
        assert!(others.iter().all(Result::is_ok));
        drop((many, others));
        let large = [(); 2].map(|()| permits.take_spare(8 << 20));
        assert!(large.iter().all(Result::is_ok));
        assert!(permits.take_spare(8 << 20).is_err() && permits.take(8 << 20).is_ok());
    }
}
