//! The log: the append-only file of a shard's active segment.
//!
//! ```text
//! file    = header (512 bytes: one sector), then records, then zeroes or the remains of the file's former life
//! header  = magic[4] version:u16 shard:u16 number:u64 previous:u64 previous_end:u64 crc:u32, zeroes to 512
//! record  = header_crc:u32 body_crc:u32 body_bytes:u32 group_back:u32 ordinal:u32
//!           user_bytes:u16 key_bytes:u16 slot:u16 kind:u8 flags:u8 zero:u32 origin:u64 seq:u64 time:u64,
//!           body = user key [request id, 16 bytes] content, zeroes to a multiple of 8
//! content = the text of a part or value; the encoded clock of a clear
//! ```
//!
//! All integers are little-endian. Both checksums are CRC32C over (log number, offset of the record) and then the bytes, so a
//! record of another log, another place or a former life of a recycled file never passes for one of this log: two logs of a
//! shard never share a number.
//!
//! Records are written in groups; `group_back` is the distance to the first record of the group, `ordinal` counts the records of
//! the log. **A group is written only after the one before it was synced.** From this follow the rules of recovery for the
//! first record that does not check out, at offset `p`:
//! - *torn* if no sound record further on belongs to a group that begins after `p`: the group at `p` was never acknowledged. The
//!   log ends at `p`.
//! - *damaged* otherwise, for a later group proves that `p` had been synced; also if `p` lies before the end that the next log's
//!   header names. What is sound behind it is kept; how many records are lost is the jump in `ordinal`.
//! - The header holds nothing that the file's name does not say, but for the end of the log before; a damaged header alone
//!   loses nothing.

use bytes::Bytes;

use super::codec::{Cursor, put_clock};
use crate::core::op::{Body, Dot, Op, Text};
use crate::core::slot::{SLOT_COUNT, SlotId};
use crate::core::stamp::{HybridTime, OriginId};
use crate::types::{KEY_BYTES_MAX, RequestId, USER_ID_BYTES_MAX};

pub const MAGIC: [u8; 4] = *b"KVLG";
pub const VERSION: u16 = 1;
/// One sector, so that it is written whole or not at all.
pub const HEADER_BYTES: usize = 512;
const HEADER_USED_BYTES: usize =
    4 /* magic */ + 2 /* version */ + 2 /* shard */ + 8 /* number */ + 8 /* previous */ + 8 /* previous end */;
pub const RECORD_HEADER_BYTES: usize = 4 /* header crc */ + 4 /* body crc */ + 4 /* body length */ + 4 /* group back */
    + 4 /* ordinal */ + 2 /* user length */ + 2 /* key length */ + 2 /* slot */ + 1 /* kind */ + 1 /* flags */
    + 4 /* zero */ + 8 /* origin */ + 8 /* seq */ + 8 /* time */;
const ALIGN: usize = 8;

const KIND_PART: u8 = 1;
const KIND_VALUE: u8 = 2;
const KIND_CLEAR: u8 = 3;
const FLAG_REQUEST_ID: u8 = 1;
const FLAG_RAISED: u8 = 2;

pub fn file_name(number: u64) -> String {
    format!("log-{number:016x}.kvl")
}

pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".kvl")?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// The log before this one, and where it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Previous {
    pub number: u64,
    pub end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHeader {
    pub shard: u16,
    pub number: u64,
    pub previous: Previous,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    Damaged,
    NewerVersion(u16),
}

impl LogHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.previous.number.to_le_bytes());
        out.extend_from_slice(&self.previous.end.to_le_bytes());
        debug_assert_eq!(out.len(), HEADER_USED_BYTES);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let mut header = [0; HEADER_BYTES];
        header[..out.len()].copy_from_slice(&out);
        header
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let damaged = |_| HeaderError::Damaged;
        let mut cursor = Cursor::new(bytes);
        let used = Cursor::new(bytes).take(HEADER_USED_BYTES).map_err(damaged)?;
        let magic: [u8; 4] = cursor.array().map_err(damaged)?;
        let version = cursor.u16().map_err(damaged)?;
        let header = Self {
            shard: cursor.u16().map_err(damaged)?,
            number: cursor.u64().map_err(damaged)?,
            previous: Previous {
                number: cursor.u64().map_err(damaged)?,
                end: cursor.u64().map_err(damaged)?,
            },
        };
        let crc = cursor.u32().map_err(damaged)?;
        if magic != MAGIC || crc != crc32c::crc32c(used) {
            return Err(HeaderError::Damaged);
        }
        if version > VERSION {
            return Err(HeaderError::NewerVersion(version));
        }
        Ok(header)
    }
}

