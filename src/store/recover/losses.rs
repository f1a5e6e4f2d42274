//! What damage has destroyed: telling it, and saving what is left.

use std::io;
use std::sync::Arc;

use super::{Place, RecoverError, Recovered, UNKNOWN_ORIGIN};
use crate::core::clock::SlotClocks;
use crate::core::op::KeyedOp;
use crate::core::slot::SlotId;
use crate::store::segment::{self, EntryRef, Segment, SegmentMeta, SegmentWriter};

/// Puts what a segment that does not open still holds into a new one, so that the file can be set aside.
pub(super) fn salvage_segment(
    place: &Place,
    number: u64,
    may_replace_log: bool,
    found: &mut Recovered,
) -> Result<(), RecoverError> {
    let path = place.dir.join(segment::file_name(number));
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
        Err(source) => {
            // It may have its name already, and would then say that it took over what is still to be salvaged.
            found.obsolete.push(new);
            Err(RecoverError::Io { path, source })
        }
    }
}

fn write_salvaged(
    place: &Place,
    number: u64,
    meta: SegmentMeta,
    may_replace_log: bool,
    found: &Recovered,
) -> io::Result<Segment> {
    let mut writer = SegmentWriter::create(place.disk.clone(), &place.dir, meta).map_err(io::Error::other)?;
    let mut covered = SlotClocks::default();
    let mut pushed = Ok(());
    let salvaged = segment::salvage(
        &place.disk,
        &place.dir,
        place.shard,
        number,
        &mut |KeyedOp { user, key, op }| {
            if pushed.is_ok() {
                covered.insert(op.dot.slot, op.dot.origin, op.dot.seq);
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
        (salvaged, pushed) => {
            writer.abandon();
            salvaged.map_err(io::Error::other)?;
            return Err(pushed.map_or_else(io::Error::other, |()| io::ErrorKind::Other.into()));
        }
    };
    let path = place.dir.join(segment::file_name(number));
    tracing::error!(path = %path.display(), ?salvaged, "a damaged segment was salvaged and set aside");
    let mut lost = SlotClocks::default();
    if !salvaged.complete || may_replace_log {
        lose_unknown(place, found.next_unknown(), &mut lost);
    }
    writer.finish(covered, lost, &place.cache).map_err(io::Error::other)
}

/// Takes every gap in the sequences of an origin that has none for lost; of one that has ended, what it held then and is not here.
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
