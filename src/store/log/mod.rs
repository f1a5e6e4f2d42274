//! The log: the append-only file of a shard's active segment.
//!
//! ```text
//! file    = header (512 bytes: one sector), then records, then zeroes or the remains of the file's former life
//! header  = magic[4] version:u16 shard:u16 number:u64 previous:u64 previous_end:u64 crc:u32
//!           [from version 3 on: secret[16] crc:u32], zeroes to 512; the second checksum goes on from the first, over the secret
//! record  = header_crc:u32 body_crc:u32 body_bytes:u32 group_back:u32 ordinal:u32
//!           user_bytes:u16 key_bytes:u16 slot:u16 kind:u8 flags:u8 zero:u32 origin:u64 seq:u64 time:u64,
//!           body = user key [request id, 16 bytes] content, zeroes to a multiple of 8
//! kind    = 1 part, 2 value, 3 clear, 4 spent
//! content = the text of a part or value; the encoded clock of a clear; when what is spent was cleared:u64
//! ```
//!
//! Versions: 1; 2 may have records of kind 4, which a replica is sent, and all else is the same; in 3, the checksums of records are seeded with
//! the folder's secret (`secret`). The header begins alike in all of them, so that a program that knows only older ones tells a newer one
//! from damage, and leaves it alone.
//!
//! All integers are little-endian. Both checksums of a record are CRC32C over the offset of the record and then the bytes, each begun
//! from a seed of its own: the first and the second four bytes of BLAKE3 `derive_key` of (secret, log number). In versions 1 and 2, both seeds
//! are the CRC32C of the log number. So a record of another log, another place or a former life of a recycled file never passes for one of this
//! log, for two logs of a shard never share a number; and from version 3 on, nor does a user's text, whatever it looks like.
//!
//! Records are written in groups; `group_back` is the distance to the first record of the group, `ordinal` counts the records of
//! the log. **A group is written only after the one before it was synced.** From this follow the rules of recovery for the
//! first record that does not check out, at offset `p`:
//! - *torn* if no sound record further on belongs to a group that begins after `p`: the group at `p` was never acknowledged. The
//!   log ends at `p`.
//! - *damaged* otherwise, for a later group proves that `p` had been synced; also if `p` lies before the end that the next log's
//!   header names. What is sound behind it is kept; how many records are lost is the jump in `ordinal`.
//! - *cut short*, which is damage too, with an unknown number of records lost: if no next log names an end, and the file ends before the
//!   record at `p` does, or, where an add comes before `p`, before there is room for another record. Records are written only where the
//!   file was filled and synced before, and adds only where there is room for clears behind them, so no crash leaves a file like that. A
//!   file that is used again is synced to its end first.
//! - What lies in the body of a record whose header is sound is no record, even if that body is torn.
//! - But for the end of the log before, the header holds nothing that the folder, the file's name and the folder's secret do not tell as
//!   well: a damaged header alone loses nothing.

mod record;
mod scan;
mod secret;
#[cfg(test)]
mod tests;

use super::codec::{Cursor, Malformed};

pub use record::{Place, Record, RecordHeader, put_record, record_bytes};
pub use scan::{Found, Scan, has_first_header, scan};
pub use secret::{
    LogKey, LogSecret, SECRET_BYTES, SECRET_NAME, SECRET_VERSION, StoredSecret, load_secret, store_secret,
};

pub const MAGIC: [u8; 4] = *b"KVLG";
pub const VERSION: u16 = 3;
/// The last version whose header holds no secret.
const VERSION_WITHOUT_SECRET: u16 = 2;
/// One sector, so that it is written whole or not at all.
pub const HEADER_BYTES: usize = 512;
/// What headers of all versions begin with, without the checksum behind it.
const HEADER_START_BYTES: usize =
    4 /* magic */ + 2 /* version */ + 2 /* shard */ + 8 /* number */ + 8 /* previous */ + 8 /* previous end */;

pub fn file_name(number: u64) -> String {
    format!("log-{number:016x}.kvl")
}

pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".kvl")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    // Only the one spelling counts: no sign, no capitals, all 16 digits. No shard ever gets as far as the higher numbers, and after them
    // there might be none for the next file.
    (file_name(number) == name && number < u64::MAX / 2).then_some(number)
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
    /// `None`: of version 1 or 2.
    pub secret: Option<LogSecret>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    Damaged,
    NewerVersion(u16),
}

impl From<Malformed> for HeaderError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

impl LogHeader {
    /// What the checksums of this log's records are seeded with.
    pub fn key(&self) -> LogKey {
        match self.secret {
            Some(secret) => LogKey::new(self.number, secret),
            None => LogKey::without_secret(self.number),
        }
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        let version = self.secret.map_or(VERSION_WITHOUT_SECRET, |_| VERSION);
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.previous.number.to_le_bytes());
        out.extend_from_slice(&self.previous.end.to_le_bytes());
        debug_assert_eq!(out.len(), HEADER_START_BYTES);
        let start_crc = crc32c::crc32c(&out);
        out.extend_from_slice(&start_crc.to_le_bytes());
        if let Some(secret) = self.secret {
            out.extend_from_slice(secret.bytes());
            let crc = crc32c::crc32c_append(start_crc, secret.bytes());
            out.extend_from_slice(&crc.to_le_bytes());
        }
        let mut header = [0; HEADER_BYTES];
        header[..out.len()].copy_from_slice(&out);
        header
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let start = Cursor::new(bytes).take(HEADER_START_BYTES)?;
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 4] = cursor.array()?;
        let version = cursor.u16()?;
        let mut header = Self {
            shard: cursor.u16()?,
            number: cursor.u64()?,
            previous: Previous {
                number: cursor.u64()?,
                end: cursor.u64()?,
            },
            secret: None,
        };
        let start_crc = crc32c::crc32c(start);
        if magic != MAGIC || cursor.u32()? != start_crc {
            return Err(HeaderError::Damaged);
        }
        if version > VERSION {
            return Err(HeaderError::NewerVersion(version));
        }
        if version > VERSION_WITHOUT_SECRET {
            let secret: [u8; SECRET_BYTES] = cursor.array()?;
            if cursor.u32()? != crc32c::crc32c_append(start_crc, &secret) {
                return Err(HeaderError::Damaged);
            }
            header.secret = Some(LogSecret::new(secret));
        }
        Ok(header)
    }

    /// Whether bytes that do not decode look like what is left of a header without a secret.
    pub fn looks_without_secret(bytes: &[u8]) -> bool {
        let mut cursor = Cursor::new(bytes);
        let version = cursor.take(MAGIC.len()).and_then(|_| cursor.u16());
        version.is_ok_and(|version| (1..=VERSION_WITHOUT_SECRET).contains(&version))
    }
}
