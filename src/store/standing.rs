//! Whether a key has any visible value, or any text at all; listing keys asks this of every key. Looking at the first
//! text usually suffices, however long the list.
//!
//! Invariant: the answer is that of the fold (`core::fold`). A text *stands*, that is, shows, if no clear of the key covers it and no other
//! op has its request id. If another op has it, only the fold can tell; but in a key without clears and `Spent` records, only an op that
//! comes before the text matters.

use super::filter::request_tag;
use super::reader::survey;
use super::segment::ReadError;
use super::source::KeySource;
use crate::core::clock::Clock;
use crate::core::op::{Body, Op};
use crate::core::slot::KeyHash;
use crate::types::RequestId;

/// After so many ops, a look checks whether anybody still waits for it.
const OPS_BETWEEN_QUESTIONS: u64 = 1024;

/// How much was looked through, and whether it is still wanted.
pub struct Look<'a> {
    is_wanted: &'a dyn Fn() -> bool,
    ops: u64,
}

impl<'a> Look<'a> {
    /// Once `is_wanted` gives false, answers mean nothing.
    pub fn while_wanted(is_wanted: &'a dyn Fn() -> bool) -> Self {
        Self { is_wanted, ops: 0 }
    }

    /// Ops that were looked at so far.
    pub fn ops(&self) -> u64 {
        self.ops
    }

    /// Counts one more op; false if nobody waits any more.
    fn goes_on(&mut self) -> bool {
        self.ops += 1;
        !self.ops.is_multiple_of(OPS_BETWEEN_QUESTIONS) || (self.is_wanted)()
    }
}

/// Texts that are looked at before all of the key is read.
const LOOKED_AT_MAX: usize = 16;

/// Whether the key has at least one finished value.
pub fn has_values(source: &KeySource, look: &mut Look) -> Result<bool, ReadError> {
    let is_value = |op: &Op| matches!(op.body, Body::Value(_));
    match first_stands(source, look, is_value)? {
        Some(stands) => Ok(stands),
        None => {
            let surveyed = survey(source)?;
            look.ops += surveyed.ops;
            Ok(surveyed.visibility.has_values())
        }
    }
}

/// Whether the key has any text, if only unfinished parts.
pub fn holds_text(source: &KeySource, look: &mut Look) -> Result<bool, ReadError> {
    let is_text = |op: &Op| matches!(op.body, Body::Part(_) | Body::Value(_));
    if let Some(stands) = first_stands(source, look, is_text)? {
        return Ok(stands);
    }
    let surveyed = survey(source)?;
    look.ops += surveyed.ops;
    let mut ops = source.ops();
    while let Some(op) = ops.next()? {
        if surveyed.visibility.stands(&op) {
            return Ok(true);
        }
        if !look.goes_on() {
            return Ok(false);
        }
    }
    Ok(false)
}

/// Whether one of the wanted texts stands; None if the first few do not tell.
fn first_stands(
    source: &KeySource,
    look: &mut Look,
    is_wanted: impl Fn(&Op) -> bool,
) -> Result<Option<bool>, ReadError> {
    let mut cleared = Clock::default();
    for clear in source.clears()? {
        if let Body::Clear(seen) = &clear.body {
            cleared.join(seen);
        }
    }
    let is_spent = |op: Op| matches!(op.body, Body::Spent { .. });
    let only_earlier = cleared.is_empty()
        && source.segments.iter().all(|segment| segment.stats().spent == 0)
        && !source.memory.iter().any(is_spent);
    let mut ops = source.ops();
    let (mut passed, mut looked_at) = (Vec::new(), 0);
    while let Some(op) = ops.next()? {
        if !look.goes_on() {
            return Ok(Some(false));
        }
        if !is_wanted(&op) || cleared.contains(op.dot.origin, op.dot.seq) {
            if only_earlier {
                passed.extend(op.request_id);
            }
        } else {
            let has_copy = match op.request_id {
                None => false,
                Some(id) if only_earlier => passed.contains(&id),
                Some(id) => has_copy(source, &op, id)?,
            };
            if !has_copy {
                return Ok(Some(true));
            }
            looked_at += 1;
        }
        if looked_at.max(passed.len()) > LOOKED_AT_MAX {
            return Ok(None);
        }
    }
    Ok((looked_at == 0).then_some(false))
}

/// Whether another op of the key has this one's request id. Reads few blocks of a long list (see `OpCursor::next_of_request`).
fn has_copy(source: &KeySource, op: &Op, id: RequestId) -> Result<bool, ReadError> {
    let is_copy = |other: &Op| other.request_id == Some(id) && other.dot != op.dot;
    if source.memory.iter().any(|other| is_copy(&other)) {
        return Ok(true);
    }
    let tag = request_tag(KeyHash::of(&source.user, &source.key), id);
    for segment in source
        .segments
        .iter()
        .filter(|segment| segment.may_hold(source.slot, tag))
    {
        let mut ops = segment.ops_of(source.slot, source.user.as_str(), source.key.as_str());
        while let Some(other) = ops.next_of_request(tag, id)? {
            if is_copy(&other) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