fn seed(number: u64, offset: u64) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&number.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c(&place)
}

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub number: u64,
    /// From the start of the file, bytes.
    pub offset: u64,
    /// From the first record of the group, bytes.
    pub group_back: u32,
    pub ordinal: u32,
}

/// What is appended: an op of a key.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub user: &'a str,
    pub key: &'a str,
    pub op: &'a Op,
}

/// Bytes that the record of `op` takes in a log.
pub fn record_bytes(user: &str, key: &str, op: &Op) -> usize {
    let content = match &op.body {
        Body::Part(text) | Body::Value(text) => text.len(),
        Body::Clear(context) => {
            let mut encoded = Vec::new();
            put_clock(&mut encoded, context);
            encoded.len()
        }
        Body::Spent { .. } => 0,
    };
    let request = op.request_id.map_or(0, |id| id.0.len());
    (RECORD_HEADER_BYTES + user.len() + key.len() + request + content).next_multiple_of(ALIGN)
}

/// Appends the record to `out`. A `Spent` op never goes into a log: only compaction makes them.
pub fn put_record(out: &mut Vec<u8>, place: Place, record: Record<'_>) {
    let start = out.len();
    let body_start = start + RECORD_HEADER_BYTES;
    out.resize(body_start, 0);
    out.extend_from_slice(record.user.as_bytes());
    out.extend_from_slice(record.key.as_bytes());
    let mut flags = if record.op.raised { FLAG_RAISED } else { 0 };
    if let Some(id) = record.op.request_id {
        flags |= FLAG_REQUEST_ID;
        out.extend_from_slice(&id.0);
    }
    let kind = match &record.op.body {
        Body::Part(text) => {
            out.extend_from_slice(text.as_bytes());
            KIND_PART
        }
        Body::Value(text) => {
            out.extend_from_slice(text.as_bytes());
            KIND_VALUE
        }
        Body::Clear(context) => {
            put_clock(out, context);
            KIND_CLEAR
        }
        Body::Spent { .. } => {
            debug_assert!(false, "a spent op in a log");
            0
        }
    };
    let body_bytes = (out.len() - body_start) as u32;
    let seed = seed(place.number, place.offset);
    let body_crc = crc32c::crc32c_append(seed, &out[body_start..]);
    let dot = record.op.dot;
    let header = &mut out[start..body_start];
    header[4..8].copy_from_slice(&body_crc.to_le_bytes());
    header[8..12].copy_from_slice(&body_bytes.to_le_bytes());
    header[12..16].copy_from_slice(&place.group_back.to_le_bytes());
    header[16..20].copy_from_slice(&place.ordinal.to_le_bytes());
    header[20..22].copy_from_slice(&(record.user.len() as u16).to_le_bytes());
    header[22..24].copy_from_slice(&(record.key.len() as u16).to_le_bytes());
    header[24..26].copy_from_slice(&dot.slot.0.to_le_bytes());
    header[26] = kind;
    header[27] = flags;
    header[32..40].copy_from_slice(&dot.origin.0.to_le_bytes());
    header[40..48].copy_from_slice(&dot.seq.to_le_bytes());
    header[48..56].copy_from_slice(&record.op.time.0.to_le_bytes());
    let header_crc = crc32c::crc32c_append(seed, &header[4..]);
    header[..4].copy_from_slice(&header_crc.to_le_bytes());
    out.resize(start + (out.len() - start).next_multiple_of(ALIGN), 0);
}

/// A record header whose checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    body_crc: u32,
    body_bytes: u32,
    pub group_back: u32,
    pub ordinal: u32,
    user_bytes: u16,
    key_bytes: u16,
    kind: u8,
    flags: u8,
    pub dot: Dot,
    pub time: HybridTime,
}

impl RecordHeader {
    /// From the header's first byte to the next record's.
    pub fn total_bytes(&self) -> u64 {
        (RECORD_HEADER_BYTES as u64 + u64::from(self.body_bytes)).next_multiple_of(ALIGN as u64)
    }

