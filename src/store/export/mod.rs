//! What replicas need of each other: the ops that another one lacks, and what is held of a slot.
//!
//! Everything here reads a snapshot, given as memtables and segments, and blocks on the disk. Of a memtable, only the groups that were
//! durable when the snapshot was taken are read: what is sent to a peer must not be lost here.
//!
//! Invariants:
//! - only checked ops of the snapshot are given, each once;
//! - if no error occurs, every wanted op is given, or, if a clear of the snapshot removes it, its `Spent` remainder
//!   (where it had a request id). The scan continues past a damaged block only if asked to, and the caller must then
//!   not claim to have sent all of the slots;
//! - a clear is given before any sign of its effect (a `Spent` record, or the absence of an op);
//! - small texts are copied, so that a batch does not keep whole blocks in memory.

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
