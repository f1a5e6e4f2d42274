//! The memtable: the ops of one log, in memory, found by key.
//!
//! The very buffers that were written to the log are kept and shared with readers; the index adds one small entry per key and
//! one per op.
//!
//! Ops may be of any origin, come in any order of their stamps, and come twice: what reads them puts them in order.
//!
//! Invariant: an op is shown only once the group that it was written in is durable (`durable_groups`).

mod key;
mod listing;
mod parts;
mod sealing;

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use parking_lot::RwLock;

use super::log::{self, Found, LogKey, Place, Record, RecordHeader};
use super::names::NameKey;
use crate::core::op::{Body, Op, Text};
use crate::planted::{Bug, planted};
use crate::types::{Key, RequestId, UserId};

pub use key::MemoryOps;
#[cfg(test)]
pub use listing::DECODED;
pub use listing::cleared_in;
pub use parts::OpenParts;
pub use sealing::{MemoryKey, MemoryOp};

const NONE: u32 = u32::MAX;

/// Where an op's record lies, and the op of the same key that was appended before it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    group: u32,
    offset: u32,
    previous: u32,
}

#[derive(Debug, Clone, Copy)]
struct KeyEntry {
    /// The hash of the name, by `Memtable::names`.
    hash: u64,
    last: u32,
    /// Whether its ops lie in the order of their stamps, no two of which are the same, as those do that one shard stamped.
    in_order: bool,
    one_origin: bool,
    has_parts: bool,
}

#[derive(Debug, Clone, Copy)]
struct RequestEntry {
    /// The hash of the name and the request id, by `Memtable::names`.
    hash: u64,
    entry: u32,
}

/// A group on its way to the log.
#[derive(Debug, Clone)]
pub struct Group {
    /// Where it goes in the file, bytes.
    pub offset: u64,
    pub bytes: Bytes,
}

/// A memtable that its shard fills while readers look into it.
pub type SharedMemtable = Arc<RwLock<Memtable>>;

#[derive(Debug)]
pub struct Memtable {
    /// The key of the log.
    key: LogKey,
    names: NameKey,
    groups: Vec<Bytes>,
    /// How many of them are durable.
    durable_groups: usize,
    open: Vec<u8>,
    /// File offset of the open group.
    open_offset: u64,
    entries: Vec<Entry>,
    keys: HashTable<KeyEntry>,
    requests: HashTable<RequestEntry>,
    /// The entries that are clears.
    clears: Vec<u32>,
    has_parts: bool,
}

impl Memtable {
    /// For a new log.
    pub fn new(key: LogKey, names: NameKey) -> Self {
        Self {
            key,
            names,
            groups: Vec::new(),
            durable_groups: 0,
            open: Vec::new(),
            open_offset: log::HEADER_BYTES as u64,
            entries: Vec::new(),
            keys: HashTable::new(),
            requests: HashTable::new(),
            clears: Vec::new(),
            has_parts: false,
        }
    }

    /// For a log that was read back: all its records are one durable group.
    pub fn recovered(key: LogKey, names: NameKey, file: Bytes, records: &[Found], end: u64) -> Self {
        let mut memtable = Self::new(key, names);
        memtable.open_offset = end;
        memtable.groups.push(file.clone());
        memtable.durable_groups = 1;
        for found in records {
            let record = &file[found.offset as usize..];
            let name = (found.header.user(record), found.header.key(record));
            let hash = memtable.index(name, &found.header, (0, found.offset as u32));
            memtable.note(hash, found.header.request_id(record), &found.header);
        }
        memtable
    }

