//! Reading a log back, by the rules in the header of [`super`].

use bytes::Bytes;

use super::HEADER_BYTES;
use super::record::{ALIGN, RECORD_HEADER_BYTES, RecordHeader};
use crate::core::op::Dot;
use crate::planted::{Bug, planted};

/// One sound record of a scanned log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub offset: u64,
    pub header: RecordHeader,
}

/// What a scan found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    pub records: Vec<Found>,
    /// Where the sound part ends: behind the last sound record that is kept.
    pub end: u64,
    /// A record that was not acknowledged yet was cut off here.
    pub torn: bool,
    /// Stretches that had been synced and no longer check out, as (from, to).
    pub damaged: Vec<(u64, u64)>,
    /// Records lost in the damaged stretches, as far as they can be counted.
    pub lost_records: u64,
    /// More may be lost than is counted.
    pub lost_uncounted: bool,
    /// Dots of lost records whose headers are still sound.
    pub lost_dots: Vec<Dot>,
}

/// Reads a whole log by the rules above. `known_end` is where the next log says that this one ended.
pub fn scan(bytes: &Bytes, number: u64, known_end: Option<u64>) -> Scan {
    let mut scan = Scan {
        end: HEADER_BYTES as u64,
        ..Scan::default()
    };
    let mut offset = HEADER_BYTES as u64;
    let mut ordinal = 0u32;
    loop {
        match sound_record(bytes, number, offset) {
            Some(header) => {
                scan.lost_records += u64::from(header.ordinal.saturating_sub(ordinal));
                ordinal = header.ordinal.saturating_add(1);
                offset += header.total_bytes();
                scan.records.push(Found {
                    offset: offset - header.total_bytes(),
                    header,
                });
                scan.end = offset;
            }
            None => {
                let next = match look_beyond(bytes, number, offset, known_end) {
                    Beyond::Synced(next) => next,
                    beyond => {
                        scan.torn = matches!(beyond, Beyond::Torn);
                        return scan;
                    }
                };
                let (lost, uncounted) = scan.note_lost_dots(bytes, number, offset, next);
                scan.damaged.push((offset, next));
                offset = next;
                if known_end.is_some_and(|end| next >= end) && sound_record(bytes, number, next).is_none() {
                    // The damage reaches to the known end: no later record says how many it took.
                    scan.lost_records += lost;
                    scan.lost_uncounted = uncounted;
                    return scan;
                }
            }
        }
    }
}

impl Scan {
    /// In a damaged stretch, sound headers of unsound bodies still say which ops are lost. Gives how many these are, and one more if
    /// they do not account for the whole stretch, and whether that is so.
    fn note_lost_dots(&mut self, bytes: &Bytes, number: u64, from: u64, to: u64) -> (u64, bool) {
        let (mut offset, mut headers, mut unknown) = (from, 0, false);
        // What lies behind the end of the file holds no header, however far `to` is.
        while offset < to.min(bytes.len() as u64) {
            match header_at(bytes, number, offset) {
                Some(header) => {
                    self.lost_dots.push(header.dot);
                    headers += 1;
                    offset += header.total_bytes();
                }
                None => {
                    unknown = true;
                    offset += ALIGN as u64;
                }
            }
        }
        unknown |= offset < to;
        (headers + u64::from(unknown), unknown)
    }
}

fn header_at(bytes: &Bytes, number: u64, offset: u64) -> Option<RecordHeader> {
    let record = bytes.get(usize::try_from(offset).ok()?..)?;
    RecordHeader::decode(record, number, offset)
}

fn sound_record(bytes: &Bytes, number: u64, offset: u64) -> Option<RecordHeader> {
    let header = header_at(bytes, number, offset)?;
    let start = usize::try_from(offset).ok()?;
    let whole = bytes.get(start..start + usize::try_from(header.total_bytes()).ok()?)?;
    if !header.body_is_sound(whole, number, offset) && !planted(Bug::TornTailAccepted) {
        return None;
    }
    // A checksum that holds over content that does not decode was written by a bug, not by the disk; it is treated alike.
    header.op(&bytes.slice(start..)).map(|_| header)
}

/// What lies behind an unsound place.
enum Beyond {
    /// Nothing of this log.
    Nothing,
    /// Only records of the same, unsynced group.
    Torn,
    /// Proof that the place had been synced; the scan goes on here.
    Synced(u64),
}

fn look_beyond(bytes: &Bytes, number: u64, bad: u64, known_end: Option<u64>) -> Beyond {
    let mut first_sound = None;
    let mut synced = known_end.is_some_and(|end| bad < end);
    let mut offset = bad + ALIGN as u64;
    while offset + RECORD_HEADER_BYTES as u64 <= bytes.len() as u64 {
        match sound_record(bytes, number, offset) {
            Some(header) => {
                first_sound.get_or_insert(offset);
                synced |= offset - u64::from(header.group_back) > bad;
                if synced {
                    break;
                }
                offset += header.total_bytes();
            }
            None => offset += ALIGN as u64,
        }
    }
    match (synced, first_sound.or(known_end)) {
        (true, Some(next)) => Beyond::Synced(next),
        (_, Some(_)) => Beyond::Torn,
        (_, None) if header_at(bytes, number, bad).is_some() => Beyond::Torn,
        (_, None) => Beyond::Nothing,
    }
}
