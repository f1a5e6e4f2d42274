//! What can go wrong with a segment: one enum per operation.

use std::io;

use crate::core::slot::SlotId;
use crate::store::codec::Malformed;

/// A data block that cannot be believed, and what it takes with it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DamagedBlock {
    /// The segment's number.
    pub segment: u64,
    /// Where the block begins in the file.
    pub offset: u64,
    pub stored_bytes: u32,
    /// How many ops the index says it held.
    pub ops: u64,
    /// The slots it can have held ops of, both included.
    #[serde(serialize_with = "slot_pair")]
    pub slots: (SlotId, SlotId),
    pub reason: &'static str,
}

fn slot_pair<S: serde::Serializer>(slots: &(SlotId, SlotId), to: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&(slots.0.0, slots.1.0), to)
}

impl std::fmt::Display for DamagedBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "segment {:016x} is damaged at byte {} ({} bytes, {} ops of slots {} to {}): malformed {}",
            self.segment, self.offset, self.stored_bytes, self.ops, self.slots.0.0, self.slots.1.0, self.reason
        )
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0}")]
    Damaged(DamagedBlock),
    #[error("segment {segment:016x} could not be read at byte {offset}: {error}")]
    Io {
        segment: u64,
        offset: u64,
        error: io::Error,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{name} could not be read: {error}")]
    Io { name: String, error: io::Error },
    #[error("{name} is damaged: malformed {what}")]
    Damaged { name: String, what: &'static str },
    /// It ends without a trailer: cut short, or never finished.
    #[error("{name} has no end: it was cut short or never finished")]
    Unfinished { name: String },
    #[error("{name} has format version {found}; this program knows versions up to {known}: use a newer one")]
    NewerVersion { name: String, found: u16, known: u16 },
    /// A whole segment, but another one than its place and name say.
    #[error("{name} holds segment {number:016x} of shard {shard}: it lies in the wrong place")]
    Misplaced { name: String, shard: u16, number: u64 },
}

impl OpenError {
    pub(super) fn damaged(name: &str, error: Malformed) -> Self {
        Self::Damaged {
            name: name.to_owned(),
            what: error.what,
        }
    }
}

/// After any of these the file is worthless: `abandon` it.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("segment {number:016x} could not be written: {error}")]
    Io { number: u64, error: io::Error },
    #[error("an op of {got} bytes is more than the {max} bytes that a block may have")]
    TooLong { got: usize, max: usize },
    /// Our own bug.
    #[error("ops were not given to the segment in order of slot, user, key and stamp")]
    OutOfOrder,
    #[error("the finished segment did not open: {0}")]
    Reopen(#[from] OpenError),
}

impl WriteError {
    /// Whether it failed because the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { error, .. } if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