    /// Decodes without a check of the checksum, for bytes that this process wrote or has checked.
    pub fn decode_trusted(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes.get(4..RECORD_HEADER_BYTES)?);
        let header = Self {
            body_crc: cursor.u32().ok()?,
            body_bytes: cursor.u32().ok()?,
            group_back: cursor.u32().ok()?,
            ordinal: cursor.u32().ok()?,
            user_bytes: cursor.u16().ok()?,
            key_bytes: cursor.u16().ok()?,
            dot: Dot {
                slot: SlotId(cursor.u16().ok()?),
                origin: OriginId(0),
                seq: 0,
            },
            kind: cursor.u8().ok()?,
            flags: cursor.u8().ok()?,
            time: HybridTime(0),
        };
        cursor.u32().ok()?;
        let origin = OriginId(cursor.u64().ok()?);
        let seq = cursor.u64().ok()?;
        Some(Self {
            dot: Dot {
                origin,
                seq,
                ..header.dot
            },
            time: HybridTime(cursor.u64().ok()?),
            ..header
        })
    }

    /// Checks the checksum and that every field is one that `put_record` writes.
    pub fn decode(bytes: &[u8], number: u64, offset: u64) -> Option<Self> {
        let checked = bytes.get(..RECORD_HEADER_BYTES)?;
        // Almost every place that is no header fails here, so that searching unused space needs no checksums.
        if !(KIND_PART..=KIND_CLEAR).contains(&checked[26]) || checked[28..32] != [0; 4] {
            return None;
        }
        let crc = u32::from_le_bytes(*checked.first_chunk()?);
        if crc != crc32c::crc32c_append(seed(number, offset), &checked[4..]) {
            return None;
        }
        let header = Self::decode_trusted(checked)?;
        let sane = header.dot.slot.0 <= SLOT_COUNT
            && header.dot.seq > 0
            && usize::from(header.user_bytes) <= USER_ID_BYTES_MAX
            && usize::from(header.key_bytes) <= KEY_BYTES_MAX
            && header.content_start() <= RECORD_HEADER_BYTES + header.body_bytes as usize
            && u64::from(header.group_back) + HEADER_BYTES as u64 <= offset;
        sane.then_some(header)
    }

    fn body_is_sound(&self, record: &[u8], number: u64, offset: u64) -> bool {
        let body = record.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + self.body_bytes as usize);
        body.is_some_and(|body| crc32c::crc32c_append(seed(number, offset), body) == self.body_crc)
    }

    fn user_end(&self) -> usize {
        RECORD_HEADER_BYTES + usize::from(self.user_bytes)
    }

    fn key_end(&self) -> usize {
        self.user_end() + usize::from(self.key_bytes)
    }

    fn content_start(&self) -> usize {
        self.key_end() + if self.has_request_id() { 16 } else { 0 }
    }

    fn has_request_id(&self) -> bool {
        self.flags & FLAG_REQUEST_ID != 0
    }

    pub fn is_part(&self) -> bool {
        self.kind == KIND_PART
    }

    pub fn is_value(&self) -> bool {
        self.kind == KIND_VALUE
    }

    pub fn is_clear(&self) -> bool {
        self.kind == KIND_CLEAR
    }

    /// Bytes of text of a part or value.
    pub fn content_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.body_bytes as usize - self.content_start()
    }

    pub fn user<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        record.get(RECORD_HEADER_BYTES..self.user_end()).unwrap_or_default()
    }

    pub fn key<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        record.get(self.user_end()..self.key_end()).unwrap_or_default()
    }

    pub fn request_id(&self, record: &[u8]) -> Option<RequestId> {
        if !self.has_request_id() {
            return None;
        }
        let bytes = record.get(self.key_end()..self.content_start())?;
        Some(RequestId(bytes.try_into().ok()?))
    }

    /// The op of the record that starts at `record[0]`; its text shares the buffer. `None` if the content is malformed.
    pub fn op(&self, record: &Bytes) -> Option<Op> {
        let content_end = RECORD_HEADER_BYTES + self.body_bytes as usize;
        if record.len() < content_end {
            return None;
        }
        let content = record.slice(self.content_start()..content_end);
        let body = match self.kind {
            KIND_PART => Body::Part(Text::from_utf8(content).ok()?),
            KIND_VALUE => Body::Value(Text::from_utf8(content).ok()?),
            KIND_CLEAR => Body::Clear(Cursor::new(&content).clock().ok()?),
            _ => return None,
        };
        Some(Op {
            dot: self.dot,
            time: self.time,
            raised: self.flags & FLAG_RAISED != 0,
            request_id: self.request_id(record),
            body,
        })
    }
}

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
                let lost = scan.note_lost_dots(bytes, number, offset, next);
                scan.damaged.push((offset, next));
                offset = next;
                if known_end.is_some_and(|end| next >= end) && sound_record(bytes, number, next).is_none() {
                    // The damage reaches to the known end: no later record says how many it took.
                    scan.lost_records += lost;
                    return scan;
                }
            }
        }
    }
}

