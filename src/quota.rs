//! Counted permits that nobody waits for: there is room now, or the request is refused.
//!
//! A semaphore without a queue, so that taking and giving back is one atomic operation each; they are on the way of every
//! request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// So many units of something that can be held at once. Clones share them.
#[derive(Debug, Clone)]
pub struct Quota(Arc<AtomicUsize>);

/// Units that are held; given back when dropped.
#[derive(Debug)]
pub struct Share {
    quota: Quota,
    units: usize,
}

impl Quota {
    pub fn new(units: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(units)))
    }

    /// Units that nobody holds now.
    pub fn free(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// A share without any, to grow.
    pub fn none(&self) -> Share {
        Share {
            quota: self.clone(),
            units: 0,
        }
    }

    /// All of `units`, or none.
    pub fn take(&self, units: usize) -> Option<Share> {
        let less = |free: usize| free.checked_sub(units);
        // Nothing is published by the count itself.
        self.0.fetch_update(Relaxed, Relaxed, less).ok()?;
        Some(Share {
            quota: self.clone(),
            units,
        })
    }
}

impl Share {
    pub fn units(&self) -> usize {
        self.units
    }

    /// Adds those of `other`, which must be of the same quota.
    pub fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.quota.0, &other.quota.0));
        self.units += std::mem::take(&mut other.units);
    }

    /// Makes it `units` in all, if so many more are free; a smaller one stays as it is.
    pub fn grow_to(&mut self, units: usize) -> bool {
        let more = units.saturating_sub(self.units);
        let Some(taken) = self.quota.take(more) else {
            return false;
        };
        self.join(taken);
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.quota.0.fetch_add(self.units, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_cannot_be_taken_and_comes_back() {
        let quota = Quota::new(10);
        let mut held = quota.take(4).unwrap();
        assert!(quota.take(7).is_none());
        assert!(held.grow_to(9) && !held.grow_to(11) && held.grow_to(2));
        assert_eq!((held.units(), quota.free()), (9, 1));
        drop(held);
        assert_eq!(quota.free(), 10);
        let mut none = quota.none();
        assert_eq!((none.units(), quota.free()), (0, 10));
        assert!(none.grow_to(10) && quota.free() == 0);
    }

    #[test]
    fn many_threads_never_hold_more_than_there_is() {
        let (quota, most) = (Quota::new(5), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if let Some(_share) = quota.take(2) {
                            most.fetch_max(5 - quota.free(), Relaxed);
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 5);
        assert_eq!(quota.free(), 5);
    }
}
