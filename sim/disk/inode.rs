//! One simulated file: what readers see, what a crash leaves, and the versions of each sector in between.
//!
//! Invariant: a `Content` has exactly the sectors that its length needs, and zeroes beyond its length in the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::rng::Rng;

pub const SECTOR_BYTES: u64 = 512;
/// What the kernel marks dirty at once; also what a failed sync may leave clean and yet not durable.
const PAGE_SECTORS: u64 = 8;
/// Versions of one unsynced sector that a crash may choose from, besides the durable one. The newest are kept.
const VERSIONS_MAX: usize = 4;

type Sector = Arc<[u8; SECTOR_BYTES as usize]>;

#[derive(Debug, Clone)]
pub struct Content {
    sectors: Vec<Sector>,
    len: u64,
    zero: Sector,
}

impl Content {
    fn new() -> Self {
        Self {
            sectors: Vec::new(),
            len: 0,
            zero: Arc::new([0; SECTOR_BYTES as usize]),
        }
    }

    fn sector(&self, index: u64) -> &Sector {
        self.sectors.get(index as usize).unwrap_or(&self.zero)
    }

    /// Beyond the end nothing is kept.
    fn put(&mut self, index: u64, sector: Sector) {
        if let Some(place) = self.sectors.get_mut(index as usize) {
            *place = sector;
        }
    }

    fn resize(&mut self, len: u64) {
        self.sectors
            .resize(len.div_ceil(SECTOR_BYTES) as usize, self.zero.clone());
        self.len = len;
        let tail = (len % SECTOR_BYTES) as usize;
        if tail > 0
            && let Some(last) = self.sectors.last_mut()
            && last[tail..].iter().any(|&byte| byte != 0)
        {
            Arc::make_mut(last)[tail..].fill(0);
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) {
        let mut done = 0;
        while done < buf.len() {
            let (index, within) = split(offset + done as u64);
            let count = (buf.len() - done).min(SECTOR_BYTES as usize - within);
            buf[done..done + count].copy_from_slice(&self.sector(index)[within..within + count]);
            done += count;
        }
    }
}

fn split(offset: u64) -> (u64, usize) {
    (offset / SECTOR_BYTES, (offset % SECTOR_BYTES) as usize)
}

#[derive(Debug, Clone)]
pub struct Inode {
    live: Content,
    durable: Content,
    /// The versions of each sector since the last sync that took it.
    dirty: BTreeMap<u64, Vec<Sector>>,
    /// The lengths since the last sync that took one.
    dirty_lens: Vec<u64>,
    /// Sectors that the medium can no longer read; a write puts another in such a one's place.
    bad: BTreeSet<u64>,
    pub handles: usize,
}

impl Inode {
    pub fn new() -> Self {
        Self {
            live: Content::new(),
            durable: Content::new(),
            dirty: BTreeMap::new(),
            dirty_lens: Vec::new(),
            bad: BTreeSet::new(),
            handles: 0,
        }
    }

    pub fn len(&self) -> u64 {
        self.live.len
    }

    /// Whether `buf` lay within the file.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> bool {
        let inside = offset
            .checked_add(buf.len() as u64)
            .is_some_and(|end| end <= self.live.len);
        if inside {
            self.live.read(buf, offset);
        }
        inside
    }

    /// Whether the medium can read all of a range.
    pub fn is_readable(&self, offset: u64, len: u64) -> bool {
        let sectors = offset / SECTOR_BYTES..offset.saturating_add(len).div_ceil(SECTOR_BYTES);
        len == 0 || self.bad.range(sectors).next().is_none()
    }

