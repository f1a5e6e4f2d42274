//! Hashes of names, that is of (user, key), for tables in memory.
//!
//! `KeyHash` will not do for them: it is public and never changes, users choose their keys, and keys that collide are easy to find. A table
//! full of these would be no better than a list, and two users' keys could be taken for one. (Placement and filters use it all the same:
//! there, a collision costs no more than a look-up that finds nothing.)
//!
//! So the hash is SipHash with a secret key, as in std's tables: without the key, nobody can tell which names will collide. XXH3 with a
//! secret seed gives no such promise: in names of more than 240 bytes it adds up the input as it comes, next to products of only half a
//! word.
//!
//! Invariant: a `NameKey` is of one process and leaves it in nothing.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip128::Hasher128;
use siphasher::{sip, sip128};

use super::log::LogSecret;
use crate::planted::{Bug, planted};
use crate::types::{Key, RequestId, UserId};

const KEY_BYTES: usize = 16;
/// The context of the key's derivation; it is used for nothing else.
const CONTEXT: &str = "kv-storage 2026 places of names in tables in memory";

#[derive(Clone, Copy)]
pub struct NameKey([u8; KEY_BYTES]);

/// Stands for a name where the name itself would take too much memory: 128 bits, so that by chance no two meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NameTag(u128);

impl NameKey {
    pub const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub fn derived_from(secret: &LogSecret) -> Self {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&blake3::derive_key(CONTEXT, secret.bytes())[..KEY_BYTES]);
        Self(key)
    }

    /// For tables that compare the name itself too.
    pub fn hash(&self, user: &[u8], key: &[u8]) -> u64 {
        let mut hasher = sip::SipHasher13::new_with_key(&self.0);
        put_name(&mut hasher, user, key);
        hasher.finish()
    }

    /// The hash of a request id within the key whose hash is `name`.
    pub fn hash_of_request(&self, name: u64, id: RequestId) -> u64 {
        let mut hasher = sip::SipHasher13::new_with_key(&self.0);
        let name = if planted(Bug::RequestOfAnyKey) { 0 } else { name };
        hasher.write(&name.to_le_bytes());
        hasher.write(&id.0);
        hasher.finish()
    }

    pub fn tag(&self, user: &UserId, key: &Key) -> NameTag {
        let mut hasher = sip128::SipHasher13::new_with_key(&self.0);
        put_name(&mut hasher, user.as_str().as_bytes(), key.as_str().as_bytes());
        NameTag(hasher.finish128().as_u128())
    }
}

impl fmt::Debug for NameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NameKey")
    }
}

/// The length at the end keeps ("ab", "c") apart from ("a", "bc").
fn put_name(hasher: &mut impl Hasher, user: &[u8], key: &[u8]) {
    hasher.write(user);
    hasher.write(key);
    hasher.write(&(user.len() as u16).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_depends_on_all_of_the_name_on_the_request_and_on_the_key() {
        let (one, other) = (NameKey::new([1; 16]), NameKey::new([2; 16]));
        let hash = one.hash(b"ab", b"c");
        assert_eq!(hash, one.hash(b"ab", b"c"));
        assert!(
            [one.hash(b"a", b"bc"), one.hash(b"ab", b"d"), other.hash(b"ab", b"c")]
                .iter()
                .all(|h| *h != hash)
        );
        let tag = |names: NameKey, user, key| names.tag(&UserId::new(user).unwrap(), &Key::new(key).unwrap());
        let known = tag(one, "ab", "c");
        assert_eq!(known, tag(one, "ab", "c"));
        assert!(
            [tag(one, "a", "bc"), tag(one, "ab", "d"), tag(other, "ab", "c")]
                .iter()
                .all(|t| *t != known)
        );
        let (first, second) = (RequestId([1; 16]), RequestId([2; 16]));
        let request = one.hash_of_request(1, first);
        let others = [
            one.hash_of_request(2, first),
            one.hash_of_request(1, second),
            other.hash_of_request(1, first),
        ];
        assert!(others.iter().all(|other| *other != request));
    }

    #[test]
    fn the_key_is_told_by_no_debug_output_and_differs_with_the_secret() {
        let [one, other] = [[9; 16], [8; 16]].map(|bytes| NameKey::derived_from(&LogSecret::new(bytes)));
        assert_ne!(one.0, other.0);
        assert_ne!(one.0, [9; 16]);
        assert_eq!(format!("{one:?}"), "NameKey");
    }
}
