//! The hash space: which slot a key lies in, and which shard of a node owns it.
//!
//! Invariant: the hash and the slot of a key never change; they are part of the disk format and of placement.

#[cfg(test)]
pub mod same_hash;

use xxhash_rust::xxh3::xxh3_64;

use crate::types::{Key, UserId};

/// Slots that user keys are spread over.
pub const SLOT_COUNT: u16 = 1024;
/// The store's own key range: users and the member table. Every node holds it, so it lies outside the hash space.
pub const SYSTEM_SLOT: SlotId = SlotId(SLOT_COUNT);

/// 0 to [`SLOT_COUNT`] - 1, or [`SYSTEM_SLOT`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SlotId(pub u16);

/// 64-bit XXH3 of (user, key). The user's length comes first, so that ("ab","c") and ("a","bc") differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyHash(pub u64);

impl KeyHash {
    pub fn of(user: &UserId, key: &Key) -> Self {
        Self::of_bytes(user.as_str().as_bytes(), key.as_str().as_bytes())
    }

    pub fn of_bytes(user: &[u8], key: &[u8]) -> Self {
        // Zeroed every time, so no longer than it takes for almost all.
        const STACK: usize = 128;
        let total = 2 + user.len() + key.len();
        let length = (user.len() as u16).to_le_bytes();
        if total <= STACK {
            let mut buffer = [0u8; STACK];
            buffer[..2].copy_from_slice(&length);
            buffer[2..2 + user.len()].copy_from_slice(user);
            buffer[2 + user.len()..total].copy_from_slice(key);
            return Self(xxh3_64(&buffer[..total]));
        }
        Self(xxh3_64(&[&length, user, key].concat()))
    }
}

/// The slot of a key: the top 10 bits of its hash, or the system slot for the store's own records.
pub fn slot_of(user: &UserId, hash: KeyHash) -> SlotId {
    if user.is_system() {
        return SYSTEM_SLOT;
    }
    SlotId((hash.0 >> 54) as u16)
}

/// The contiguous run of slots that shard `index` of `count` owns: `first..end`.
pub fn shard_slots(index: u16, count: u16) -> std::ops::Range<u16> {
    let bound = |i: u16| (u32::from(i) * u32::from(SLOT_COUNT) / u32::from(count)) as u16;
    bound(index)..bound(index + 1)
}

/// Which of `count` shards owns `slot`. The system slot belongs to shard `count`: one more, of its own.
pub fn shard_of(slot: SlotId, count: u16) -> u16 {
    if slot == SYSTEM_SLOT {
        return count;
    }
    let guess = (u32::from(slot.0) * u32::from(count) / u32::from(SLOT_COUNT)) as u16;
    // Integer rounding of the bounds can put the slot one run further.
    if slot.0 >= shard_slots(guess, count).end {
        guess + 1
    } else {
        guess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_belongs_to_the_shard_whose_run_holds_it() {
        for count in 1..=64 {
            for slot in 0..SLOT_COUNT {
                let shard = shard_of(SlotId(slot), count);
                assert!(
                    shard_slots(shard, count).contains(&slot),
                    "slot {slot} of {count} shards"
                );
            }
            assert_eq!(shard_of(SYSTEM_SLOT, count), count);
        }
    }

    #[test]
    fn where_the_user_ends_and_the_key_begins_changes_the_hash() {
        assert_ne!(KeyHash::of_bytes(b"ab", b"c"), KeyHash::of_bytes(b"a", b"bc"));
    }

    #[test]
    fn the_hash_of_a_known_key_never_changes() {
        let (user, key) = (UserId::new("123").unwrap(), Key::new("example").unwrap());
        let hash = KeyHash::of(&user, &key);
        assert_eq!(hash, KeyHash::of_bytes(b"123", b"example"));
        assert_eq!(hash.0, xxh3_64(b"\x03\x00123example"));
    }
}