    /// The number of the log.
    pub fn number(&self) -> u64 {
        self.key.number()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn op_count(&self) -> usize {
        self.entries.len()
    }

    pub fn clear_count(&self) -> u64 {
        self.clears.len() as u64
    }

    /// Whether any op is a part of a value.
    pub fn has_parts(&self) -> bool {
        self.has_parts
    }

    /// File offset behind everything appended so far.
    pub fn end(&self) -> u64 {
        self.open_offset + self.open.len() as u64
    }

    /// Groups closed so far; the next one to close gets this number.
    pub fn closed_groups(&self) -> usize {
        self.groups.len()
    }

    /// How many of the closed groups are durable.
    pub fn durable_groups(&self) -> usize {
        self.durable_groups
    }

    /// From now on readers see the ops of the first `groups` groups.
    pub fn set_durable(&mut self, groups: usize) {
        self.durable_groups = groups;
    }

    pub fn share(self) -> SharedMemtable {
        Arc::new(RwLock::new(self))
    }

    pub fn has_open_group(&self) -> bool {
        !self.open.is_empty()
    }

    /// Puts the op into the open group.
    pub fn append(&mut self, user: &UserId, key: &Key, op: &Op) {
        let offset = self.open.len();
        let place = Place {
            key: self.key,
            offset: self.end(),
            group_back: offset as u32,
            ordinal: self.entries.len() as u32,
        };
        let record = Record {
            user: user.as_str(),
            key: key.as_str(),
            op,
        };
        log::put_record(&mut self.open, place, record);
        if let Some(header) = self.open.get(offset..).and_then(RecordHeader::decode_trusted) {
            let name = (user.as_str().as_bytes(), key.as_str().as_bytes());
            let hash = self.index(name, &header, (self.groups.len() as u32, offset as u32));
            self.note(hash, op.request_id, &header);
        }
    }

    /// Closes the open group, if anything is in it.
    pub fn close_group(&mut self) -> Option<Group> {
        if self.open.is_empty() {
            return None;
        }
        let next = Vec::with_capacity(self.open.len());
        let mut open = std::mem::replace(&mut self.open, next);
        // It stays as long as the memtable: without the room that it was given to grow.
        open.shrink_to_fit();
        let bytes = Bytes::from(open);
        let group = Group {
            offset: self.open_offset,
            bytes: bytes.clone(),
        };
        self.open_offset += bytes.len() as u64;
        self.groups.push(bytes);
        Some(group)
    }

    /// Puts the record of the key (user, key) behind the others of its key. Gives the hash of the name.
    fn index(&mut self, (user, key): (&[u8], &[u8]), header: &RecordHeader, (group, offset): (u32, u32)) -> u64 {
        let hash = self.names.hash(user, key);
        let Self {
            groups,
            open,
            entries,
            keys,
            ..
        } = self;
        let number = entries.len() as u32;
        let is_same = |held: &KeyEntry| held.hash == hash && same_key(groups, open, entries, held.last, user, key);
        let previous = match keys.entry(hash, is_same, |held| held.hash) {
            TableEntry::Occupied(mut held) => {
                let held = held.get_mut();
                let last = header_at(groups, open, entries, held.last).map(|(_, last)| last);
                held.in_order &= last.is_some_and(|last| last.stamp() < header.stamp());
                held.one_origin &= last.is_some_and(|last| last.dot.origin == header.dot.origin);
                held.has_parts |= header.is_part();
                std::mem::replace(&mut held.last, number)
            }
            TableEntry::Vacant(vacant) => {
                vacant.insert(KeyEntry {
                    hash,
                    last: number,
                    in_order: true,
                    one_origin: true,
                    has_parts: header.is_part(),
                });
                NONE
            }
        };
        entries.push(Entry {
            group,
            offset,
            previous,
        });
        hash
    }

    /// Notes what else can be looked up of the entry that was put in last; `name` is the hash of its name.
    fn note(&mut self, name: u64, request: Option<RequestId>, header: &RecordHeader) {
        let entry = self.entries.len() as u32 - 1;
        self.has_parts |= header.is_part();
        if header.is_clear() {
            self.clears.push(entry);
        }
        if let Some(id) = request {
            let hash = self.names.hash_of_request(name, id);
            self.requests
                .insert_unique(hash, RequestEntry { hash, entry }, |held| held.hash);
        }
    }

    fn find(&self, user: &UserId, key: &Key) -> Option<KeyEntry> {
        let (user, key) = (user.as_str().as_bytes(), key.as_str().as_bytes());
        let hash = self.names.hash(user, key);
        let is_same = |held: &KeyEntry| {
            held.hash == hash && same_key(&self.groups, &self.open, &self.entries, held.last, user, key)
        };
        self.keys.find(hash, is_same).copied()
    }

    fn record(&self, entry: u32) -> Option<(&[u8], RecordHeader, u32)> {
        let (record, header) = header_at(&self.groups, &self.open, &self.entries, entry)?;
        Some((record, header, self.entries.get(entry as usize)?.group))
    }

    /// The entries of a key, newest first.
    fn chain(&self, last: Option<u32>) -> impl Iterator<Item = u32> + '_ {
        let next = |entry: u32| self.entries.get(entry as usize).map(|held| held.previous);
        std::iter::successors(last, move |&entry| next(entry).filter(|&previous| previous != NONE))
    }

