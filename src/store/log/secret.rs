//! The secret of a shard's folder, and the keys that its logs' checksums are seeded with.
//!
//! What lies in a log's file behind its end, or in the body of a record that is torn, may be text that a user stored: every byte of it
//! chosen so that it looks like a record, even one of another user. The number of a log and the offsets in it can be guessed; the secret
//! cannot, and without it nobody can tell which checksums hold. It never leaves the folder: no answer, message or segment contains it.
//!
//! ```text
//! file = magic[4] version:u16 zero:u16 secret[16] crc:u32
//! ```

use std::fmt;
use std::io;
use std::path::Path;

use crate::store::codec::{Cursor, Malformed};
use crate::store::disk::Disk;
use crate::store::whole_file;

/// The file that holds the secret. Every log's header holds it too.
pub const SECRET_NAME: &str = "log-secret";
pub const SECRET_VERSION: u16 = 1;
pub const SECRET_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"KVLS";
const FILE_BYTES: usize = 4 /* magic */ + 2 /* version */ + 2 /* zero */ + SECRET_BYTES + 4 /* crc */;
/// The context of the keys' derivation; it is used for nothing else.
const CONTEXT: &str = "kv-storage 2026 checksums of the records of a log, version 3";

/// Random bytes that nobody outside knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogSecret([u8; SECRET_BYTES]);

impl LogSecret {
    pub const fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    pub(in crate::store) fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

impl fmt::Debug for LogSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogSecret")
    }
}

/// What the checksums of one log's records are seeded with.
///
/// The seeds for headers and for bodies have nothing to do with each other, nor with those of another log: a forged record would have to guess
/// 64 bits, and a guess that fails says nothing about the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogKey {
    number: u64,
    header_seed: u32,
    body_seed: u32,
}

impl LogKey {
    pub fn new(number: u64, secret: LogSecret) -> Self {
        let mut material = [0; SECRET_BYTES + 8];
        material[..SECRET_BYTES].copy_from_slice(&secret.0);
        material[SECRET_BYTES..].copy_from_slice(&number.to_le_bytes());
        let [h0, h1, h2, h3, b0, b1, b2, b3, ..] = blake3::derive_key(CONTEXT, &material);
        Self {
            number,
            header_seed: u32::from_le_bytes([h0, h1, h2, h3]),
            body_seed: u32::from_le_bytes([b0, b1, b2, b3]),
        }
    }

    /// The key of a log of version 1 or 2.
    pub fn without_secret(number: u64) -> Self {
        let seed = crc32c::crc32c(&number.to_le_bytes());
        Self {
            number,
            header_seed: seed,
            body_seed: seed,
        }
    }

    /// The log's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The checksum of a record's header at this offset.
    pub fn header_crc(&self, offset: u64, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.header_seed, &offset.to_le_bytes()), bytes)
    }

    /// The checksum of a record's body; `offset` is where the record begins.
    pub fn body_crc(&self, offset: u64, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.body_seed, &offset.to_le_bytes()), bytes)
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.number)
    }
}

/// What the file that holds the secret says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredSecret {
    Missing,
    Damaged,
    NewerVersion(u16),
    Sound(LogSecret),
}

pub fn load_secret(disk: &dyn Disk, dir: &Path) -> io::Result<StoredSecret> {
    let bytes = whole_file::read(disk, &dir.join(SECRET_NAME), FILE_BYTES as u64 + 1)?;
    Ok(bytes.map_or(StoredSecret::Missing, |bytes| {
        decode(&bytes).unwrap_or(StoredSecret::Damaged)
    }))
}

/// Durable on Ok.
pub fn store_secret(disk: &dyn Disk, dir: &Path, secret: LogSecret) -> io::Result<()> {
    whole_file::write(disk, &dir.join(SECRET_NAME), &encode(secret))
}

fn encode(secret: LogSecret) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&SECRET_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(secret.bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The checksum is the last thing in the file, in every version.
fn decode(bytes: &[u8]) -> Result<StoredSecret, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let checked = cursor.take(bytes.len().saturating_sub(4))?;
    let crc = cursor.u32()?;
    let mut cursor = Cursor::new(checked);
    let magic: [u8; 4] = cursor.array()?;
    let version = cursor.u16()?;
    if magic != MAGIC || crc != crc32c::crc32c(checked) {
        return Ok(StoredSecret::Damaged);
    }
    if version > SECRET_VERSION {
        return Ok(StoredSecret::NewerVersion(version));
    }
    cursor.u16()?;
    let secret = LogSecret(cursor.array()?);
    Ok(match cursor.is_at_end() {
        true => StoredSecret::Sound(secret),
        false => StoredSecret::Damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_comes_back_and_damage_or_a_newer_version_is_told() {
        let secret = LogSecret([9; SECRET_BYTES]);
        let bytes = encode(secret);
        assert_eq!(
            (bytes.len(), decode(&bytes)),
            (FILE_BYTES, Ok(StoredSecret::Sound(secret)))
        );
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert_eq!(decode(&flipped), Ok(StoredSecret::Damaged));
            assert!(
                !matches!(decode(&bytes[..at]), Ok(StoredSecret::Sound(_))),
                "cut at {at}"
            );
        }
        let mut newer = bytes[..FILE_BYTES - 4].to_vec();
        newer[4] = 7;
        let crc = crc32c::crc32c(&newer);
        newer.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&newer), Ok(StoredSecret::NewerVersion(7)));
    }

    #[test]
    fn no_two_seeds_have_anything_in_common() {
        let secret = LogSecret([9; SECRET_BYTES]);
        let mut seeds = std::collections::BTreeSet::new();
        for number in 1..=1000 {
            let key = LogKey::new(number, secret);
            assert!(seeds.insert(key.header_seed) && seeds.insert(key.body_seed));
            assert!(seeds.insert(key.header_seed ^ key.body_seed));
        }
        assert_ne!(LogKey::new(1, secret), LogKey::new(1, LogSecret([8; SECRET_BYTES])));
        assert!(!format!("{secret:?} {:?}", LogKey::new(1, secret)).contains('9'));
    }
}
