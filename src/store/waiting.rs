//! The next op of each source of a merge, while it waits for its turn.
//!
//! Sources usually hold different stretches of time, so while a long key is merged all sources but one wait long; and the next op of each
//! may be a text of megabytes. So a text need not wait in memory: its source steps back, and reads it again when its turn comes.
//!
//! Invariant: of the long texts that wait, only those that come first are in memory: one, or as many as make up `HELD_BYTES_MAX`.

use std::cmp::Ordering;

use super::order::{Rank, rank_of};
use super::segment::LONG_BLOCK_BYTES;
use crate::core::op::Op;

/// Bytes of long texts that may wait in memory: enough for a merge of four sources with texts of a mebibyte, so that the usual merge reads
/// nothing twice.
pub const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The next op of a source.
#[derive(Debug, Default)]
pub(super) enum Next {
    #[default]
    End,
    Held(Op),
    /// The source stepped back: it gives the op of this rank once more.
    Away(Rank),
}

impl From<Option<Op>> for Next {
    fn from(op: Option<Op>) -> Self {
        op.map_or(Self::End, Self::Held)
    }
}

impl Next {
    pub fn rank(&self) -> Option<Rank> {
        match self {
            Self::End => None,
            Self::Held(op) => Some(rank_of(op)),
            Self::Away(rank) => Some(*rank),
        }
    }

    pub fn is_end(&self) -> bool {
        matches!(self, Self::End)
    }

    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    /// Gives the op, which is held unless there is none, and puts the one behind it in its place.
    pub fn replace(&mut self, next: Option<Op>) -> Option<Op> {
        match std::mem::replace(self, next.into()) {
            Self::Held(op) => Some(op),
            Self::End | Self::Away(_) => None,
        }
    }

    /// The bytes of its text, if that is long and in memory.
    fn long_bytes(&self) -> Option<usize> {
        let Self::Held(op) = self else { return None };
        let bytes = op.body.text_bytes();
        (bytes >= LONG_BLOCK_BYTES).then_some(bytes)
    }
}

/// A source with its next op.
pub(super) trait Waiting {
    fn next(&mut self) -> &mut Next;

    /// Which of the two comes first.
    fn compare(&self, other: &Self) -> Ordering;

    /// Has the source give its last op once more; false if it cannot, or need not.
    fn step_back(&mut self) -> bool;
}

/// To be called when the head at `came` has another op.
pub(super) fn let_far_texts_go<H: Waiting>(heads: &mut [H], came: usize) {
    if heads
        .get_mut(came)
        .is_none_or(|head| head.next().long_bytes().is_none())
    {
        return;
    }
    let mut long: Vec<(usize, usize)> = Vec::new();
    for (index, head) in heads.iter_mut().enumerate() {
        long.extend(head.next().long_bytes().map(|bytes| (index, bytes)));
    }
    long.sort_by(|(a, _), (b, _)| heads[*a].compare(&heads[*b]));
    let mut held = 0;
    for (place, (index, bytes)) in long.into_iter().enumerate() {
        held += bytes;
        if place == 0 || held <= HELD_BYTES_MAX {
            continue;
        }
        let head = &mut heads[index];
        if let Some(rank) = head.next().rank()
            && head.step_back()
        {
            *head.next() = Next::Away(rank);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::op::{Body, Dot};
    use crate::core::slot::SlotId;
    use crate::core::stamp::{HybridTime, OriginId};

    /// A source of one op.
    struct Source {
        next: Next,
        steps_back: bool,
    }

    impl Waiting for Source {
        fn next(&mut self) -> &mut Next {
            &mut self.next
        }

        fn compare(&self, other: &Self) -> Ordering {
            self.next.rank().cmp(&other.next.rank())
        }

        fn step_back(&mut self) -> bool {
            self.steps_back
        }
    }

    fn source(time: u64, bytes: usize) -> Source {
        let op = Op {
            dot: Dot {
                origin: OriginId(1),
                slot: SlotId(1),
                seq: time,
            },
            time: HybridTime(time),
            request_id: None,
            body: Body::Value("x".repeat(bytes).into()),
        };
        Source {
            next: Next::Held(op),
            steps_back: true,
        }
    }

    fn away(heads: &[Source]) -> Vec<usize> {
        (0..heads.len()).filter(|index| heads[*index].next.is_away()).collect()
    }

    #[test]
    fn the_nearest_texts_stay() {
        const QUARTER: usize = HELD_BYTES_MAX / 4;
        let mut heads: Vec<_> = [6, 2, 5, 1, 4, 3].map(|time| source(time, QUARTER)).into();
        let_far_texts_go(&mut heads, 0);
        assert_eq!(away(&heads), [0, 2]);
        // They keep their places.
        assert_eq!(heads[2].next.rank(), source(5, 0).next.rank());
        // The one that comes first stays, however long it is.
        heads[1] = source(7, HELD_BYTES_MAX + 1);
        heads[3] = source(0, HELD_BYTES_MAX + 1);
        let_far_texts_go(&mut heads, 3);
        assert_eq!(away(&heads), [0, 1, 2, 4, 5]);
    }

    #[test]
    fn short_texts_and_sources_that_cannot_step_back_stay() {
        let count = HELD_BYTES_MAX as u64 / LONG_BLOCK_BYTES as u64 + 1;
        let mut heads: Vec<_> = (0..count).map(|time| source(time, LONG_BLOCK_BYTES - 1)).collect();
        heads.push(source(count, LONG_BLOCK_BYTES));
        let_far_texts_go(&mut heads, count as usize);
        assert_eq!(away(&heads), [0; 0]);
        heads[0] = source(0, HELD_BYTES_MAX);
        heads[count as usize].steps_back = false;
        let_far_texts_go(&mut heads, 0);
        assert_eq!(away(&heads), [0; 0]);
    }
}
