//! What a shard held of the former origins of its node when these ended.
//!
//! While an origin lives, its sequences have no gaps on the disk of its own node, so a gap is a loss. Once it has ended, that is no longer
//! so: ops that it stamped last, and that were not durable here when it died, may live on at other replicas and come back from there, in
//! any order. So each origin is *closed* before any of them can come: what was here then is written down, and only that has to be here from
//! then on.
//!
//! ```text
//! file = magic[4] version:u16 count:u32 (origin:u64 count:u32 (slot:u16 last:u64)*)* crc:u32
//! ```
//!
//! A file that is damaged, or cannot be read, is begun anew: until then every gap counts as a loss. One of a newer version is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::RecoverError;
use crate::core::clock::SlotClocks;
use crate::core::slot::SlotId;
use crate::core::stamp::OriginId;
use crate::store::disk::{Disk, OpenMode};
use crate::store::whole_file;

pub const CLOSED_NAME: &str = "closed-origins";
const MAGIC: [u8; 4] = *b"KVCO";
const VERSION: u16 = 1;
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The file remembers what so many origins held, the latest ones. Nothing is missed of earlier ones.
const KNOWN_MAX: usize = 100;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClosedOrigins {
    /// In the order in which they ended.
    all: Vec<Closed>,
    names: BTreeSet<OriginId>,
}

#[derive(Debug, PartialEq, Eq)]
struct Closed {
    origin: OriginId,
    /// The last sequence of each slot.
    lasts: BTreeMap<SlotId, u64>,
}

impl ClosedOrigins {
    pub(super) fn load(disk: &dyn Disk, dir: &Path) -> Result<Self, RecoverError> {
        let path = dir.join(CLOSED_NAME);
        let read = || whole_file::read(disk, &path, FILE_BYTES_MAX);
        // A read that fails may be a passing fault.
        let closed = match read().or_else(|_| read()) {
            Ok(None) => return Ok(Self::default()),
            Ok(Some(bytes)) => Self::decode(&bytes).map_err(|found| RecoverError::NewerVersion {
                path: path.clone(),
                found,
                known: VERSION,
            })?,
            // Not a word of it was read: that is no damage, and it may work later.
            Err(source) if disk.open(&path, OpenMode::Read).is_err() => return Err(RecoverError::Io { path, source }),
            Err(_) => None,
        };
        Ok(closed.unwrap_or_else(|| {
            tracing::error!(path = %path.display(), "the record of closed origins is damaged; it is begun anew");
            Self::default()
        }))
    }

    fn of(all: Vec<Closed>) -> Self {
        let names = all.iter().map(|closed| closed.origin).collect();
        Self { all, names }
    }

    pub(super) fn contains(&self, origin: OriginId) -> bool {
        self.names.contains(&origin)
    }

    /// The dots that have to be here.
    pub(super) fn held(&self) -> SlotClocks {
        let mut held = SlotClocks::default();
        for Closed { origin, lasts } in &self.all {
            for (slot, last) in lasts {
                held.insert_range(*slot, *origin, 1, *last);
            }
        }
        held
    }

