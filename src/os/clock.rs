//! The machine's wall clock.
#![expect(clippy::disallowed_methods, reason = "this is where Env's wall clock comes from")]

use std::time::{SystemTime, UNIX_EPOCH};

use crate::env::WallClock;
use crate::types::WallMs;

#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> WallMs {
        // A clock set before 1970 reads as 0: it is wrong, and a wrong clock is allowed.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallMs(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2020-01-01: any machine that builds this is later, if its clock is set at all.
    const YEAR_2020: WallMs = WallMs(1_577_836_800_000);

    #[test]
    fn the_clock_counts_milliseconds_since_the_epoch() {
        assert!(SystemClock.now() > YEAR_2020);
    }
}
