//! Records: how an op stands in a log.

use bytes::Bytes;

use super::HEADER_BYTES;
use super::secret::LogKey;
use crate::core::op::{Body, Dot, Op, Text};
use crate::core::slot::{SLOT_COUNT, SlotId};
use crate::core::stamp::{HybridTime, OriginId, Stamp};
use crate::store::codec::{Cursor, put_clock};
use crate::types::{KEY_BYTES_MAX, RequestId, USER_ID_BYTES_MAX, WallMs};

pub const RECORD_HEADER_BYTES: usize = 4 /* header crc */ + 4 /* body crc */ + 4 /* body length */ + 4 /* group back */
    + 4 /* ordinal */ + 2 /* user length */ + 2 /* key length */ + 2 /* slot */ + 1 /* kind */ + 1 /* flags */
    + 4 /* zero */ + 8 /* origin */ + 8 /* seq */ + 8 /* time */;
pub(super) const ALIGN: usize = 8;

const KIND_PART: u8 = 1;
const KIND_VALUE: u8 = 2;
const KIND_CLEAR: u8 = 3;
const KIND_SPENT: u8 = 4;
/// When it was cleared.
const SPENT_BYTES: usize = 8;
const FLAG_REQUEST_ID: u8 = 1;

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The key of the log.
    pub key: LogKey,
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
        Body::Spent { .. } => SPENT_BYTES,
    };
    let request = op.request_id.map_or(0, |id| id.0.len());
    (RECORD_HEADER_BYTES + user.len() + key.len() + request + content).next_multiple_of(ALIGN)
}

/// Appends the record to `out`.
pub fn put_record(out: &mut Vec<u8>, place: Place, record: Record<'_>) {
    let start = out.len();
    let body_start = start + RECORD_HEADER_BYTES;
    out.resize(body_start, 0);
    out.extend_from_slice(record.user.as_bytes());
    out.extend_from_slice(record.key.as_bytes());
    let mut flags = 0;
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
        Body::Spent { cleared_at } => {
            out.extend_from_slice(&cleared_at.0.to_le_bytes());
            KIND_SPENT
        }
    };
    let body_bytes = (out.len() - body_start) as u32;
    let body_crc = place.key.body_crc(place.offset, &out[body_start..]);
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
    let header_crc = place.key.header_crc(place.offset, &header[4..]);
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
    pub fn decode(bytes: &[u8], key: &LogKey, offset: u64) -> Option<Self> {
        let checked = bytes.get(..RECORD_HEADER_BYTES)?;
        // Almost every place that is no header fails here, so that searching unused space needs no checksums.
        if !(KIND_PART..=KIND_SPENT).contains(&checked[26]) || checked[28..32] != [0; 4] {
            return None;
        }
        let crc = u32::from_le_bytes(*checked.first_chunk()?);
        if crc != key.header_crc(offset, &checked[4..]) {
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

    pub(super) fn body_is_sound(&self, record: &[u8], key: &LogKey, offset: u64) -> bool {
        let body = record.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + self.body_bytes as usize);
        body.is_some_and(|body| key.body_crc(offset, body) == self.body_crc)
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

    pub fn has_request_id(&self) -> bool {
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

    pub fn is_spent(&self) -> bool {
        self.kind == KIND_SPENT
    }

    pub fn stamp(&self) -> Stamp {
        Stamp {
            time: self.time,
            origin: self.dot.origin,
        }
    }

    /// Bytes of text of a part or value.
    pub fn content_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.body_bytes as usize - self.content_start()
    }

    /// The text of a part or value, unless the record is cut short.
    pub fn content<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        record.get(self.content_start()..RECORD_HEADER_BYTES + self.body_bytes as usize)
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
            KIND_SPENT => Body::Spent {
                cleared_at: WallMs(u64::from_le_bytes(content[..].try_into().ok()?)),
            },
            _ => return None,
        };
        Some(Op {
            dot: self.dot,
            time: self.time,
            request_id: self.request_id(record),
            body,
        })
    }
}
