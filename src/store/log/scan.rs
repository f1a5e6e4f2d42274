//! Reading a log back, by the rules in the header of [`super`].

use bytes::Bytes;

use super::record::{ALIGN, RECORD_HEADER_BYTES, RecordHeader};
use super::secret::LogKey;
use super::{HEADER_BYTES, LogHeader};
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
    /// Where the sound part ends: behind the last sound record that is kept. Of a file that was cut short: behind what certainly was there,
    /// so that the next log's header says so.
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

/// Reads a whole log of this key by the rules above. `known_end` is where the next log says that this one ended.
pub fn scan(bytes: &Bytes, key: &LogKey, known_end: Option<u64>) -> Scan {
    let mut scan = Scan {
        end: HEADER_BYTES as u64,
        ..Scan::default()
    };
    let mut offset = HEADER_BYTES as u64;
    let mut ordinal = 0u32;
    loop {
        match sound_record(bytes, key, offset) {
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
                if known_end.is_none()
                    && let Some(to) = cut_short(bytes, key, offset, scan.records.last())
                {
                    let (lost, _) = scan.note_lost_dots(bytes, key, offset, to);
                    scan.damaged.push((offset, to));
                    (scan.lost_records, scan.lost_uncounted) = (scan.lost_records + lost, true);
                    scan.end = to;
                    return scan;
                }
                let next = match look_beyond(bytes, key, offset, known_end) {
                    Beyond::Synced(next) => next,
                    beyond => {
                        scan.torn = matches!(beyond, Beyond::Torn);
                        return scan;
                    }
                };
                let (lost, uncounted) = scan.note_lost_dots(bytes, key, offset, next);
                scan.damaged.push((offset, next));
                offset = next;
                if known_end.is_some_and(|end| next >= end) && sound_record(bytes, key, next).is_none() {
                    // The damage reaches to the known end: no later record says how many it took.
                    scan.lost_records += lost;
                    scan.lost_uncounted = uncounted;
                    scan.end = next;
                    return scan;
                }
            }
        }
    }
}

impl Scan {
    /// The scan of a log in which nothing can be believed.
    pub fn of_damaged(bytes: &Bytes, known_end: Option<u64>) -> Self {
        let start = HEADER_BYTES as u64;
        let end = start.max(bytes.len() as u64).max(known_end.unwrap_or_default());
        Self {
            end: start,
            damaged: vec![(start, end)],
            lost_uncounted: true,
            ..Self::default()
        }
    }

    /// In a damaged stretch, sound headers of damaged bodies still name ops that are lost. Returns how many records are lost, where the
    /// rest of the stretch, if headers do not account for all of it, counts as one; and whether there is such a rest.
    fn note_lost_dots(&mut self, bytes: &Bytes, key: &LogKey, from: u64, to: u64) -> (u64, bool) {
        let (mut offset, mut headers, mut unknown) = (from, 0, false);
        // What lies behind the end of the file holds no header, however far `to` is.
        while offset < to.min(bytes.len() as u64) {
            match header_at(bytes, key, offset) {
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

/// Whether the header of the first record is there and is one of this key.
pub fn has_first_header(bytes: &Bytes, key: &LogKey) -> bool {
    header_at(bytes, key, HEADER_BYTES as u64).is_some()
}

fn header_at(bytes: &Bytes, key: &LogKey, offset: u64) -> Option<RecordHeader> {
    let record = bytes.get(usize::try_from(offset).ok()?..)?;
    RecordHeader::decode(record, key, offset)
}

fn sound_record(bytes: &Bytes, key: &LogKey, offset: u64) -> Option<RecordHeader> {
    let header = header_at(bytes, key, offset)?;
    let start = usize::try_from(offset).ok()?;
    let whole = bytes.get(start..start + usize::try_from(header.total_bytes()).ok()?)?;
    if !header.body_is_sound(whole, key, offset) && !planted(Bug::TornTailAccepted) {
        return None;
    }
    // A checksum that holds over content that does not decode was written by a bug, not by the disk; it is treated alike.
    header.op(&bytes.slice(start..)).map(|_| header)
}

/// Whether the file was cut short: it ends where this log went on, which no crash leaves, as files are filled before they are written.
/// Returns an offset that the log certainly reached. A file that ends right behind a record was cut short if that record had to leave room
/// for clears.
fn cut_short(bytes: &Bytes, key: &LogKey, at: u64, last: Option<&Found>) -> Option<u64> {
    let len = bytes.len() as u64;
    if let Some(header) = header_at(bytes, key, at) {
        let end = at + header.total_bytes();
        // More than this one record may be gone: behind it there was room for the header of another.
        return (end > len).then_some(end + RECORD_HEADER_BYTES as u64);
    }
    let went_on = match last {
        Some(found) => !found.header.is_clear() && !found.header.is_spent(),
        // The header of a log is written with its first records.
        None => match LogHeader::decode(bytes) {
            Ok(header) => header.number == key.number(),
            Err(_) => bytes.iter().take(HEADER_BYTES).any(|&byte| byte != 0),
        },
    };
    let end = at + RECORD_HEADER_BYTES as u64;
    (went_on && end > len).then_some(end)
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

fn look_beyond(bytes: &Bytes, key: &LogKey, bad: u64, known_end: Option<u64>) -> Beyond {
    let mut first_sound = None;
    let mut synced = known_end.is_some_and(|end| bad < end);
    // A sound header says how long its record is: what lies in the body of a torn one is a user's text, and no record.
    let in_its_way = header_at(bytes, key, bad).map_or(ALIGN as u64, |header| header.total_bytes());
    let mut offset = bad + in_its_way;
    while offset + RECORD_HEADER_BYTES as u64 <= bytes.len() as u64 {
        match sound_record(bytes, key, offset) {
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
    match first_sound.or(known_end) {
        Some(next) if synced => Beyond::Synced(next),
        _ if first_sound.is_some() || header_at(bytes, key, bad).is_some() => Beyond::Torn,
        _ => Beyond::Nothing,
    }
}