    /// A number that changes whenever an op is appended to the key.
    pub fn version_of(&self, user: &UserId, key: &Key) -> Option<(u64, u32)> {
        self.find(user, key).map(|held| (self.number(), held.last))
    }

    /// The record of the entry, with what lies behind it, if it is in the first `groups` groups, of which the open one is the last.
    fn record_of(&self, entry: u32, groups: usize) -> Option<Bytes> {
        let Entry { group, offset, .. } = *self.entries.get(entry as usize)?;
        if group as usize >= groups {
            return None;
        }
        if let Some(bytes) = self.groups.get(group as usize) {
            return Some(bytes.slice(offset as usize..));
        }
        let record = self.open.get(offset as usize..)?;
        let length = RecordHeader::decode_trusted(record)?.total_bytes() as usize;
        Some(Bytes::copy_from_slice(record.get(..length)?))
    }

    fn op(&self, entry: u32, groups: usize) -> Option<Op> {
        #[cfg(test)]
        tests::note_op();
        let record = self.record_of(entry, groups)?;
        RecordHeader::decode_trusted(&record)?.op(&record)
    }

    /// The head, request id and text of the entry, if it is a part or a value; the text shares the buffer of its group.
    fn text(&self, entry: u32) -> Option<(RecordHeader, Option<RequestId>, Text)> {
        let (record, header, group) = self.record(entry)?;
        if !header.is_part() && !header.is_value() {
            return None;
        }
        let content = header.content(record)?;
        let content = match self.groups.get(group as usize) {
            Some(bytes) => bytes.slice_ref(content),
            None => Bytes::copy_from_slice(content),
        };
        Some((header, header.request_id(record), Text::from_utf8(content).ok()?))
    }

    /// In which closed (or, if equal to `closed_groups`, open) group the request id was taken for this key.
    pub fn group_of_request(&self, user: &UserId, key: &Key, id: RequestId) -> Option<usize> {
        let entry = self.entry_of_request(user, key, id)?;
        self.entries.get(entry as usize).map(|entry| entry.group as usize)
    }

    /// Like [`group_of_request`](Self::group_of_request), with what the request did.
    pub fn request(&self, user: &UserId, key: &Key, id: RequestId) -> Option<(usize, Body)> {
        let entry = self.entry_of_request(user, key, id)?;
        let group = self.entries.get(entry as usize)?.group as usize;
        Some((group, self.op(entry, group + 1)?.body))
    }

    fn entry_of_request(&self, user: &UserId, key: &Key, id: RequestId) -> Option<u32> {
        let (user, key) = (user.as_str().as_bytes(), key.as_str().as_bytes());
        let hash = self.names.hash_of_request(self.names.hash(user, key), id);
        let held = self.requests.iter_hash(hash).find(|held| {
            #[cfg(test)]
            tests::note_comparison();
            held.hash == hash
                && self.record(held.entry).is_some_and(|(record, header, _)| {
                    let is_place = header.user(record) == user && header.key(record) == key;
                    header.request_id(record) == Some(id) && (is_place || planted(Bug::RequestOfAnyKey))
                })
        })?;
        Some(held.entry)
    }
}

fn header_at<'a>(
    groups: &'a [Bytes],
    open: &'a [u8],
    entries: &[Entry],
    entry: u32,
) -> Option<(&'a [u8], RecordHeader)> {
    let Entry { group, offset, .. } = *entries.get(entry as usize)?;
    let bytes = groups.get(group as usize).map_or(open, |group| &group[..]);
    let record = bytes.get(offset as usize..)?;
    Some((record, RecordHeader::decode_trusted(record)?))
}

fn same_key(groups: &[Bytes], open: &[u8], entries: &[Entry], entry: u32, user: &[u8], key: &[u8]) -> bool {
    #[cfg(test)]
    tests::note_comparison();
    header_at(groups, open, entries, entry)
        .is_some_and(|(record, header)| header.user(record) == user && header.key(record) == key)
}

#[cfg(test)]
mod tests;
