//! What replicas need of each other: the ops that another one lacks, and what is held of a slot.
//!
//! Everything here reads a snapshot, given as memtables and segments, and blocks on the disk. Of a memtable, only the groups that were
//! durable when the snapshot was taken are read: what is sent to a peer must not be lost here.
//!
//! Invariants:
//! - what is given was checked, and is an op of the snapshot; no op is given twice;
//! - without an error, every wanted op of the snapshot is given, or, where a clear of the snapshot removes it, what is left of it. Behind a
//!   damaged block the scan goes on only when it is told to, by one who then does not claim to have sent all of its slots;
//! - a clear of the snapshot is given before anything shows that it removed an op: what is left of one, or that one does not come;
//! - the texts are copies as long as they are small, so that a batch keeps no more in memory than about what it holds.

mod held;
mod key;
mod scan;

use crate::core::clock::Clock;
use crate::core::op::{Body, Op, Text};
use crate::types::WallMs;

pub use held::{HeldDots, held_dots};
pub use key::{KeyExport, op_as_left};
pub use scan::OpScan;

/// A longer text is most of the read that it is a slice of.
const COPIED_TEXT_BYTES_MAX: usize = 64 * 1024;

/// The op with a text of its own.
fn detached(op: Op) -> Op {
    let own = |text: Text| match text.len() {
        0..=COPIED_TEXT_BYTES_MAX => Text::from(text.as_ref()),
        _ => text,
    };
    let body = match op.body {
        Body::Part(text) => Body::Part(own(text)),
        Body::Value(text) => Body::Value(own(text)),
        other => other,
    };
    Op { body, ..op }
}

/// What is sent of an op of a key whose clears removed these dots.
fn left_by(cleared: &Clock, op: Op, now: WallMs) -> Option<Op> {
    let is_text = matches!(op.body, Body::Part(_) | Body::Value(_));
    if !is_text || !cleared.contains(op.dot.origin, op.dot.seq) {
        return Some(op);
    }
    op.request_id?;
    let body = Body::Spent { cleared_at: now };
    Some(Op { body, ..op })
}

#[cfg(test)]
mod tests;
