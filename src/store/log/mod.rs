//! The log: the append-only file of a shard's active segment.
//!
//! ```text
//! file    = header (512 bytes: one sector), then records, then zeroes or the remains of the file's former life
//! header  = magic[4] version:u16 shard:u16 number:u64 previous:u64 previous_end:u64 crc:u32, zeroes to 512
//! record  = header_crc:u32 body_crc:u32 body_bytes:u32 group_back:u32 ordinal:u32
//!           user_bytes:u16 key_bytes:u16 slot:u16 kind:u8 flags:u8 zero:u32 origin:u64 seq:u64 time:u64,
//!           body = user key [request id, 16 bytes] content, zeroes to a multiple of 8
//! kind    = 1 part, 2 value, 3 clear, 4 spent
//! content = the text of a part or value; the encoded clock of a clear; when what is spent was cleared:u64
//! ```
//!
//! Versions: 1; 2 may have records of kind 4, which a replica is sent, and all else is the same.
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

mod record;
mod scan;
#[cfg(test)]
mod tests;

use super::codec::Cursor;

pub use record::{Place, Record, RecordHeader, put_record, record_bytes};
pub use scan::{Found, Scan, scan};

pub const MAGIC: [u8; 4] = *b"KVLG";
pub const VERSION: u16 = 2;
/// One sector, so that it is written whole or not at all.
pub const HEADER_BYTES: usize = 512;
const HEADER_USED_BYTES: usize =
    4 /* magic */ + 2 /* version */ + 2 /* shard */ + 8 /* number */ + 8 /* previous */ + 8 /* previous end */;

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
