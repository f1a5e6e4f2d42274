//! A filter: a binary fuse filter over 64-bit tags, about 9 bits a tag, wrong for 1 in 256 absent tags.
//!
//! Invariant: it never says no to a tag that it was built from. Where it cannot be built, it says yes to everything.
//!
//! Encoded as: kind (1 byte: 0 holds nothing, 1 may hold everything, 2 binary fuse); for kind 2 then
//! seed (8) | segment length (4) | segment count * segment length (4) | fingerprints (the rest, one byte each).
//!
//! Corrupt if: the kind is unknown; kind 0 or 1 is followed by anything; the segment length is not a power of two; the count
//! length is zero or no multiple of the segment length; there are not exactly count length + 2 * segment length fingerprints.
//! Past these rules, every index that a look-up computes lies inside the fingerprints.

use bytes::Bytes;
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter as _, FilterRef};

use super::codec::{Cursor, Malformed};
use crate::core::slot::KeyHash;
use crate::types::RequestId;

/// 8 /* seed */ + 4 /* segment length */ + 4 /* mask */ + 4 /* segment count length */
const DESCRIPTOR_BYTES: usize = BinaryFuse8::DESCRIPTOR_LEN;
const _: () = assert!(DESCRIPTOR_BYTES == 8 + 4 + 4 + 4);

/// The tag of a key that has any op.
pub fn key_tag(hash: KeyHash) -> u64 {
    hash.0
}

/// The tag of a request id within a key.
pub fn request_tag(hash: KeyHash, request: RequestId) -> u64 {
    let [a, b] = [0, 8].map(|at| {
        let mut half = [0; 8];
        half.copy_from_slice(&request.0[at..at + 8]);
        u64::from_le_bytes(half)
    });
    // The id's bits are as good as random already; multiplying keeps ids that share a half apart.
    mix(hash.0 ^ a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.rotate_left(32))
}

/// The tag of a request id in the `block`th block of a key that spreads over several; `tag` is its [`request_tag`]. Both are asked
/// where a wrong yes would be dear.
pub fn request_tag_in_block(tag: u64, block: u32) -> u64 {
    mix(tag ^ mix(u64::from(block) ^ 0x626c_6f63_6b62_6c6f))
}

/// The tag of a key that has a `Part`.
pub fn parts_tag(hash: KeyHash) -> u64 {
    mix(hash.0 ^ 0x7061_7274_7061_7274)
}

/// In which of so many filters a tag is; bits that a filter itself does not go by.
pub fn part_of(tag: u64, parts: usize) -> usize {
    ((u128::from(mix(tag ^ 0x7061_7274_5f6f_6621)) * parts as u128) >> 64) as usize
}

/// A bijection that spreads every bit (the finalizer of MurmurHash3).
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

pub struct Filter(Kind);

enum Kind {
    Nothing,
    Everything,
    Fuse {
        descriptor: [u8; DESCRIPTOR_BYTES],
        fingerprints: Bytes,
    },
}

impl Filter {
    /// Never fails: tags that no filter can be built for give one that may hold everything.
    pub fn build(mut tags: Vec<u64>) -> Self {
        tags.sort_unstable();
        tags.dedup();
        if tags.is_empty() {
            return Self(Kind::Nothing);
        }
        let Ok(fuse) = BinaryFuse8::try_from(&tags) else {
            return Self(Kind::Everything);
        };
        let mut descriptor = [0; DESCRIPTOR_BYTES];
        fuse.dma_copy_descriptor_to(&mut descriptor);
        Self(Kind::Fuse {
            descriptor,
            fingerprints: fuse.fingerprints.into(),
        })
    }

    /// One that lets every look-up through.
    pub fn everything() -> Self {
        Self(Kind::Everything)
    }

    pub fn may_hold(&self, tag: u64) -> bool {
        match &self.0 {
            Kind::Nothing => false,
            Kind::Everything => true,
            Kind::Fuse {
                descriptor,
                fingerprints,
            } => BinaryFuse8Ref::from_dma(descriptor, fingerprints).contains(&tag),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Kind::Nothing | Kind::Everything => 0,
            Kind::Fuse { fingerprints, .. } => fingerprints.len(),
        }
    }

    /// What stands before the fingerprints, and these.
    pub fn encoded(&self) -> (Vec<u8>, &[u8]) {
        match &self.0 {
            Kind::Nothing => (vec![0], &[]),
            Kind::Everything => (vec![1], &[]),
            Kind::Fuse {
                descriptor,
                fingerprints,
            } => ([&[2], &descriptor[..12], &descriptor[16..]].concat(), fingerprints),
        }
    }

