//! Where each group of a block begins, found by its place without touching any other group.
//!
//! Kept in memory beside a cached block of few, large groups: there, every group that a search passes costs a wait for memory. It
//! is no part of the file.
//!
//! Invariant: it holds every group of its block, so what it does not find the block does not hold.

use xxhash_rust::xxh3::xxh3_64;

use super::place::shared_bytes;

/// A block of more groups has small ones, through which a search steps quickly, and its directory would be large for its use.
pub(super) const DIRECTORY_GROUPS_MAX: usize = 128;
/// 4 /* where the group begins */ + 4 /* where its place ends, among the places */
const ENTRY_BYTES: usize = 4 + 4;

/// One allocation, so that a search waits for little memory: a tag of 1 byte for each group, the entries, then the places
/// without what they share.
#[derive(Debug)]
pub(super) struct Directory {
    /// What all places begin with.
    prefix: Box<[u8]>,
    bytes: Box<[u8]>,
    groups: usize,
}

fn tag_of(place: &[u8]) -> u8 {
    xxh3_64(place) as u8
}

/// Takes the groups of a block in order.
#[derive(Default)]
pub(super) struct DirectoryBuilder {
    places: Vec<u8>,
    /// Where each group begins, and where its place ends.
    groups: Vec<(u32, u32)>,
}

impl DirectoryBuilder {
    /// The next group, which begins at `at` of the block. False when its place is not behind the one before it, or one too many.
    #[must_use]
    pub fn add(&mut self, at: usize, shared: usize, rest: &[u8]) -> bool {
        let last = self.last_place();
        let Some(behind) = last.get(shared..) else {
            return false;
        };
        let ascends = self.groups.is_empty() || rest > behind;
        if !ascends || self.groups.len() == DIRECTORY_GROUPS_MAX {
            return false;
        }
        let from = self.places.len() - last.len();
        self.places.extend_from_within(from..from + shared);
        self.places.extend_from_slice(rest);
        self.groups.push((at as u32, self.places.len() as u32));
        true
    }

    fn last_place(&self) -> &[u8] {
        let start = match self.groups.len() {
            0 | 1 => 0,
            count => self.groups[count - 2].1 as usize,
        };
        &self.places[start..]
    }

    pub fn finish(self) -> Directory {
        let first = &self.places[..self.groups.first().map_or(0, |group| group.1 as usize)];
        // They ascend, so what the first and the last share all share.
        let prefix: Box<[u8]> = first[..shared_bytes(first, self.last_place())].into();
        let count = self.groups.len();
        let mut bytes = Vec::with_capacity(count * (1 + ENTRY_BYTES) + self.places.len() - count * prefix.len());
        let starts = std::iter::once(0).chain(self.groups.iter().map(|group| group.1 as usize));
        let places = || {
            starts
                .clone()
                .zip(&self.groups)
                .map(|(start, group)| &self.places[start..group.1 as usize])
        };
        bytes.extend(places().map(tag_of));
        let mut end = 0;
        for (place, (at, _)) in places().zip(&self.groups) {
            end += (place.len() - prefix.len()) as u32;
            bytes.extend_from_slice(&at.to_le_bytes());
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        places().for_each(|place| bytes.extend_from_slice(&place[prefix.len()..]));
        Directory {
            prefix,
            bytes: bytes.into(),
            groups: count,
        }
    }
}

impl Directory {
    pub fn memory_bytes(&self) -> usize {
        self.prefix.len() + self.bytes.len()
    }

    /// Where the group of the place begins in the block.
    pub fn find(&self, place: &[u8]) -> Option<usize> {
        let rest = place.strip_prefix(&*self.prefix)?;
        let tag = tag_of(place);
        let (tags, behind) = self.bytes.split_at_checked(self.groups)?;
        let (entries, places) = behind.split_at_checked(self.groups * ENTRY_BYTES)?;
        let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
        let mut candidates = tags.iter().enumerate().filter(|(_, held)| **held == tag);
        candidates.find_map(|(index, _)| {
            let start = match index.checked_sub(1) {
                None => 0,
                Some(before) => entry(entries.get(before)?).1,
            };
            let (at, end) = entry(entries.get(index)?);
            (places.get(start..end)? == rest).then_some(at)
        })
    }
}

fn entry(bytes: &[u8; ENTRY_BYTES]) -> (usize, usize) {
    let [a, b, c, d, e, f, g, h] = *bytes;
    (
        u32::from_le_bytes([a, b, c, d]) as usize,
        u32::from_le_bytes([e, f, g, h]) as usize,
    )
}
