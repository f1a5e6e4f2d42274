//! What damage has destroyed: naming what is lost, and saving what is left.

use std::io;
use std::sync::Arc;

use super::{Place, Recovered, UNKNOWN_ORIGIN};
use crate::core::clock::SlotClocks;
use crate::core::dots::Dots;
use crate::core::op::{Dot, KeyedOp};
use crate::core::slot::SlotId;
use crate::store::segment::{self, EntryRef, OpenError, Segment, SegmentMeta, SegmentWriter, WriteError};

/// Why a damaged segment could not be salvaged.
#[derive(Debug, thiserror::Error)]
pub(super) enum SalvageError {
    #[error(transparent)]
    Read(#[from] OpenError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl SalvageError {
    /// What the disk said, if it is the disk that failed and not the file: a later try may do better.
    pub(super) fn disk_failed(self) -> Result<io::Error, Self> {
        match self {
            Self::Read(OpenError::Io { error, .. })
            | Self::Write(WriteError::Io { error, .. } | WriteError::Reopen(OpenError::Io { error, .. })) => Ok(error),
            other => Err(other),
        }
    }
}

/// Puts what a segment that does not open still holds into a new one, so that the file can be set aside.
pub(super) fn salvage_segment(
    place: &Place,
    number: u64,
    may_replace_log: bool,
    found: &mut Recovered,
) -> Result<(), SalvageError> {
    let meta = SegmentMeta {
        shard: place.shard,
        // Whatever becomes of the file of this number, no other one is ever to have it.
        number: found.next_number,
        replaces: vec![number],
    };
    found.next_number += 1;
    let new = meta.number;
    match write_salvaged(place, number, meta, may_replace_log, found) {
        Ok(segment) => {
            found.segments.push(Arc::new(segment));
            found.set_aside.push(number);
            Ok(())
        }
        Err(error) => {
            // It may have its name already, and would then say that it took over what is still to be salvaged.
            found.obsolete.push(new);
            Err(error)
        }
    }
}

/// An op whose dot the footer of another segment covers is left out: that segment holds it, or knows that it was dropped. It was not
/// so when the damaged segment was written, but an earlier start may have gone on without it, got the op from a peer, and cleared it.
fn write_salvaged(
    place: &Place,
    number: u64,
    meta: SegmentMeta,
    may_replace_log: bool,
    found: &Recovered,
) -> Result<Segment, SalvageError> {
    let mut writer = SegmentWriter::create(place.disk.clone(), &place.dir, meta)?;
    let mut covered = Dots::default();
    let mut pushed = Ok(());
    let salvaged = segment::salvage(
        &place.disk,
        &place.dir,
        place.shard,
        number,
        &mut |KeyedOp { user, key, op }| {
            if pushed.is_err() {
                return;
            }
            covered.add(op.dot);
            if !is_covered(&found.segments, op.dot) {
                pushed = writer.push(EntryRef {
                    slot: op.dot.slot,
                    user: user.as_str(),
                    key: key.as_str(),
                    op: &op,
                });
            }
        },
    );
    let salvaged = match (salvaged, pushed) {
        (Ok(salvaged), Ok(())) => salvaged,
        (Err(error), _) => {
            writer.abandon();
            return Err(error.into());
        }
        (_, Err(error)) => {
            writer.abandon();
            return Err(error.into());
        }
    };
    let path = place.dir.join(segment::file_name(number));
    tracing::error!(path = %path.display(), ?salvaged, "a damaged segment was salvaged and set aside");
    let mut lost = SlotClocks::default();
    // Its footer also said what had been lost before, and nothing else may say so.
    if !salvaged.complete || may_replace_log || found.was_damaged {
        lose_unknown(place, found.next_unknown(), &mut lost);
    }
    Ok(writer.finish(covered.into_clocks(), lost, &place.cache)?)
}

/// Whether one of the segments holds the op of this dot, or knows that it was dropped.
pub(super) fn is_covered(segments: &[Arc<Segment>], dot: Dot) -> bool {
    let covers = |segment: &Arc<Segment>| segment.covered().contains(dot.slot, dot.origin, dot.seq);
    segments.iter().any(covers)
}

/// Counts as lost: every gap in the sequences of an origin that may have none; and of an origin that has ended, what it held then and is
/// not here.
fn lose_gaps(place: &Place, found: &mut Recovered) {
    let mut gaps = found.closed.held();
    let has_no_gaps = |origin| origin != UNKNOWN_ORIGIN && place.has_no_gaps(origin) && !found.closed.contains(origin);
    for (slot, clock) in found.covered.slots() {
        for (origin, set) in clock.origins().filter(|(origin, _)| has_no_gaps(*origin)) {
            if let Some(last) = set.last() {
                gaps.insert_range(slot, origin, 1, last);
            }
        }
    }
    found.lost.join(&gaps.minus(&found.covered));
}

pub(super) fn lose_unknown(place: &Place, seq: u64, lost: &mut SlotClocks) {
    for slot in place.slots.clone() {
        lost.insert(SlotId(slot), UNKNOWN_ORIGIN, seq);
    }
}

pub(super) fn take_footers(found: &mut Recovered) {
    for segment in &found.segments {
        found.covered.join(segment.covered());
        found.collected.join(segment.collected());
        found.known_lost.join(segment.lost());
        found.max_time = found.max_time.max(segment.stats().max_time);
    }
}

pub(super) fn tell_losses(place: &Place, found: &mut Recovered) {
    lose_gaps(place, found);
    let newly_lost = found.lost.minus(&found.covered).minus(&found.known_lost);
    if !newly_lost.is_empty() && found.damage.is_empty() {
        // A file is gone. What its origin gave out last may have been in it, and must not be given out again.
        found.note_damage(format!(
            "{}: {} ops are missing and no file is damaged",
            place.dir.display(),
            newly_lost.count()
        ));
    }
    if found.lost_uncounted || found.lost_records > newly_lost.count() {
        let seq = found.next_unknown();
        lose_unknown(place, seq, &mut found.lost);
    }
    found.lost.join(&found.known_lost);
    found.lost = found.lost.minus(&found.covered);
    if !found.lost.is_empty() {
        tracing::error!(
            shard = place.shard,
            slots = found.lost.slots().count(),
            ops = found.lost.count(),
            "acknowledged data is lost on this disk; reads of these slots are refused"
        );
    }
}
