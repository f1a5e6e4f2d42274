//! The ops of one key that a peer lacks.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{detached, left_by};
use crate::core::clock::Clock;
use crate::core::op::{Body, Op};
use crate::store::log::record_bytes;
use crate::store::segment::ReadError;
use crate::store::source::{KeySource, MergedOps};
use crate::types::WallMs;

/// Ops of the key whose dots `known`, a clock of its slot, does not cover, page after page of one snapshot, which is read once.
///
/// Clears come first, then the other ops, both in stamp order: a replica that has the `Spent` remainder of an op must hold the clear that
/// removed it.
///
/// A segment that covers nothing unknown in the slot is read only for its clears; so is a block that holds nothing but known values.
pub struct KeyExport {
    source: KeySource,
    known: Arc<Clock>,
    now: WallMs,
    state: State,
    /// The op that had no room in the last page.
    held: Option<Op>,
}

enum State {
    New,
    Begun {
        /// That are not known, those still to be given.
        clears: VecDeque<Op>,
        cleared: Clock,
        others: Box<MergedOps>,
    },
}

impl KeyExport {
    /// Reads nothing yet. What a clear removed is said to be cleared `now`.
    pub fn new(source: KeySource, known: Clock, now: WallMs) -> Self {
        Self {
            source,
            known: Arc::new(known),
            now,
            state: State::New,
            held: None,
        }
    }

    /// The next ops, at most `budget_bytes` of log records, but at least one if there is any: they have to fit into one message, as each op
    /// does. And whether there are more. Blocks on the disk.
    pub fn next_page(&mut self, budget_bytes: usize) -> Result<(Vec<Op>, bool), ReadError> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(op) = self.next()? {
            bytes += record_bytes(self.source.user.as_str(), self.source.key.as_str(), &op);
            if bytes > budget_bytes && !page.is_empty() {
                self.held = Some(op);
                return Ok((page, true));
            }
            page.push(detached(op));
        }
        Ok((page, false))
    }

    fn next(&mut self) -> Result<Option<Op>, ReadError> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        if matches!(self.state, State::New) {
            let mut clears = self.source.clears()?;
            let cleared = joined(&clears);
            clears.retain(|clear| !is_known(&self.known, clear));
            self.state = State::Begun {
                clears: clears.into(),
                cleared,
                others: Box::new(self.source.ops_lacking(&self.known)),
            };
        }
        let State::Begun {
            clears,
            cleared,
            others,
        } = &mut self.state
        else {
            return Ok(None);
        };
        if let Some(clear) = clears.pop_front() {
            return Ok(Some(clear));
        }
        while let Some(op) = others.next()? {
            if is_known(&self.known, &op) || matches!(op.body, Body::Clear(_)) {
                continue;
            }
            if let Some(op) = left_by(cleared, op, self.now) {
                return Ok(Some(op));
            }
        }
        Ok(None)
    }
}

fn is_known(known: &Clock, op: &Op) -> bool {
    known.contains(op.dot.origin, op.dot.seq)
}

/// All that these clears saw.
fn joined(clears: &[Op]) -> Clock {
    let mut cleared = Clock::default();
    for clear in clears {
        if let Body::Clear(seen) = &clear.body {
            cleared.join(seen);
        }
    }
    cleared
}

/// What is sent of an op of the key: where a clear of the snapshot removed it, no text.
pub fn op_as_left(source: &KeySource, op: Op, now: WallMs) -> Result<Option<Op>, ReadError> {
    Ok(left_by(&joined(&source.clears()?), op, now))
}
