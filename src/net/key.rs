//! The cluster key, and the ring of keys that lets it be changed while the cluster runs.
//!
//! To change the key: add the new one as the second line of every node's file and restart them one by one; put it first, and
//! restart them again; take the old one out, and restart them a last time.
//!
//! Invariant: no key, nor any part of one, is ever shown by `Debug` or in an error.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub const KEY_BYTES: usize = 32;
/// Keys of one ring. A change needs two; more of them only make work for whoever tries them.
pub const KEYS_MAX: usize = 8;

/// What each derived key is for. Changing one of these is a change of the protocol.
const ID_CONTEXT: &str = "kv-storage cluster 2026-01 key id";
const DATAGRAM_CONTEXT: &str = "kv-storage cluster 2026-01 gossip datagrams";
const STREAM_CONTEXT: &str = "kv-storage cluster 2026-01 peer streams";

/// A text is no cluster key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a cluster key has {} hex digits, this text has {got} characters", KEY_BYTES * 2)]
    Length { got: usize },
    #[error("a cluster key has hex digits only, character {at} is none")]
    NotHex { at: usize },
}

/// A text is no list of cluster keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    #[error("it holds no cluster key")]
    Empty,
    #[error("it holds more than {KEYS_MAX} cluster keys")]
    TooMany,
    #[error("line {line}: {source}")]
    Line { line: usize, source: KeyError },
    #[error("line {line}: this cluster key stands there twice")]
    Twice { line: usize },
}

/// The secret of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_BYTES]);

impl ClusterKey {
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The text form. The only way to see a key.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn derive(&self, context: &str) -> [u8; KEY_BYTES] {
        blake3::derive_key(context, &self.0)
    }
}

impl FromStr for ClusterKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let got = text.chars().count();
        if got != KEY_BYTES * 2 {
            return Err(KeyError::Length { got });
        }
        let mut key = [0; KEY_BYTES];
        for (at, character) in text.chars().enumerate() {
            let digit = character.to_digit(16).ok_or(KeyError::NotHex { at: at + 1 })?;
            key[at / 2] = key[at / 2] << 4 | digit as u8;
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(hidden)")
    }
}

/// The public name of a key: 8 bytes of BLAKE3, which say nothing about the rest of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:016x}", u64::from_be_bytes(self.0))
    }
}

/// What is made of one key.
pub(super) struct DerivedKey {
    pub id: KeyId,
    pub datagram: [u8; KEY_BYTES],
    pub stream: [u8; KEY_BYTES],
}

impl DerivedKey {
    fn new(key: &ClusterKey) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&key.derive(ID_CONTEXT)[..8]);
        Self {
            id: KeyId(id),
            datagram: key.derive(DATAGRAM_CONTEXT),
            stream: key.derive(STREAM_CONTEXT),
        }
    }
}

/// 1 to [`KEYS_MAX`] keys: the first one seals, all of them open. Clones share them.
#[derive(Clone)]
pub struct KeyRing(Arc<[DerivedKey]>);

impl KeyRing {
    pub fn of(key: &ClusterKey) -> Self {
        Self(Arc::new([DerivedKey::new(key)]))
    }

    /// One key a line; empty lines and what follows a `#` do not count.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys: Vec<DerivedKey> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line_number = at + 1;
            let text = line.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let key: ClusterKey = text.parse().map_err(|source| KeyRingError::Line {
                line: line_number,
                source,
            })?;
            let key = DerivedKey::new(&key);
            if keys.iter().any(|earlier| earlier.id == key.id) {
                return Err(KeyRingError::Twice { line: line_number });
            }
            if keys.len() == KEYS_MAX {
                return Err(KeyRingError::TooMany);
            }
            keys.push(key);
        }
        match keys.is_empty() {
            true => Err(KeyRingError::Empty),
            false => Ok(Self(keys.into())),
        }
    }

    /// The key that seals.
    pub(super) fn first(&self) -> &DerivedKey {
        // Neither constructor makes an empty ring.
        &self.0[0]
    }

    pub(super) fn find(&self, id: KeyId) -> Option<&DerivedKey> {
        self.0.iter().find(|key| key.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DerivedKey> {
        self.0.iter()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(byte: u8) -> String {
        ClusterKey::from_bytes([byte; KEY_BYTES]).to_hex()
    }

    #[test]
    fn a_key_survives_its_text_form_and_never_shows_in_debug() {
        let key = ClusterKey::from_bytes(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(key.to_hex().parse::<ClusterKey>().unwrap(), key);
        assert_eq!(key.to_hex().to_uppercase().parse::<ClusterKey>().unwrap(), key);
        let ring = KeyRing::of(&key);
        for shown in [format!("{key:?}"), format!("{ring:?}")] {
            assert!(!shown.contains(&key.to_hex()[..8]), "{shown}");
        }
    }

    #[test]
    fn a_text_that_is_no_key_is_named_by_its_fault_and_not_shown() {
        assert_eq!("".parse::<ClusterKey>(), Err(KeyError::Length { got: 0 }));
        assert_eq!("é".parse::<ClusterKey>(), Err(KeyError::Length { got: 1 }));
        let mut text = hex(0xab);
        text.replace_range(9..10, "z");
        assert_eq!(text.parse::<ClusterKey>(), Err(KeyError::NotHex { at: 10 }));
        assert!(!KeyError::NotHex { at: 10 }.to_string().contains('z'));
        // A sign is no digit, though `from_str_radix` takes one.
        assert!(format!("+{}", &hex(1)[1..]).parse::<ClusterKey>().is_err());
    }

    #[test]
    fn the_first_key_of_a_ring_seals_and_every_one_is_found() {
        let text = format!("# keys\n\n  {} # new\r\n{}\n", hex(1), hex(2));
        let ring = KeyRing::parse(&text).unwrap();
        let (first, second) = (
            KeyRing::parse(&hex(1)).unwrap(),
            KeyRing::of(&ClusterKey::from_bytes([2; KEY_BYTES])),
        );
        assert_eq!(ring.first().id, first.first().id);
        assert_eq!(ring.iter().count(), 2);
        assert!(ring.find(second.first().id).is_some());
        assert!(first.find(second.first().id).is_none());
    }

    #[test]
    fn a_ring_has_one_to_eight_different_keys() {
        assert_eq!(KeyRing::parse("# none\n").unwrap_err(), KeyRingError::Empty);
        let many: String = (1..=9).map(|byte| hex(byte) + "\n").collect();
        assert_eq!(KeyRing::parse(&many).unwrap_err(), KeyRingError::TooMany);
        let twice = format!("{}\n{}", hex(1), hex(1).to_uppercase());
        assert_eq!(KeyRing::parse(&twice).unwrap_err(), KeyRingError::Twice { line: 2 });
        let error = KeyRing::parse(&format!("{}\nsecret", hex(1))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: a cluster key has 64 hex digits, this text has 6 characters"
        );
    }

    #[test]
    fn the_keys_for_streams_and_datagrams_differ_and_stay_as_they_are() {
        let ring = KeyRing::of(&ClusterKey::from_bytes([7; KEY_BYTES]));
        let key = ring.first();
        assert_ne!(key.datagram, key.stream);
        // Nodes of different versions of the program must derive the same.
        assert_eq!(format!("{:?}", key.id), "key 24d230617fd04227");
        assert_eq!(
            (&key.datagram[..2], &key.stream[..2]),
            (&[158, 148][..], &[30, 240][..])
        );
    }
}
