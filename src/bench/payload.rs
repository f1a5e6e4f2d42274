//! The keys and values that are sent.

use std::sync::Arc;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Digits of a key's number: keys are all of one length, and so are requests.
pub const KEY_DIGITS: usize = 12;
/// Values are cut out of this much random text, so that neither do they repeat in a way that compresses, nor has each to be made.
const POOL_BYTES: usize = 64 * 1024;
/// None of these is escaped in JSON.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Payload {
    key_prefix: Arc<str>,
    pool: Arc<[u8]>,
    value_bytes: usize,
}

impl Payload {
    pub fn new(key_prefix: &str, value_bytes: usize, seed: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let letter = |_| ALPHABET[random.random_range(0..ALPHABET.len())];
        Self {
            key_prefix: key_prefix.into(),
            pool: (0..POOL_BYTES + value_bytes).map(letter).collect(),
            value_bytes,
        }
    }

    pub fn key_prefix(&self) -> &str {
        &self.key_prefix
    }

    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    pub fn key_bytes(&self) -> usize {
        self.key_prefix.len() + KEY_DIGITS
    }

    pub fn push_key(&self, key: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key_prefix.as_bytes());
        out.extend_from_slice(&key_digits(key));
    }

    /// ASCII letters and digits.
    pub fn value(&self, random: u64) -> &[u8] {
        let start = random as usize % POOL_BYTES;
        self.pool.get(start..start + self.value_bytes).unwrap_or_default()
    }

    pub fn value_text(&self, random: u64) -> &str {
        std::str::from_utf8(self.value(random)).unwrap_or_default()
    }

    pub fn key_text(&self, key: u64) -> String {
        let digits = key_digits(key);
        format!(
            "{}{}",
            self.key_prefix,
            std::str::from_utf8(&digits).unwrap_or_default()
        )
    }
}

pub fn key_digits(mut key: u64) -> [u8; KEY_DIGITS] {
    let mut digits = [b'0'; KEY_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit += (key % 10) as u8;
        key /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_by_their_numbers_at_one_length() {
        let payload = Payload::new("bench-", 0, 1);
        assert_eq!(payload.key_text(0), "bench-000000000000");
        assert_eq!(payload.key_text(1234567), "bench-000001234567");
        assert_eq!(payload.key_text(7).len(), payload.key_bytes());
    }

    #[test]
    fn values_have_their_length_and_differ() {
        for bytes in [0, 1, 100, POOL_BYTES, 1_000_000] {
            let payload = Payload::new("", bytes, 1);
            assert_eq!(payload.value(u64::MAX).len(), bytes);
            assert_eq!(payload.value_text(3).len(), bytes);
        }
        let payload = Payload::new("", 100, 1);
        assert_ne!(payload.value(1), payload.value(2));
    }
}
