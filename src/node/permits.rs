//! Waiting is bounded at the door: ractor's mailboxes are not, so a permit is taken before a message is sent.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::OpError;

/// Requests that may wait for one shard: at 100,000 a second, about 40 ms worth.
pub const SHARD_REQUESTS_MAX: usize = 4096;
/// Text that may wait for one shard, in units of [`UNIT_BYTES`]: 32 MiB, four of the largest requests.
const SHARD_UNITS_MAX: usize = 32 * 1024;
const UNIT_BYTES: usize = 1024;
/// What a caller is told to wait before it tries again, seconds.
const RETRY_AFTER_S: u32 = 1;

/// A place in the queue of a shard; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _count: OwnedSemaphorePermit,
    _units: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone)]
pub struct Permits {
    count: Arc<Semaphore>,
    units: Arc<Semaphore>,
}

impl Default for Permits {
    fn default() -> Self {
        Self {
            count: Arc::new(Semaphore::new(SHARD_REQUESTS_MAX)),
            units: Arc::new(Semaphore::new(SHARD_UNITS_MAX)),
        }
    }
}

impl Permits {
    /// A permit for a request that carries so much text, at once or not at all.
    pub fn take(&self, bytes: usize) -> Result<Permit, OpError> {
        let refuse = |what| {
            move |_| OpError::Overloaded {
                what,
                retry_after_s: RETRY_AFTER_S,
            }
        };
        let count = self
            .count
            .clone()
            .try_acquire_owned()
            .map_err(refuse("the shard's request queue"))?;
        let units = match (bytes / UNIT_BYTES).min(SHARD_UNITS_MAX) {
            // Small requests are bounded by their count.
            0 => None,
            units => {
                let taken = self.units.clone().try_acquire_many_owned(units as u32);
                Some(taken.map_err(refuse("the shard's write buffer"))?)
            }
        };
        Ok(Permit {
            _count: count,
            _units: units,
        })
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        SHARD_REQUESTS_MAX - self.count.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bounds_a_request_is_refused_at_once_and_taken_again_later() {
        let permits = Permits::default();
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
}
