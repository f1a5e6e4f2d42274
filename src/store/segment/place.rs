//! A place: (slot, user, key) as one byte string whose byte order is the order of the three.
//!
//! slot (2, big-endian) | user, escaped | 0x00 | key
//!
//! In the user, 0x00 becomes 0x01 0x01 and 0x01 becomes 0x01 0x02, so that the 0x00 behind it sorts below anything a longer
//! user could go on with, and no user's name can imitate where another ends.

use crate::core::slot::{SLOT_COUNT, SlotId};
use crate::store::codec::Malformed;
use crate::types::{KEY_BYTES_MAX, Key, USER_ID_BYTES_MAX, UserId};

pub const SLOT_BYTES: usize = 2;
/// 2 /* slot */ + 2 * user /* every byte escaped */ + 1 /* end of user */ + key
pub const PLACE_BYTES_MAX: usize = SLOT_BYTES + 2 * USER_ID_BYTES_MAX + 1 + KEY_BYTES_MAX;

const END: u8 = 0;
const ESCAPE: u8 = 1;

pub fn put_place(out: &mut Vec<u8>, slot: SlotId, user: &str, key: &str) {
    out.extend_from_slice(&slot.0.to_be_bytes());
    if user.bytes().any(|byte| byte <= ESCAPE) {
        for byte in user.bytes() {
            match byte {
                END | ESCAPE => out.extend_from_slice(&[ESCAPE, byte + 1]),
                _ => out.push(byte),
            }
        }
    } else {
        out.extend_from_slice(user.as_bytes());
    }
    out.push(END);
    out.extend_from_slice(key.as_bytes());
}

pub fn place_of(slot: SlotId, user: &str, key: &str) -> Vec<u8> {
    let mut place = Vec::with_capacity(SLOT_BYTES + user.len() + 1 + key.len());
    put_place(&mut place, slot, user, key);
    place
}

/// The slot of a place, or of the start of one.
pub fn slot_of_place(place: &[u8]) -> Result<SlotId, Malformed> {
    match place.first_chunk() {
        Some(bytes) if u16::from_be_bytes(*bytes) <= SLOT_COUNT => Ok(SlotId(u16::from_be_bytes(*bytes))),
        _ => Err(Malformed {
            what: "slot of a place",
        }),
    }
}

/// The parts of a whole place.
pub fn parse_place(place: &[u8]) -> Result<(SlotId, UserId, Key), Malformed> {
    let wrong = Malformed { what: "place" };
    let slot = slot_of_place(place)?;
    let rest = place.get(SLOT_BYTES..).ok_or(wrong)?;
    let end = rest.iter().position(|&byte| byte == END).ok_or(wrong)?;
    let (user, key) = (&rest[..end], &rest[end + 1..]);
    let user = if user.contains(&ESCAPE) {
        parse_user(&unescape(user).ok_or(wrong)?)
    } else {
        parse_user(user)
    };
    let key = std::str::from_utf8(key).ok().and_then(|key| Key::new(key).ok());
    Ok((slot, user.ok_or(wrong)?, key.ok_or(wrong)?))
}

fn parse_user(bytes: &[u8]) -> Option<UserId> {
    if bytes.is_empty() {
        return Some(UserId::system());
    }
    UserId::new(std::str::from_utf8(bytes).ok()?).ok()
}

fn unescape(user: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(user.len());
    let mut bytes = user.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            ESCAPE => match bytes.next() {
                Some(1) => plain.push(END),
                Some(2) => plain.push(ESCAPE),
                _ => return None,
            },
            byte => plain.push(byte),
        }
    }
    Some(plain)
}

/// How many bytes two strings share at their start.
pub fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = (u16, String, String)> {
        (0u16..4, "[\u{0}\u{1}\u{2}ab]{0,4}", "[\u{0}\u{1}ab]{1,4}")
    }

    proptest! {
        #[test]
        fn places_sort_as_slot_user_key_do(a in part(), b in part()) {
            let place = |(slot, user, key): &(u16, String, String)| place_of(SlotId(*slot), user, key);
            prop_assert_eq!(place(&a).cmp(&place(&b)), a.cmp(&b));
        }

        #[test]
        fn a_place_comes_back(part in part()) {
            let (slot, user, key) = parse_place(&place_of(SlotId(part.0), &part.1, &part.2)).unwrap();
            prop_assert_eq!((slot.0, user.as_str(), key.as_str()), (part.0, part.1.as_str(), part.2.as_str()));
        }

        #[test]
        fn garbage_is_refused_without_harm(bytes in proptest::collection::vec(0u8..3, 0..12)) {
            let _ = parse_place(&bytes);
        }
    }

    #[test]
    fn the_longest_place_is_within_its_limit() {
        let (user, key) = ("\u{0}".repeat(USER_ID_BYTES_MAX), "k".repeat(KEY_BYTES_MAX));
        assert_eq!(place_of(SlotId(1), &user, &key).len(), PLACE_BYTES_MAX);
    }
}
