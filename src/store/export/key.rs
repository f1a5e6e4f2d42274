//! The ops of one key that a peer lacks.

use super::{detached, left_by};
use crate::core::clock::Clock;
use crate::core::op::{Body, Op};
use crate::store::log::record_bytes;
use crate::store::segment::ReadError;
use crate::store::source::KeySource;
use crate::types::WallMs;

/// Ops of the key whose dots `known`, a clock of its slot, does not cover: at most `budget_bytes` of log records, but at least one if there is
/// any: they have to fit into one message, as each op does. And whether there are more, which come when these are known too.
///
/// Clears come first, and then the others, both in stamp order: who knows of what is left of an op has to hold the clear that removed it.
///
/// Segments of which all that they cover in the slot is known are read only for their clears.
pub fn ops_of_key_lacking(
    source: &KeySource,
    known: &Clock,
    budget_bytes: usize,
    now: WallMs,
) -> Result<(Vec<Op>, bool), ReadError> {
    let is_known = |op: &Op| known.contains(op.dot.origin, op.dot.seq);
    let (mut lacking, mut bytes) = (Vec::new(), 0);
    // Whether there was room for it.
    let mut take = |op: Op| {
        bytes += record_bytes(source.user.as_str(), source.key.as_str(), &op);
        let fits = bytes <= budget_bytes || lacking.is_empty();
        if fits {
            lacking.push(detached(op));
        }
        fits
    };
    let mut cleared = Clock::default();
    let mut clears = with_clears(source).ops();
    while let Some(op) = clears.next()? {
        let Body::Clear(seen) = &op.body else {
            continue;
        };
        cleared.join(seen);
        if !is_known(&op) && !take(op) {
            return Ok((lacking, true));
        }
    }
    let mut others = with_unknown(source, known).ops();
    while let Some(op) = others.next()? {
        if is_known(&op) || matches!(op.body, Body::Clear(_)) {
            continue;
        }
        if let Some(op) = left_by(&cleared, op, now)
            && !take(op)
        {
            return Ok((lacking, true));
        }
    }
    Ok((lacking, false))
}

/// What is sent of an op of the key: where a clear of the snapshot removed it, no text.
pub fn op_as_left(source: &KeySource, op: Op, now: WallMs) -> Result<Option<Op>, ReadError> {
    Ok(left_by(&cleared_of(source)?, op, now))
}

fn cleared_of(source: &KeySource) -> Result<Clock, ReadError> {
    let mut cleared = Clock::default();
    let mut ops = with_clears(source).ops();
    while let Some(op) = ops.next()? {
        if let Body::Clear(seen) = &op.body {
            cleared.join(seen);
        }
    }
    Ok(cleared)
}

/// Of which no clear is missing.
fn with_clears(source: &KeySource) -> KeySource {
    let mut segments = source.segments.clone();
    segments.retain(|segment| segment.stats().clears > 0);
    KeySource {
        segments,
        ..source.clone()
    }
}

/// Of which nothing is missing that this clock does not cover.
fn with_unknown(source: &KeySource, known: &Clock) -> KeySource {
    let mut segments = source.segments.clone();
    segments.retain(|segment| {
        segment
            .covered()
            .get(source.slot)
            .is_some_and(|held| !known.covers(held))
    });
    KeySource {
        memory: source.memory.lacking(known),
        segments,
        ..source.clone()
    }
}
