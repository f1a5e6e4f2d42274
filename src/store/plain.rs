//! The fast path for reading a key that holds only text, as almost all do. If its sources do not overlap in time, the
//! view is their texts one after the other: no op is decoded into an `Op` or examined twice.
//!
//! Invariant: what it gives is what the fold (`core::fold`) gives; where that is not plain to see, it gives nothing. It is plain when
//! - no op is a clear or what is left of one: nothing is hidden;
//! - all ops are of one origin, which never takes a request id twice; or no request id is there twice;
//! - the sources lie apart in time, so that no op is in two of them, and sorting the sources sorts the ops.

use std::ops::Range;

use super::memtable::MemoryOps;
use super::segment::{Gathered, Reach, ReadError, TextSpan, Texts, place_of};
use super::source::KeySource;
use super::waiting::HELD_BYTES_MAX;
use crate::core::op::Fragment;

/// A key with more ops in memory does not take the short cut.
const MEMORY_OPS_MAX: usize = 1024;

/// Once more text than this was gathered, no further segment is.
const TEXT_BYTES_MAX: usize = HELD_BYTES_MAX;

/// What the short way led to.
pub(super) enum Plain {
    /// The whole view.
    View(Vec<Fragment>),
    /// The key's ops lie in more than one block of a segment, or are too long to be gathered (see `spread`).
    Spread,
    /// The ops have to be folded.
    Other,
    /// A block is further away than the reader may go.
    OutOfReach,
}

/// The texts of one source.
struct Piece {
    span: TextSpan,
    /// Where its texts lie among the fragments gathered from all sources.
    fragments: Range<usize>,
}

/// The pieces of all sources; almost always there is one.
#[derive(Default)]
struct Pieces {
    first: Option<Piece>,
    more: Vec<Piece>,
}

impl Pieces {
    fn add(&mut self, span: TextSpan, fragments: Range<usize>) {
        let piece = Piece { span, fragments };
        match self.first {
            None => self.first = Some(piece),
            Some(_) => self.more.push(piece),
        }
    }

    fn are_of_several_origins(&self) -> bool {
        let Some(first) = &self.first else { return false };
        first.span.origin.is_none() || self.more.iter().any(|piece| piece.span.origin != first.span.origin)
    }
}

/// The view of a key whose ops in each segment lie in one block; memory is bounded by one of these, [`TEXT_BYTES_MAX`] of the others and
/// [`MEMORY_OPS_MAX`] ops.
pub(super) fn view(source: &KeySource, reach: Reach) -> Result<Plain, ReadError> {
    let mut found = Gathered::default();
    let mut pieces = Pieces::default();
    if !source.segments.is_empty() {
        let place = place_of(source.slot, source.user.as_str(), source.key.as_str());
        for segment in &source.segments {
            if found.text_bytes() > TEXT_BYTES_MAX {
                return Ok(Plain::Spread);
            }
            let start = found.fragments.len();
            match segment.texts_of(&place, reach, &mut found)? {
                Texts::Absent => {}
                Texts::Plain(span) => pieces.add(span, start..found.fragments.len()),
                Texts::Spread => return Ok(Plain::Spread),
                Texts::Other => return Ok(Plain::Other),
                Texts::OutOfReach => return Ok(Plain::OutOfReach),
            }
        }
    }
    if source.memory.len() > MEMORY_OPS_MAX {
        return Ok(Plain::Spread);
    }
    if !source.memory.is_empty() {
        let start = found.fragments.len();
        match texts_of_ops(&source.memory, &mut found) {
            Some(span) => pieces.add(span, start..found.fragments.len()),
            None => return Ok(Plain::Other),
        }
    }
    if pieces.are_of_several_origins() && !found.requests_differ() {
        return Ok(Plain::Other);
    }
    let mut fragments = found.fragments;
    if !pieces.more.is_empty() {
        match in_order(pieces, fragments) {
            Some(ordered) => fragments = ordered,
            None => return Ok(Plain::Other),
        }
    }
    // Parts behind the last value are not finished.
    let end = fragments.iter().rposition(|fragment| fragment.ends_value);
    fragments.truncate(end.map_or(0, |last| last + 1));
    Ok(Plain::View(fragments))
}

/// Appends the texts of ops in stamp order; None when they are not all plain.
fn texts_of_ops(ops: &MemoryOps, out: &mut Gathered) -> Option<TextSpan> {
    let mut span: Option<TextSpan> = None;
    out.fragments.reserve(ops.len());
    for found in ops.texts() {
        let (header, request_id, text) = found?;
        let (next, ends_value) = (TextSpan::of(header.stamp()), header.is_value());
        span = Some(match span {
            Some(span) => span.then(next)?,
            None => next,
        });
        out.fragments.push(Fragment { text, ends_value });
        out.requests.extend(request_id);
    }
    span
}

/// The pieces one behind the other in time; None when they overlap.
fn in_order(pieces: Pieces, fragments: Vec<Fragment>) -> Option<Vec<Fragment>> {
    let mut pieces: Vec<Piece> = pieces.first.into_iter().chain(pieces.more).collect();
    let is_sorted = pieces.is_sorted_by_key(|piece| piece.span.first);
    pieces.sort_by_key(|piece| piece.span.first);
    let lie_apart = pieces.windows(2).all(|pair| pair[0].span.is_followed_by(&pair[1].span));
    if !lie_apart {
        return None;
    }
    if is_sorted {
        return Some(fragments);
    }
    let mut ordered = Vec::with_capacity(fragments.len());
    for piece in pieces {
        ordered.extend_from_slice(fragments.get(piece.fragments)?);
    }
    Some(ordered)
}