impl Scan {
    /// In a damaged stretch, sound headers of unsound bodies still say which ops are lost. Gives how many these are, and one more if
    /// they do not account for the whole stretch.
    fn note_lost_dots(&mut self, bytes: &Bytes, number: u64, from: u64, to: u64) -> u64 {
        let (mut offset, mut headers, mut unknown) = (from, 0, false);
        while offset < to {
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
        headers + u64::from(unknown)
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
    if !header.body_is_sound(whole, number, offset) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::clock::Clock;

    const NUMBER: u64 = 5;

    fn op(seq: u64) -> Op {
        let body = match seq % 3 {
            0 => Body::Part(format!("part {seq}").into()),
            1 => Body::Value("x".repeat(seq as usize * 3).into()),
            _ => {
                let mut context = Clock::default();
                context.insert_range(OriginId(3), 1, seq);
                Body::Clear(context)
            }
        };
        Op {
            dot: Dot {
                origin: OriginId(3),
                slot: SlotId(9),
                seq,
            },
            time: HybridTime(seq * 10),
            raised: seq.is_multiple_of(4),
            request_id: seq.is_multiple_of(2).then_some(RequestId([seq as u8; 16])),
            body,
        }
    }

    /// A log with groups of the given sizes; returns the file and the offset of each record.
    fn build(groups: &[usize], number: u64) -> (Vec<u8>, Vec<u64>) {
        let header = LogHeader {
            shard: 1,
            number,
            previous: Previous::default(),
        };
        let mut file = header.encode().to_vec();
        let mut offsets = Vec::new();
        for &size in groups {
            let group = file.len() as u64;
            for _ in 0..size {
                let offset = file.len() as u64;
                let seq = offsets.len() as u64 + 1;
                let place = Place {
                    number,
                    offset,
                    group_back: (offset - group) as u32,
                    ordinal: offsets.len() as u32,
                };
                let op = op(seq);
                put_record(
                    &mut file,
                    place,
                    Record {
                        user: "u",
                        key: "k",
                        op: &op,
                    },
                );
                assert_eq!(file.len() as u64 - offset, record_bytes("u", "k", &op) as u64);
                offsets.push(offset);
            }
        }
        (file, offsets)
    }

    fn seqs(scan: &Scan) -> Vec<u64> {
        scan.records.iter().map(|found| found.header.dot.seq).collect()
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let (mut file, offsets) = build(&[1, 3, 2], NUMBER);
        file.resize(file.len() + 4096, 0);
        let bytes = Bytes::from(file);
        let scan = scan(&bytes, NUMBER, None);
        assert_eq!(seqs(&scan), [1, 2, 3, 4, 5, 6]);
        assert!(!scan.torn && scan.damaged.is_empty());
        for (found, offset) in scan.records.iter().zip(offsets) {
            let record = bytes.slice(offset as usize..);
            assert_eq!(found.header.op(&record), Some(op(found.header.dot.seq)));
            assert_eq!(
                (found.header.user(&record), found.header.key(&record)),
                (&b"u"[..], &b"k"[..])
            );
        }
    }

    #[test]
    fn a_torn_tail_is_cut() {
        let (file, offsets) = build(&[2, 3], NUMBER);
        for cut in offsets[2] as usize + 1..file.len() {
            let mut torn = file.clone();
            torn[cut..].fill(0);
            let scan = scan(&torn.into(), NUMBER, None);
            let kept = offsets.iter().filter(|&&start| (start as usize) < cut).count();
            assert!(seqs(&scan).len() >= kept - 1 && seqs(&scan).len() >= 2);
            assert!(scan.damaged.is_empty());
        }
    }

    #[test]
    fn a_group_that_was_written_in_part_and_out_of_order_is_torn_not_damaged() {
        let (mut file, offsets) = build(&[2, 3], NUMBER);
        file[offsets[2] as usize..offsets[3] as usize].fill(0);
        let scan = scan(&file.into(), NUMBER, None);
        assert_eq!(seqs(&scan), [1, 2]);
        assert!(scan.torn && scan.damaged.is_empty() && scan.lost_records == 0);
    }

    #[test]
    fn damage_before_a_later_group_is_told_from_a_torn_tail_and_the_rest_is_kept() {
        let (mut file, offsets) = build(&[2, 3, 1], NUMBER);
        file[offsets[2] as usize + RECORD_HEADER_BYTES] ^= 1;
        let scan = scan(&file.into(), NUMBER, None);
        assert_eq!(seqs(&scan), [1, 2, 4, 5, 6]);
        assert_eq!(scan.damaged, [(offsets[2], offsets[3])]);
        assert_eq!((scan.lost_records, scan.lost_dots.len()), (1, 1));
        assert_eq!(scan.lost_dots[0].seq, 3);
    }

    #[test]
    fn damage_at_the_end_shows_when_the_next_log_names_the_end() {
        let (mut file, offsets) = build(&[2, 2], NUMBER);
        let end = file.len() as u64;
        file[offsets[3] as usize..].fill(0);
        let torn = scan(&file.clone().into(), NUMBER, None);
        assert!(torn.damaged.is_empty());
        let damaged = scan(&file.into(), NUMBER, Some(end));
        assert_eq!(seqs(&damaged), [1, 2, 3]);
        assert_eq!(damaged.damaged, [(offsets[3], end)]);
        assert_eq!(damaged.lost_records, 1);
    }

    #[test]
    fn damage_at_the_end_that_leaves_one_header_does_not_hide_that_more_is_lost() {
        let (mut file, offsets) = build(&[2, 2, 1], NUMBER);
        let end = file.len() as u64;
        file[offsets[3] as usize + RECORD_HEADER_BYTES] ^= 1;
        file[offsets[4] as usize..].fill(0);
        let scan = scan(&file.into(), NUMBER, Some(end));
        assert_eq!(seqs(&scan), [1, 2, 3]);
        assert_eq!(scan.lost_dots.len(), 1);
        assert_eq!(scan.lost_records, 2, "more than can be named");
    }

    #[test]
    fn records_of_a_former_life_of_the_file_never_pass() {
        let (old, _) = build(&[1, 1, 1, 1, 1, 1], NUMBER - 1);
        let (new, _) = build(&[2], NUMBER);
        let mut file = old;
        file[..new.len()].copy_from_slice(&new);
        let scan = scan(&file.into(), NUMBER, None);
        assert_eq!(seqs(&scan), [1, 2]);
        assert!(!scan.torn && scan.damaged.is_empty());
    }

    #[test]
    fn the_header_comes_back_and_damage_or_a_newer_version_is_told() {
        let header = LogHeader {
            shard: 3,
            number: 77,
            previous: Previous { number: 76, end: 4096 },
        };
        let bytes = header.encode();
        assert_eq!(LogHeader::decode(&bytes), Ok(header));
        for at in 0..HEADER_USED_BYTES {
            let mut flipped = bytes;
            flipped[at] ^= 4;
            assert_eq!(LogHeader::decode(&flipped), Err(HeaderError::Damaged));
        }
        let mut newer = bytes;
        newer[4] = 9;
        let crc = crc32c::crc32c(&newer[..HEADER_USED_BYTES]);
        newer[HEADER_USED_BYTES..HEADER_USED_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(LogHeader::decode(&newer), Err(HeaderError::NewerVersion(9)));
    }

    proptest! {
        #[test]
        fn one_flipped_bit_never_yields_a_record_that_was_not_written(groups in proptest::collection::vec(1usize..4, 1..5), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (mut file, _) = build(&groups, NUMBER);
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            let bytes = Bytes::from(file);
            let scan = scan(&bytes, NUMBER, None);
            for found in &scan.records {
                let record = bytes.slice(found.offset as usize..);
                prop_assert_eq!(found.header.op(&record), Some(op(found.header.dot.seq)));
            }
            let total = groups.iter().sum::<usize>();
            let last_group = *groups.last().unwrap_or(&0);
            prop_assert!(scan.records.len() + 1 >= total || scan.records.len() >= total - last_group);
        }

        #[test]
        fn garbage_is_never_believed(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(scan(&bytes.clone().into(), NUMBER, None).records.is_empty());
            let _ = LogHeader::decode(&bytes);
        }
    }
}
