//! The small pieces that every format on disk is made of: varints, length-prefixed bytes, clocks.
//!
//! Invariant: decoding never panics, never reads past the end, and never allocates more than the input is long.

use crate::core::clock::{Clock, SeqSet, SlotClocks};
use crate::core::slot::{SLOT_COUNT, SlotId};
use crate::core::stamp::OriginId;

/// The bytes are not what the format says: too short, too long, or out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}")]
pub struct Malformed {
    pub what: &'static str,
}

/// Appends `value` as LEB128: 1 byte up to 127, 10 at most.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// count, then each range as (gap to the end of the one before, length - 1).
fn put_seq_set(out: &mut Vec<u8>, set: &SeqSet) {
    put_varint(out, set.ranges().len() as u64);
    let mut end = 0;
    for &(first, last) in set.ranges() {
        put_varint(out, first - end);
        put_varint(out, last - first);
        end = last;
    }
}

/// count, then each origin (8 bytes) with its set.
pub fn put_clock(out: &mut Vec<u8>, clock: &Clock) {
    put_varint(out, clock.origins().count() as u64);
    for (origin, set) in clock.origins() {
        out.extend_from_slice(&origin.0.to_le_bytes());
        put_seq_set(out, set);
    }
}

/// count, then each slot (varint) with its clock.
pub fn put_slot_clocks(out: &mut Vec<u8>, clocks: &SlotClocks) {
    put_varint(out, clocks.slots().count() as u64);
    for (slot, clock) in clocks.slots() {
        put_varint(out, u64::from(slot.0));
        put_clock(out, clock);
    }
}

/// Reads what the functions above wrote.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed { what: "length" })?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed { what: "length" })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        // Almost all are this short.
        match *self.rest {
            [low, ref rest @ ..] if low < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low))
            }
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            let low = u64::from(byte & 0x7f);
            if index == 9 && low > 1 {
                break;
            }
            value |= low << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(Malformed { what: "varint" })
    }

    /// A varint that must fit a `usize` and be at most what is left to read: for counts and lengths.
    #[inline]
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(Malformed { what: "count" }),
        }
    }

    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count()?;
        self.take(length)
    }

    pub fn slot(&mut self) -> Result<SlotId, Malformed> {
        let slot = self.varint()?;
        if slot > u64::from(SLOT_COUNT) {
            return Err(Malformed { what: "slot" });
        }
        Ok(SlotId(slot as u16))
    }

    pub fn clock(&mut self) -> Result<Clock, Malformed> {
        let mut clock = Clock::default();
        for _ in 0..self.count()? {
            let origin = OriginId(self.u64()?);
            let mut end = 0u64;
            for _ in 0..self.count()? {
                let wrong = Malformed { what: "sequence range" };
                let first = end.checked_add(self.varint()?).ok_or(wrong)?;
                let last = first.checked_add(self.varint()?).ok_or(wrong)?;
                if first == 0 {
                    return Err(wrong);
                }
                clock.insert_range(origin, first, last);
                end = last;
            }
        }
        Ok(clock)
    }

    pub fn slot_clocks(&mut self) -> Result<SlotClocks, Malformed> {
        let mut clocks = SlotClocks::default();
        for _ in 0..self.count()? {
            let slot = self.slot()?;
            clocks.join_slot(slot, &self.clock()?);
        }
        Ok(clocks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_varint_comes_back(value in any::<u64>(), shift in 0u32..64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value >> shift);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.varint(), Ok(value >> shift));
            prop_assert!(cursor.is_at_end());
        }

        #[test]
        fn clocks_come_back(ranges in proptest::collection::vec((0u16..=1024, 0u64..4, 1u64..1000, 0u64..50), 0..40)) {
            let mut clocks = SlotClocks::default();
            for (slot, origin, first, more) in ranges {
                clocks.insert_range(SlotId(slot), OriginId(origin), first, first + more);
            }
            let mut bytes = Vec::new();
            put_slot_clocks(&mut bytes, &clocks);
            prop_assert_eq!(Cursor::new(&bytes).slot_clocks(), Ok(clocks));
        }

        #[test]
        fn garbage_is_refused_and_not_believed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Cursor::new(&bytes).slot_clocks();
            let _ = Cursor::new(&bytes).bytes();
        }
    }
}