    /// The fingerprints stay where they are.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let wrong = Malformed { what: "filter" };
        let mut cursor = Cursor::new(&bytes);
        let kind = cursor.u8()?;
        match kind {
            0 | 1 if !cursor.is_at_end() => Err(wrong),
            0 => Ok(Self(Kind::Nothing)),
            1 => Ok(Self(Kind::Everything)),
            2 => Self::decode_fuse(cursor, &bytes).ok_or(wrong),
            _ => Err(wrong),
        }
    }

    fn decode_fuse(mut cursor: Cursor<'_>, bytes: &Bytes) -> Option<Self> {
        let seed = cursor.u64().ok()?;
        let segment = cursor.u32().ok()?;
        let count = cursor.u32().ok()?;
        let fingerprints = cursor.take(cursor.remaining()).ok()?;
        let shape_is_right = segment.is_power_of_two() && count > 0 && count.is_multiple_of(segment);
        let total = segment.checked_mul(2)?.checked_add(count)?;
        if !shape_is_right || u32::try_from(fingerprints.len()) != Ok(total) {
            return None;
        }
        let mut descriptor = [0; DESCRIPTOR_BYTES];
        descriptor[..8].copy_from_slice(&seed.to_le_bytes());
        descriptor[8..12].copy_from_slice(&segment.to_le_bytes());
        descriptor[12..16].copy_from_slice(&(segment - 1).to_le_bytes());
        descriptor[16..].copy_from_slice(&count.to_le_bytes());
        Some(Self(Kind::Fuse {
            descriptor,
            fingerprints: bytes.slice_ref(fingerprints),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(filter: &Filter) -> Vec<u8> {
        let (head, fingerprints) = filter.encoded();
        [&head, fingerprints].concat()
    }

    proptest! {
        #[test]
        fn no_tag_is_ever_denied(tags in proptest::collection::vec(any::<u64>(), 0..2000)) {
            let filter = Filter::decode(encoded(&Filter::build(tags.clone())).into()).unwrap();
            prop_assert!(tags.iter().all(|tag| filter.may_hold(*tag)));
        }

        #[test]
        fn garbage_is_refused_or_answers_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..100), tag in any::<u64>()) {
            if let Ok(filter) = Filter::decode(bytes.into()) {
                filter.may_hold(tag);
            }
        }

        #[test]
        fn a_crafted_shape_never_reaches_outside(segment in 0u32..40, count in 0u32..200, length in 0usize..300, tag in any::<u64>()) {
            let mut bytes = vec![2];
            bytes.extend_from_slice(&7u64.to_le_bytes());
            bytes.extend_from_slice(&segment.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.resize(bytes.len() + length, 1);
            if let Ok(filter) = Filter::decode(bytes.into()) {
                filter.may_hold(tag);
            }
        }
    }

    #[test]
    fn few_absent_tags_pass() {
        let filter = Filter::build((0..20_000u64).map(mix).collect());
        let passed = (20_000..60_000u64).filter(|&tag| filter.may_hold(mix(tag))).count();
        assert!(passed < 40_000 / 128, "{passed} of 40000");
        assert!(encoded(&filter).len() * 8 < 20_000 * 11);
    }

    #[test]
    fn few_absent_request_ids_pass_in_the_same_block() {
        let tags = |number: u32, block| {
            let id = RequestId((u128::from(number) << 40).to_le_bytes());
            let tag = request_tag(KeyHash(7), id);
            [tag, request_tag_in_block(tag, block)]
        };
        let filter = Filter::build((0..20_000).flat_map(|number| tags(number, number / 100)).collect());
        let absent = (20_000..220_000).filter(|&number| tags(number, 5).iter().all(|&tag| filter.may_hold(tag)));
        let passed = absent.count();
        assert!(passed < 200_000 / 65_536 * 8, "{passed} of 200000");
    }

    #[test]
    fn a_filter_of_nothing_holds_nothing() {
        assert!(!Filter::build(Vec::new()).may_hold(1));
        assert!(Filter::everything().may_hold(1));
    }

    #[test]
    fn each_broken_rule_is_refused() {
        let good = encoded(&Filter::build((0..100u64).map(mix).collect()));
        assert!(Filter::decode(good.clone().into()).is_ok());
        let changed = |at: usize, value: u32| {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            bad
        };
        for bad in [
            vec![],
            vec![3],
            vec![0, 0],
            vec![1, 0],
            good[..good.len() - 1].to_vec(),
            changed(9, 3),
            changed(9, u32::MAX),
            changed(13, 0),
            changed(13, u32::MAX),
        ] {
            assert!(Filter::decode(bad.into()).is_err());
        }
    }

    #[test]
    fn the_tags_of_a_key_differ() {
        let hash = KeyHash(99);
        let request = request_tag(hash, RequestId([1; 16]));
        assert_ne!(request, request_tag(hash, RequestId([2; 16])));
        assert_ne!(request, key_tag(hash));
        assert_ne!(parts_tag(hash), key_tag(hash));
        let in_block = request_tag_in_block(request, 0);
        assert_ne!(in_block, request);
        assert_ne!(in_block, request_tag_in_block(request, 1));
    }
}
