//! JSON in small files, with a checksum behind its last field: one flipped bit mostly leaves JSON that parses, and says something else.
//!
//! The checksum is one more field, so that whoever does not know of it reads the rest all the same. It is of the bytes before it, whatever
//! fields they hold: so it can be checked without knowing what a later version writes. A file without one is of an earlier version.

use std::borrow::Cow;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

const BEGIN: &[u8] = b",\"check\":\"";
const END: &[u8] = b"\"}";
const DIGITS: usize = 16;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("its checksum is wrong")]
pub struct Damaged;

/// The bytes of an object with at least one field.
pub fn encode(object: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(object)?;
    if bytes.pop() != Some(b'}') || bytes.len() < 2 {
        return Err(serde::ser::Error::custom("not an object with fields"));
    }
    let check = xxh3_64(&bytes);
    bytes.extend_from_slice(BEGIN);
    bytes.extend_from_slice(format!("{check:016x}").as_bytes());
    bytes.extend_from_slice(END);
    Ok(bytes)
}

/// The object without its checksum. Spaces may follow the bytes.
pub fn checked(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Damaged> {
    let trimmed = bytes.trim_ascii_end();
    let body = trimmed.len().saturating_sub(BEGIN.len() + DIGITS + END.len());
    let (body, tail) = trimmed.split_at(body);
    let digits = tail.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let Some(digits) = digits else {
        return Ok(Cow::Borrowed(bytes));
    };
    if digits != format!("{:016x}", xxh3_64(body)).as_bytes() {
        return Err(Damaged);
    }
    let mut object = body.to_vec();
    object.push(b'}');
    Ok(Cow::Owned(object))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn whatever_bit_is_flipped_the_object_says_the_same_or_is_damaged() {
        let object = BTreeMap::from([("a", 16), ("b", 4)]);
        let plain = serde_json::to_vec(&object).unwrap();
        let bytes = encode(&object).unwrap();
        let padded = [&bytes[..], b"   "].concat();
        for whole in [&bytes, &padded, &plain] {
            assert_eq!(checked(whole).unwrap().trim_ascii_end(), plain);
        }
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        let mut damaged = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match checked(&flipped) {
                Err(Damaged) => damaged += 1,
                // The field of the checksum has another name, or there is none: what stands before it is as it was.
                Ok(object) => assert!(object.starts_with(&plain[..plain.len() - 1])),
            }
        }
        assert!(damaged >= plain.len() * 8 - 8);
        assert!(encode(&BTreeMap::<u8, u8>::new()).is_err());
    }
}
