//! With which key each log is read.
//!
//! Rules:
//! - a log whose own header is sound says it itself; but where it names another shard, and records are of slots that are not this one's, it lies in
//!   the wrong folder, and nothing in it is believed;
//! - any other is read with the folder's secret; or as one of version 1 or 2, but only if its first record says so: where that record's
//!   header stands, the shard itself wrote in every life of the file, so no user's text can stand there;
//! - the folder's secret stands in a file of its own; without that, any sound header of version 3 tells it;
//! - a log in which no key finds a record is empty: it was never used, or its first write failed. But it is damaged, with contents that
//!   nobody knows, if the key of a version without secrets finds records that are not believed; or if its header is damaged and nothing is
//!   left that tells the secret.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::{Place, RecoverError};
use crate::store::disk::OpenMode;
use crate::store::log::{self, HeaderError, LogHeader, LogKey, LogSecret, SECRET_NAME, StoredSecret};

/// What is known of the secret of a folder.
pub(super) struct FolderSecret {
    shard: u16,
    slots: Range<u16>,
    pub(super) found: Option<LogSecret>,
    /// In its file.
    pub(super) stored: bool,
    /// There was one, wherever it is now.
    existed: bool,
    /// Where none was found, nothing was sealed with this one yet.
    new: LogSecret,
}

impl FolderSecret {
    pub(super) fn find(place: &Place, logs: &BTreeSet<u64>) -> Result<Self, RecoverError> {
        let mut secret = Self {
            shard: place.shard,
            slots: place.slots.clone(),
            found: None,
            stored: false,
            existed: true,
            new: place.new_secret,
        };
        match load(place)? {
            StoredSecret::Sound(found) => {
                secret.found = Some(found);
                secret.stored = true;
                return Ok(secret);
            }
            StoredSecret::Damaged => {
                tracing::error!(dir = %place.dir.display(), "the file of the logs' secret is damaged; it is written anew");
            }
            StoredSecret::Missing => secret.existed = false,
            StoredSecret::NewerVersion(found) => {
                return Err(RecoverError::NewerVersion {
                    path: place.dir.join(SECRET_NAME),
                    found,
                    known: log::SECRET_VERSION,
                });
            }
        }
        let mut headers = logs.iter().rev().map(|&number| header_of(place, number));
        secret.found = headers.find_map(|header| header?.secret);
        if secret.found.is_some() && !secret.existed {
            tracing::error!(dir = %place.dir.display(), "the file of the logs' secret is missing; it is written anew");
        }
        Ok(secret)
    }

    /// The key of a log; `None` if it is damaged and nothing in it can be believed.
    pub(super) fn key_of(
        &self,
        number: u64,
        bytes: &Bytes,
        header: Result<LogHeader, HeaderError>,
        known_end: Option<u64>,
    ) -> Option<LogKey> {
        match header {
            // A file is never used again in another folder. What lay here under its name may have been written over.
            Ok(own) if self.is_of_other_shard(&own, bytes) => return None,
            Ok(own) if own.number == number => return Some(own.key()),
            _ => {}
        }
        let usual = LogKey::new(number, self.found.unwrap_or(self.new));
        let former = LogKey::without_secret(number);
        if let Some(key) = [usual, former]
            .into_iter()
            .find(|key| log::has_first_header(bytes, key))
        {
            return Some(key);
        }
        let gives = |key| {
            let scan = log::scan(bytes, key, known_end);
            !scan.records.is_empty() || !scan.damaged.is_empty()
        };
        // No header was written over the zeroes, or over that of the file's former life.
        let unused = header.is_ok() || is_blank(bytes.get(..log::HEADER_BYTES).unwrap_or(bytes));
        let unknown = match self.found {
            Some(_) => !unused && !gives(&usual) && gives(&former),
            None if unused => gives(&former) || (header.is_err() && !is_blank(bytes)),
            None => gives(&former) || self.existed || !LogHeader::looks_without_secret(bytes),
        };
        (!unknown).then_some(usual)
    }
}

impl FolderSecret {
    fn is_of_other_shard(&self, own: &LogHeader, bytes: &Bytes) -> bool {
        let is_foreign = |found: &log::Found| !self.slots.contains(&found.header.dot.slot.0);
        own.shard != self.shard && log::scan(bytes, &own.key(), None).records.iter().any(is_foreign)
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

fn load(place: &Place) -> Result<StoredSecret, RecoverError> {
    let load = || log::load_secret(&*place.disk, &place.dir);
    // A read that fails may be a passing fault.
    match load().or_else(|_| load()) {
        Ok(stored) => Ok(stored),
        Err(source) => {
            let path = place.dir.join(SECRET_NAME);
            match place.disk.open(&path, OpenMode::Read) {
                Ok(_) => Ok(StoredSecret::Damaged),
                // Not a word of it was read: that is no damage, and it may work later.
                Err(_) => Err(RecoverError::Io { path, source }),
            }
        }
    }
}

fn header_of(place: &Place, number: u64) -> Option<LogHeader> {
    let read = || -> io::Result<Vec<u8>> {
        let file = place
            .disk
            .open(&place.dir.join(log::file_name(number)), OpenMode::Read)?;
        let mut bytes = vec![0; file.len()?.min(log::HEADER_BYTES as u64) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let bytes = read().or_else(|_| read()).ok()?;
    LogHeader::decode(&bytes).ok()
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
