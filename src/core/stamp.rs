//! Stamps: the total order over ops, from a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! Invariant: the clock of one replica never gives the same time twice and never goes back, whatever its wall clock does.

use crate::types::WallMs;

/// Hybrid logical time: 48 bits of milliseconds, 16 bits of counter. The counter runs over into the milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct HybridTime(pub u64);

impl HybridTime {
    pub fn from_wall(now: WallMs) -> Self {
        Self(now.0.min(u64::MAX >> 16) << 16)
    }

    pub fn wall(self) -> WallMs {
        WallMs(self.0 >> 16)
    }
}

/// One life of one node's disk: a random number, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OriginId(pub u64);

/// The order of ops: hybrid time, then origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp {
    pub time: HybridTime,
    pub origin: OriginId,
}

/// The clock that one shard stamps with.
#[derive(Debug, Default)]
pub struct HybridClock {
    last: HybridTime,
}

impl HybridClock {
    /// A time after every time given or observed so far, and not before `now`.
    pub fn tick(&mut self, now: WallMs) -> HybridTime {
        self.last = self.next(now);
        self.last
    }

    /// The time that `tick` would give. Saturates: it would take wall clocks that claim the year 10,000 to get there.
    pub fn next(&self, now: WallMs) -> HybridTime {
        HybridTime::from_wall(now).max(HybridTime(self.last.0.saturating_add(1)))
    }

    /// The same, after `seen` too.
    pub fn next_after(&self, seen: HybridTime, now: WallMs) -> HybridTime {
        self.next(now).max(HybridTime(seen.0.saturating_add(1)))
    }

    /// From here on, times are later than `seen`.
    pub fn observe(&mut self, seen: HybridTime) {
        self.last = self.last.max(seen);
    }

    pub fn last(&self) -> HybridTime {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_on_when_the_wall_clock_stands_still_or_jumps_back() {
        let mut clock = HybridClock::default();
        let walls = [5, 5, 4, 9, 9, 1, 0];
        let times: Vec<_> = walls.iter().map(|&ms| clock.tick(WallMs(ms))).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(times[3], HybridTime::from_wall(WallMs(9)));
    }

    #[test]
    fn what_was_observed_lies_before_all_that_follows() {
        let mut clock = HybridClock::default();
        clock.observe(HybridTime(u64::MAX / 2));
        assert!(clock.tick(WallMs(1)) > HybridTime(u64::MAX / 2));
    }
}
