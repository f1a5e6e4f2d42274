//! When something was heard of a peer, by both clocks.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::WallMs;

#[derive(Debug, Clone, Copy)]
pub(in crate::node::cluster) struct Moment {
    at: Instant,
    wall: WallMs,
}

impl Moment {
    /// Now, which is this by the wall clock.
    pub(in crate::node::cluster) fn now(wall: WallMs) -> Self {
        Self {
            at: Instant::now(),
            wall,
        }
    }

    pub(super) fn elapsed(self) -> Duration {
        self.at.elapsed()
    }

    /// By the wall clock of now, and no later than the wall clock said then: while a machine is suspended the other clock stands still, and this one
    /// is set on afterwards.
    pub(super) fn by_wall(self, now: WallMs) -> WallMs {
        let ago_ms = self.elapsed().as_millis() as u64;
        WallMs(now.0.saturating_sub(ago_ms)).min(self.wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_heard_long_ago_was_heard_then() {
        let heard = Moment::now(WallMs(10_000));
        assert_eq!(heard.by_wall(WallMs(10_000)), WallMs(10_000));
        tokio::time::advance(Duration::from_millis(2_500)).await;
        assert_eq!(heard.by_wall(WallMs(12_500)), WallMs(10_000));
        assert_eq!(
            heard.by_wall(WallMs(7_200_000)),
            WallMs(10_000),
            "the wall clock was set on"
        );
        assert_eq!(heard.by_wall(WallMs(4_000)), WallMs(1_500), "it was set back");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(heard.by_wall(WallMs(4_000)), WallMs(0), "longer than there is a clock");
    }
}