    /// The sector in which this byte lies cannot be read from now on.
    pub fn spoil(&mut self, offset: u64) {
        if offset < self.live.len {
            self.bad.insert(offset / SECTOR_BYTES);
        }
    }

    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        if end > self.live.len {
            self.set_len(end);
        } else if end > self.durable.len && self.dirty_lens.is_empty() {
            // A failed sync left the length behind; the next one that succeeds covers this write, so the length too.
            self.dirty_lens.push(self.live.len);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (index, within) = split(offset + done as u64);
            let count = (bytes.len() - done).min(SECTOR_BYTES as usize - within);
            let mut sector = **self.live.sector(index);
            sector[within..within + count].copy_from_slice(&bytes[done..done + count]);
            let sector = if sector == *self.live.zero {
                self.live.zero.clone()
            } else {
                Arc::new(sector)
            };
            self.live.put(index, sector);
            self.bad.remove(&index);
            self.mark_dirty(index);
            done += count;
        }
        self.redirty_pages(offset / SECTOR_BYTES, (end - 1) / SECTOR_BYTES);
    }

    pub fn set_len(&mut self, len: u64) {
        let before = self.live.len;
        self.live.resize(len);
        self.bad.split_off(&len.div_ceil(SECTOR_BYTES));
        self.dirty_lens.push(len);
        if len < before && !len.is_multiple_of(SECTOR_BYTES) {
            self.mark_dirty(len / SECTOR_BYTES);
        }
        // Sectors that were cut off and grow again: a crash may still show what lay there.
        let regrown = before.div_ceil(SECTOR_BYTES)..len.div_ceil(SECTOR_BYTES);
        for index in regrown.start..regrown.end.min(self.durable.sectors.len() as u64) {
            self.mark_dirty(index);
        }
    }

    fn mark_dirty(&mut self, index: u64) {
        let versions = self.dirty.entry(index).or_default();
        if versions.len() == VERSIONS_MAX {
            versions.remove(0);
        }
        versions.push(self.live.sector(index).clone());
    }

    /// A write makes the whole page dirty, so also what a failed sync left in it.
    fn redirty_pages(&mut self, first: u64, last: u64) {
        let begin = first / PAGE_SECTORS * PAGE_SECTORS;
        let end = ((last / PAGE_SECTORS + 1) * PAGE_SECTORS).min(self.live.sectors.len() as u64);
        for index in (begin..first).chain(last + 1..end) {
            if self.live.sector(index) != self.durable.sector(index) && !self.dirty.contains_key(&index) {
                self.mark_dirty(index);
            }
        }
    }

    /// What a sync that succeeds does: all that is dirty, and nothing else, becomes durable.
    pub fn sync(&mut self) {
        if !self.dirty_lens.is_empty() {
            self.durable.resize(self.live.len);
        }
        for &index in self.dirty.keys() {
            self.durable.put(index, self.live.sector(index).clone());
        }
        self.clean();
    }

    /// What a sync that fails does: each dirty sector is written, or dropped from the cache, or stays in the cache and counts as
    /// clean, so that a later sync succeeds without it.
    pub fn sync_failing(&mut self, rng: &mut Rng) {
        if rng.percent(50) {
            self.durable.resize(self.live.len);
        }
        for &index in self.dirty.keys() {
            match rng.below(3) {
                0 => self.durable.put(index, self.live.sector(index).clone()),
                1 => {
                    let held = self.durable.sector(index).clone();
                    self.live.put(index, held);
                }
                _ => {}
            }
        }
        // A dropped sector may have held the end of the file.
        self.live.resize(self.live.len);
        self.clean();
    }

    /// The power goes: of each unsynced sector and of the length, some version stays; `keep` is the chance in percent that it is
    /// not the durable one.
    pub fn crash(&mut self, rng: &mut Rng, keep: u64) {
        let len = match self.dirty_lens.as_slice() {
            [] => self.durable.len,
            lens if rng.percent(keep) => *rng.pick(lens),
            _ => self.durable.len,
        };
        self.durable.resize(len);
        for (&index, versions) in &self.dirty {
            if rng.percent(keep) {
                self.durable.put(index, rng.pick(versions).clone());
            }
        }
        self.durable.resize(len);
        self.live = self.durable.clone();
        self.clean();
        self.handles = 0;
    }

    fn clean(&mut self) {
        self.dirty.clear();
        self.dirty_lens.clear();
    }

    /// Flips one bit at rest: on the medium and in the cache.
    pub fn flip(&mut self, offset: u64, bit: u8) {
        let (index, within) = split(offset);
        for content in [&mut self.live, &mut self.durable] {
            if offset < content.len
                && let Some(sector) = content.sectors.get_mut(index as usize)
            {
                Arc::make_mut(sector)[within] ^= 1 << (bit % 8);
            }
        }
    }
}
