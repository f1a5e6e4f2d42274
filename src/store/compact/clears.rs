//! What the clears of a key remove, and which of them are still needed.

use crate::core::clock::Clock;
use crate::core::op::{Body, Dot, Op};
use crate::core::stamp::HybridTime;
use crate::planted::{Bug, planted};

/// The clears of one key.
#[derive(Default)]
pub(super) struct KeyClears {
    pub(super) cleared: Clock,
    pub(super) last_time: HybridTime,
    pub(super) clears: Vec<(Dot, Clock)>,
}

impl KeyClears {
    pub(super) fn of<'a>(ops: impl Iterator<Item = &'a Op>, in_memory: Option<&Clock>) -> Self {
        let mut all = Self::default();
        for op in ops {
            if let Body::Clear(seen) = &op.body {
                all.cleared.join(seen);
                all.last_time = op.time.max(all.last_time);
                all.clears.push((op.dot, seen.clone()));
            }
        }
        if let Some(clock) = in_memory {
            all.cleared.join(clock);
        }
        all
    }

    /// Whether another clear of the key saw this one and all that it saw.
    pub(super) fn includes(&self, dot: &Dot, seen: &Clock) -> bool {
        // From the newest: mostly it saw all that came before it.
        let mut others = self.clears.iter().rev();
        planted(Bug::ClearDroppedEarly)
            || others
                .any(|(other, context)| other != dot && context.contains(dot.origin, dot.seq) && context.covers(seen))
    }
}
