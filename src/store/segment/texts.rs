//! A key whose ops lie in one block, and are nothing but text: its texts as they lie there.

use super::error::ReadError;
use super::span::{Gathered, TextSpan};
use super::{Reach, Segment};

/// What [`Segment::texts_of`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    /// The segment has no op of the key.
    Absent,
    /// Nothing but text, all of it in one block; it was appended, with its request ids.
    Plain(TextSpan),
    /// The key's ops lie in more than one block.
    Spread,
    /// Anything else: its ops have to be read.
    Other,
    OutOfReach,
}

impl Segment {
    /// Appends the texts of the key at `place`, in the order of their stamps, when they can be had in the shortest way: all its ops
    /// are text, as it was first stamped, and lie in one block that is in reach.
    pub fn texts_of(&self, place: &[u8], reach: Reach, out: &mut Gathered) -> Result<Texts, ReadError> {
        let Some(block) = self.first_block(place) else {
            return Ok(Texts::Absent);
        };
        if self.goes_on(&block, place) {
            return Ok(Texts::Spread);
        }
        let loaded = match reach {
            Reach::Disk => self.load(&block)?,
            Reach::Memory => match self.load_without_wait(&block)? {
                Some(held) => held,
                None => return Ok(Texts::OutOfReach),
            },
        };
        let damaged = |error| self.damaged(&block, error);
        let Some(run) = loaded.find(place).map_err(damaged)? else {
            return Ok(Texts::Absent);
        };
        Ok(loaded
            .texts(&run, out)
            .map_err(damaged)?
            .map_or(Texts::Other, Texts::Plain))
    }
}
