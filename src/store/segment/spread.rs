//! A key that spreads over several blocks: what the index knows of those inside it, without reading them.

use super::block::TextSpan;
use super::block_builder::PlainRun;
use super::error::ReadError;
use super::index::BlockRef;
use super::{Malformed, Segment};

/// What [`Segment::values_of`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// The segment has no op of the key.
    Absent,
    /// Nothing but that many values of one origin, as they were first stamped.
    Plain(TextSpan, u64),
    /// Anything else, or of parts: its ops have to be read.
    Other,
}

impl Values {
    /// With what the next block holds.
    fn with(self, next: Self) -> Self {
        match (self, next) {
            (Self::Absent, next) => next,
            (Self::Plain(before, count), Self::Plain(span, more)) if before.is_followed_by(&span) => {
                let first = before.first;
                Self::Plain(TextSpan { first, ..span }, count + more)
            }
            _ => Self::Other,
        }
    }
}

impl From<PlainRun> for Values {
    fn from(run: PlainRun) -> Self {
        let span = TextSpan {
            origin: run.origin,
            first: run.first,
            last: run.last,
        };
        Self::Plain(span, run.ops)
    }
}

impl Segment {
    /// Whether the key at `place` is nothing but values. Reads the blocks that it shares with others, and those that are not known
    /// to be plain: of a long list, the first and perhaps the last.
    pub fn values_of(&self, place: &[u8]) -> Result<Values, ReadError> {
        let mut values = Values::Absent;
        let mut next = self.footer.index.find(place);
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
        let mut texts = Vec::new();
        let span = loaded.texts(&run, &mut texts).map_err(damaged)?;
        Ok(match span {
            Some(span) if texts.iter().all(|text| text.ends_value) => Values::Plain(span, run.ops),
            _ => Values::Other,
        })
    }

    /// The block in which the key at `place` goes on behind `block`, which holds ops of it.
    pub(super) fn behind(&self, block: &BlockRef, place: &[u8]) -> Option<BlockRef> {
        // A plain block holds nothing but the key: what continues behind it is the key.
        let goes_on = block.plain.is_some() || self.goes_on(block, place);
        let next = self.footer.index.after(block).filter(|next| next.continues);
        next.filter(|_| goes_on)
    }
}
