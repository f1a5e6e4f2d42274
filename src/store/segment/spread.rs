//! A key that spreads over several blocks: what the index knows of those inside it, without reading them.

use super::block_builder::PlainRun;
use super::error::ReadError;
use super::index::BlockRef;
use super::place::{place_of, slot_of_place};
use super::span::{Gathered, TextSpan};
use super::{Malformed, Segment};
use crate::core::slot::SlotId;
use crate::core::stamp::Stamp;

/// What [`Segment::values_of`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// The segment has no op of the key.
    Absent,
    /// Nothing but values, as they were first stamped.
    Plain {
        span: TextSpan,
        values: u64,
        has_request_ids: bool,
    },
    /// Anything else, or of parts: its ops have to be read.
    Other,
}

impl Values {
    /// With what the next block holds.
    fn with(self, next: Self) -> Self {
        match (self, next) {
            (Self::Absent, next) => next,
            (
                Self::Plain {
                    span,
                    values,
                    has_request_ids,
                },
                Self::Plain {
                    span: next,
                    values: more,
                    has_request_ids: has_more,
                },
            ) => span.then(next).map_or(Self::Other, |span| Self::Plain {
                span,
                values: values + more,
                has_request_ids: has_request_ids || has_more,
            }),
            _ => Self::Other,
        }
    }
}

impl From<PlainRun> for Values {
    fn from(run: PlainRun) -> Self {
        let stamp = |time| Stamp {
            time,
            origin: run.origin,
        };
        Self::Plain {
            span: TextSpan {
                first: stamp(run.first),
                last: stamp(run.last),
                origin: Some(run.origin),
            },
            values: run.ops,
            has_request_ids: run.has_request_ids,
        }
    }
}

impl Segment {
    /// Whether the key at `place` is nothing but values. Reads the blocks that it shares with others, and those that are not known
    /// to be plain: of a long list, the first and perhaps the last.
    pub fn values_of(&self, place: &[u8]) -> Result<Values, ReadError> {
        let mut values = Values::Absent;
        let mut next = self.first_block(place);
        while let Some(block) = next {
            let found = match block.plain {
                Some(run) => run.into(),
                None => self.values_in(&block, place)?,
            };
            match found {
                Values::Absent if values == Values::Absent => return Ok(Values::Absent),
                Values::Absent => return Err(self.damaged(&block, Malformed { what: "continued key" })),
                found => values = values.with(found),
            }
            if values == Values::Other {
                return Ok(Values::Other);
            }
            next = self.behind(&block, place);
        }
        Ok(values)
    }

    fn values_in(&self, block: &BlockRef, place: &[u8]) -> Result<Values, ReadError> {
        let loaded = self.load(block)?;
        let damaged = |error| self.damaged(block, error);
        let Some(run) = loaded.find(place).map_err(damaged)? else {
            return Ok(Values::Absent);
        };
        let mut found = Gathered::default();
        let span = loaded.texts(&run, &mut found).map_err(damaged)?;
        Ok(match span {
            Some(span) if found.fragments.iter().all(|text| text.ends_value) => Values::Plain {
                span,
                values: run.ops,
                has_request_ids: !found.requests.is_empty(),
            },
            _ => Values::Other,
        })
    }

    /// The highest stamp of any op of the key at `place`. Reads at most the block that the op is in.
    pub fn last_stamp_of(&self, place: &[u8]) -> Result<Option<Stamp>, ReadError> {
        let blocks = std::iter::successors(self.first_block(place), |block| self.behind(block, place));
        let Some(block) = blocks.last() else {
            return Ok(None);
        };
        if let Some(run) = block.plain {
            return Ok(Some(Stamp {
                time: run.last,
                origin: run.origin,
            }));
        }
        let loaded = self.load(&block)?;
        let damaged = |error| self.damaged(&block, error);
        let Some(run) = loaded.find(place).map_err(damaged)? else {
            return Ok(None);
        };
        let mut ops = loaded.ops(&run, slot_of_place(place).map_err(damaged)?);
        let mut last = None;
        while let Some(op) = ops.next().map_err(damaged)? {
            last = Some(op.stamp());
        }
        Ok(last)
    }

    /// About how many bytes the key takes, by the index alone: the blocks that it has for itself, and of those at its ends what a key takes on
    /// average, but no more than they have. Does not ask the filter.
    pub fn bytes_of(&self, slot: SlotId, user: &str, key: &str) -> u64 {
        let mut place = place_of(slot, user, key);
        let Some(first) = self.first_block(&place) else {
            return 0;
        };
        // The next place that there can be: the last block that begins before it is the last one to hold the key.
        place.push(0);
        let last = self
            .footer
            .index
            .find(&place)
            .filter(|last| last.ordinal > first.ordinal);
        let first_bytes = u64::from(first.stored_bytes);
        let inner = last.map_or(0, |last| last.offset.saturating_sub(first.offset + first_bytes));
        let ends = first_bytes + last.map_or(0, |last| u64::from(last.stored_bytes));
        inner + ends.min(self.file_bytes / self.footer.stats.keys.max(1))
    }

    /// The block in which the key at `place` goes on behind `block`, which holds ops of it.
    pub(super) fn behind(&self, block: &BlockRef, place: &[u8]) -> Option<BlockRef> {
        // A plain block holds nothing but the key: what continues behind it is the key.
        let goes_on = block.plain.is_some() || self.goes_on(block, place);
        let next = self.footer.index.after(block).filter(|next| next.continues);
        next.filter(|_| goes_on)
    }
}
