//! The ops of one key that a peer lacks.

use super::{detached, left_by};
use crate::core::clock::Clock;
use crate::core::op::{Body, Op};
use crate::store::log::record_bytes;
use crate::store::segment::ReadError;
use crate::store::source::KeySource;
use crate::types::WallMs;

/// Ops of the key whose dots `known`, a clock of its slot, does not cover, in stamp order: at most `budget_bytes` of log records, but at
/// least one if there is any: they have to fit into one message, as each op does. And whether there are more, which come when these are
/// known too.
///
/// Segments of which all that they cover in the slot is known are not read.
pub fn ops_of_key_lacking(
    source: &KeySource,
    known: &Clock,
    budget_bytes: usize,
    now: WallMs,
) -> Result<(Vec<Op>, bool), ReadError> {
    let cleared = cleared_of(source)?;
    let mut segments = source.segments.clone();
    segments.retain(|segment| {
        segment
            .covered()
            .get(source.slot)
            .is_some_and(|held| !known.covers(held))
    });
    let source = KeySource {
        memory: source.memory.lacking(known),
        segments,
        ..source.clone()
    };
    let mut lacking = Vec::new();
    let mut bytes = 0;
    let mut ops = source.ops();
    while let Some(op) = ops.next()? {
        if known.contains(op.dot.origin, op.dot.seq) {
            continue;
        }
        let Some(op) = left_by(&cleared, op, now) else {
            continue;
        };
        bytes += record_bytes(source.user.as_str(), source.key.as_str(), &op);
        if bytes > budget_bytes && !lacking.is_empty() {
            return Ok((lacking, true));
        }
        lacking.push(detached(op));
    }
    Ok((lacking, false))
}

/// What is sent of an op of the key: where a clear of the snapshot removed it, no text.
pub fn op_as_left(source: &KeySource, op: Op, now: WallMs) -> Result<Option<Op>, ReadError> {
    Ok(left_by(&cleared_of(source)?, op, now))
}

fn cleared_of(source: &KeySource) -> Result<Clock, ReadError> {
    let mut segments = source.segments.clone();
    segments.retain(|segment| segment.stats().clears > 0);
    let source = KeySource {
        segments,
        ..source.clone()
    };
    let mut cleared = Clock::default();
    let mut ops = source.ops();
    while let Some(op) = ops.next()? {
        if let Body::Clear(seen) = &op.body {
            cleared.join(seen);
        }
    }
    Ok(cleared)
}