    /// Closes those of the node's own origins that are not closed yet, all but the one in use; durable on Ok.
    pub fn close(
        &mut self,
        own: &BTreeSet<OriginId>,
        in_use: OriginId,
        held: &SlotClocks,
        disk: &dyn Disk,
        dir: &Path,
    ) -> io::Result<()> {
        let ended = own
            .iter()
            .filter(|origin| **origin != in_use && !self.contains(**origin));
        let ended: Vec<Closed> = ended.map(|origin| Closed::at_its_end(*origin, held)).collect();
        if ended.is_empty() {
            return Ok(());
        }
        self.names.extend(ended.iter().map(|closed| closed.origin));
        self.all.extend(ended);
        let known = self.all.len().saturating_sub(KNOWN_MAX);
        self.all.iter_mut().take(known).for_each(|closed| closed.lasts.clear());
        whole_file::write(disk, &dir.join(CLOSED_NAME), &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.all.len() as u32).to_le_bytes());
        for Closed { origin, lasts } in &self.all {
            bytes.extend_from_slice(&origin.0.to_le_bytes());
            bytes.extend_from_slice(&(lasts.len() as u32).to_le_bytes());
            for (slot, last) in lasts {
                bytes.extend_from_slice(&slot.0.to_le_bytes());
                bytes.extend_from_slice(&last.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// None if it is damaged; on Err the version, which is a newer one.
    fn decode(bytes: &[u8]) -> Result<Option<Self>, u16> {
        let Some((version, rest)) = checked(bytes) else {
            return Ok(None);
        };
        match version {
            0 => Ok(None),
            1..=VERSION => Ok(Self::decode_lists(rest)),
            newer => Err(newer),
        }
    }

    fn decode_lists(mut rest: &[u8]) -> Option<Self> {
        let mut all = Vec::new();
        for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
            let origin = OriginId(u64::from_le_bytes(take(&mut rest)?));
            let mut lasts = BTreeMap::new();
            for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
                let slot = SlotId(u16::from_le_bytes(take(&mut rest)?));
                lasts.insert(slot, u64::from_le_bytes(take(&mut rest)?));
            }
            all.push(Closed { origin, lasts });
        }
        Some(Self::of(all))
    }
}

impl Closed {
    fn at_its_end(origin: OriginId, held: &SlotClocks) -> Self {
        let last = |(slot, clock): (SlotId, &crate::core::clock::Clock)| Some((slot, clock.get(origin)?.last()?));
        Self {
            origin,
            lasts: held.slots().filter_map(last).collect(),
        }
    }
}

/// The version, and what follows it: in every version the magic comes before it, and the checksum ends the file.
fn checked(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (mut rest, crc) = bytes.split_last_chunk()?;
    if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) || take::<4>(&mut rest)? != MAGIC {
        return None;
    }
    let version = u16::from_le_bytes(take(&mut rest)?);
    Some((version, rest))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory_disk::MemoryDisk;

    #[test]
    fn of_very_many_it_is_the_last_ones_of_which_is_known_what_they_held() {
        let (disk, dir) = (MemoryDisk::new(), Path::new("/d"));
        let mut closed = ClosedOrigins::default();
        let (mut own, mut held, slot) = (BTreeSet::new(), SlotClocks::default(), SlotId(3));
        let all = KNOWN_MAX as u64 + 3;
        for life in 1..=all {
            own.insert(OriginId(life));
            held.insert_range(slot, OriginId(life), 1, life);
            closed.close(&own, OriginId(life + 1), &held, &disk, dir).unwrap();
        }
        let mut last = SlotClocks::default();
        for life in 4..=all {
            last.insert_range(slot, OriginId(life), 1, life);
        }
        assert_eq!(closed.held(), last);
        assert!((1..=all).all(|life| closed.contains(OriginId(life))));
        assert_eq!(ClosedOrigins::load(&disk, dir).unwrap(), closed);
    }

    #[test]
    fn what_was_closed_is_read_back_and_damage_is_noticed() {
        let mut held = SlotClocks::default();
        held.insert_range(SlotId(3), OriginId(1), 1, 9);
        held.insert_range(SlotId(4), OriginId(1), 1, 2);
        let closed = |origin| Closed::at_its_end(OriginId(origin), &held);
        let all = ClosedOrigins::of(vec![closed(1), closed(2)]);
        assert_eq!(all.held(), held);
        let bytes = all.encode();
        assert_eq!(ClosedOrigins::decode(&bytes), Ok(Some(all)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(ClosedOrigins::decode(&damaged), Ok(None));
            assert_eq!(ClosedOrigins::decode(&bytes[..at]), Ok(None));
        }
    }

    #[test]
    fn a_newer_version_is_refused_and_left_alone() {
        let (disk, dir) = (MemoryDisk::new(), Path::new("/d"));
        let mut bytes = ClosedOrigins::default().encode();
        bytes.truncate(bytes.len() - 4);
        bytes[4] = VERSION as u8 + 1;
        bytes.extend_from_slice(b"what nobody knows yet");
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        disk.put(&dir.join(CLOSED_NAME), bytes.clone());
        let refused = ClosedOrigins::load(&disk, dir);
        assert!(matches!(refused, Err(RecoverError::NewerVersion { found, .. }) if found == VERSION + 1));
        assert_eq!(disk.content(&dir.join(CLOSED_NAME)), Some(bytes));
    }
}
