//! The segments of a shard.
//!
//! Invariants:
//! - what waits to be salvaged is one of those that are held;
//! - what was merged away is let go by a job, never by the shard's actor.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::store::segment::Segment;

#[derive(Default)]
pub(super) struct Segments {
    held: Vec<Arc<Segment>>,
    /// Those in which a read met damage, and which no merge salvages yet.
    damaged: BTreeSet<u64>,
    /// Merged away, for a job to let go.
    merged: Vec<Arc<Segment>>,
}

/// Sums over segments. A key in several counts as several.
pub(super) struct Totals {
    pub bytes: u64,
    pub keys: u64,
    pub clears: u64,
}

impl Segments {
    pub fn found(held: Vec<Arc<Segment>>) -> Self {
        Self {
            held,
            ..Self::default()
        }
    }

    pub fn all(&self) -> &[Arc<Segment>] {
        &self.held
    }

    pub fn count(&self) -> usize {
        self.held.len()
    }

    pub fn holds(&self, number: u64) -> bool {
        self.held.iter().any(|segment| segment.number() == number)
    }

    /// The sum of a figure over all segments that are held.
    pub fn sum(&self, figure: fn(&Segment) -> u64) -> u64 {
        self.held.iter().map(|segment| figure(segment)).sum()
    }

    pub fn totals(&self) -> Totals {
        Totals {
            bytes: self.sum(Segment::file_bytes),
            keys: self.sum(|segment| segment.stats().keys),
            clears: self.sum(|segment| segment.stats().clears),
        }
    }

    pub fn add(&mut self, segment: Arc<Segment>) {
        self.held.push(segment);
    }

    /// These were merged into another one, which is to be added.
    pub fn merge_away(&mut self, numbers: &[u64]) {
        let is_input = |held: &mut Arc<Segment>| numbers.contains(&held.number());
        self.merged.extend(self.held.extract_if(.., is_input));
        for number in numbers {
            self.damaged.remove(number);
        }
    }

    /// For a job to let go.
    pub fn take_merged(&mut self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut self.merged)
    }

    /// A read met damage in one that is held; whether that is news.
    pub fn note_damaged(&mut self, number: u64) -> bool {
        debug_assert!(self.holds(number), "nothing else is salvaged");
        self.damaged.insert(number)
    }

    pub fn is_damaged(&self, number: u64) -> bool {
        self.damaged.contains(&number)
    }

    /// A merge salvages it from here on.
    pub fn begin_salvage(&mut self, number: u64) {
        self.damaged.remove(&number);
    }
}
