//! The way to read a list that spreads over several blocks, if it is nothing but values: it needs no fold, and what is skipped is not
//! even read.
//!
//! Invariant: that of `plain`, by the same rules and one more: there are no parts, so every op is a value, and the index tells how many a
//! block holds. Only if several origins wrote, and with request ids, is everything read once, to compare these ids.

use std::collections::VecDeque;

use super::filter::request_tag;
use super::memtable::MemoryOps;
use super::segment::{OpCursor, ReadError, TextSpan, Values, place_of};
use super::source::KeySource;
use crate::core::op::{Body, Fragment, Op};
use crate::core::slot::KeyHash;

/// Request ids that are compared, 8 bytes each: the 2 MiB of a quarter of a million.
const REQUESTS_MAX: u64 = 256 * 1024;

pub(super) struct Spread {
    /// One behind the other in time.
    pieces: VecDeque<Piece>,
    values: u64,
}

/// The values of one source that are left.
struct Piece {
    span: TextSpan,
    left: u64,
    from: From,
}

enum From {
    Memory(MemoryOps, usize),
    Segment(Box<OpCursor>),
}

impl Piece {
    /// Skips `count` values, of which there are more.
    fn skip(&mut self, mut count: u64) -> Result<(), ReadError> {
        self.left -= count;
        if let From::Memory(_, next) = &mut self.from {
            *next += count as usize;
            return Ok(());
        }
        while count > 0 {
            if let From::Segment(cursor) = &mut self.from
                && let Some(run) = cursor.plain_run().filter(|run| run.ops <= count)
            {
                cursor.skip_plain_run();
                count -= run.ops;
            } else {
                self.next()?;
                count -= 1;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Fragment>, ReadError> {
        match &mut self.from {
            From::Memory(ops, next) => {
                *next += 1;
                Ok(ops.get(*next - 1).and_then(value))
            }
            From::Segment(cursor) => Ok(cursor.next()?.and_then(value)),
        }
    }
}

/// Whether no request id is there twice; false when there are too many to tell.
fn requests_differ(source: &KeySource, values: u64) -> Result<bool, ReadError> {
    if values > REQUESTS_MAX {
        return Ok(false);
    }
    let mut tags = Vec::new();
    let mut ops = source.ops();
    while let Some(op) = ops.next()? {
        tags.extend(op.request_id.map(|id| request_tag(KeyHash(0), id)));
    }
    tags.sort_unstable();
    Ok(tags.array_windows().all(|[a, b]| a != b))
}

fn value(op: Op) -> Option<Fragment> {
    match op.body {
        Body::Value(text) => Some(Fragment { text, ends_value: true }),
        Body::Part(_) | Body::Clear(_) | Body::Spent { .. } => None,
    }
}

impl Spread {
    /// None when the key has to be folded.
    pub fn of(source: &KeySource) -> Result<Option<Self>, ReadError> {
        let (slot, user, key) = (source.slot, source.user.as_str(), source.key.as_str());
        let place = place_of(slot, user, key);
        let mut pieces = Vec::new();
        let mut has_ids = false;
        for segment in &source.segments {
            match segment.values_of(&place)? {
                Values::Absent => {}
                Values::Plain {
                    span,
                    values: left,
                    has_request_ids,
                } => {
                    has_ids |= has_request_ids;
                    let from = From::Segment(Box::new(segment.ops_of(slot, user, key)));
                    pieces.push(Piece { span, left, from });
                }
                Values::Other => return Ok(None),
            }
        }
        if !source.memory.is_empty() {
            let Some((span, has_request_ids)) = source.memory.span_of_values() else {
                return Ok(None);
            };
            has_ids |= has_request_ids;
            let (left, from) = (source.memory.len() as u64, From::Memory(source.memory.clone(), 0));
            pieces.push(Piece { span, left, from });
        }
        pieces.sort_by_key(|piece| piece.span.first);
        let mut spans = pieces.iter().map(|piece| piece.span);
        let Some(first) = spans.next() else { return Ok(None) };
        let Some(span) = spans.try_fold(first, TextSpan::then) else {
            return Ok(None);
        };
        let values = pieces.iter().map(|piece| piece.left).sum();
        if has_ids && span.origin.is_none() && !requests_differ(source, values)? {
            return Ok(None);
        }
        Ok(Some(Self {
            pieces: pieces.into(),
            values,
        }))
    }

    /// How many values the whole list has.
    pub fn values(&self) -> u64 {
        self.values
    }

    pub fn skip(&mut self, mut count: u64) -> Result<(), ReadError> {
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.left {
                return piece.skip(count);
            }
            count -= piece.left;
            self.pieces.pop_front();
        }
        Ok(())
    }

    pub fn next(&mut self) -> Result<Option<Fragment>, ReadError> {
        while let Some(piece) = self.pieces.front_mut() {
            if let Some(fragment) = piece.next()? {
                return Ok(Some(fragment));
            }
            self.pieces.pop_front();
        }
        Ok(None)
    }
}
