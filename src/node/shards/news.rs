//! What a shard's actor is told again and again, kept here until it looks.
//!
//! Invariant: however long the actor takes nothing, because its disk hangs, no more than the last word on each thing waits for it, and one message that
//! tells it so.

use parking_lot::Mutex;

use crate::core::clock::SlotClocks;
use crate::types::WallMs;

/// News of the slots of one shard.
#[derive(Debug, Default)]
pub struct News {
    /// What every other replica's clock covers, and when all that the others had was here.
    pub stable: Option<(SlotClocks, Option<WallMs>)>,
    /// Ops that a peer knows and does not hold any more, all of whose clears are durable here.
    pub dropped: SlotClocks,
    /// Lost ops that are given up: all other replicas have sent what they have.
    pub healed: SlotClocks,
}

/// News that the actor has not taken yet.
#[derive(Debug, Default)]
pub struct PendingNews(Mutex<News>);

impl News {
    fn is_empty(&self) -> bool {
        self.stable.is_none() && self.dropped.is_empty() && self.healed.is_empty()
    }
}

impl PendingNews {
    /// Whether the actor has to be told: these are the first since it last looked.
    #[must_use]
    pub fn put(&self, tell: impl FnOnce(&mut News)) -> bool {
        let mut pending = self.0.lock();
        let was_empty = pending.is_empty();
        tell(&mut pending);
        was_empty && !pending.is_empty()
    }

    pub fn take(&self) -> News {
        std::mem::take(&mut self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::slot::SlotId;
    use crate::core::stamp::OriginId;

    fn dots(last: u64) -> SlotClocks {
        let mut dots = SlotClocks::default();
        dots.insert_range(SlotId(1), OriginId(1), last, last);
        dots
    }

    #[test]
    fn an_actor_that_takes_nothing_is_told_once_and_hears_the_last_word() {
        let pending = PendingNews::default();
        assert!(!pending.put(|news| news.healed.join(&SlotClocks::default())));
        assert!(pending.put(|news| news.stable = Some((dots(1), None))));
        for last in 2..100 {
            assert!(!pending.put(|news| news.stable = Some((dots(last), None))));
        }
        for dot in [3, 4] {
            assert!(!pending.put(|news| news.healed.join(&dots(dot))));
            assert!(!pending.put(|news| news.dropped.join(&dots(dot))));
        }
        let news = pending.take();
        assert_eq!(news.stable, Some((dots(99), None)));
        let mut healed = dots(3);
        healed.join(&dots(4));
        assert_eq!((news.healed, news.dropped), (healed.clone(), healed));
        assert!(pending.take().is_empty());
        assert!(pending.put(|news| news.healed.join(&dots(5))));
    }
}
