//! One datagram, sealed with XChaCha20-Poly1305.
//!
//! ```text
//! version 1 | key id 8 | sender 8 | generation 8 | number 8 | nonce 24 | ciphertext | tag 16
//! ```
//!
//! Integers are little-endian. Everything before the nonce is authenticated with the ciphertext. The nonce is drawn at random: a data folder
//! restored from an old copy may use a generation and its numbers twice, and must not use a nonce twice.
//!
//! Invariants: nothing is remembered of a datagram before its tag was checked; a datagram is taken once; none of an older generation of its
//! sender is taken. What this process has not heard of a sender yet it cannot know to be old: after its start, recordings of the time
//! before are taken until the sender itself is heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kv_xchacha::{Cipher, NONCE_BYTES, TAG_BYTES};

use super::key::{KeyId, KeyRing};
pub use super::replay::Newest;
use super::replay::{Replay, Stale};
use crate::env::Entropy;
use crate::types::NodeId;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 /* version */ + 8 /* key id */ + 8 /* sender */ + 8 /* generation */ + 8 /* number */;
/// What sealing adds to a payload.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;
/// The longest datagram of UDP over IPv4: 65,535 less both headers.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
/// The longest payload.
pub const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - OVERHEAD_BYTES;

/// Why a datagram was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it is too short")]
    TooShort,
    #[error("its version {0} is unknown")]
    Version(u8),
    #[error("it is sealed with an unknown cluster key")]
    UnknownKey,
    #[error("it is not authentic")]
    Forged,
    #[error("it comes from this very node")]
    Own,
    #[error("{sender} sent it before")]
    Replayed { sender: NodeId, newest: Newest },
    #[error("{sender} has been started again since: its generation is {}", newest.generation)]
    OldGeneration { sender: NodeId, newest: Newest },
    #[error("it is authentic, but says nothing that can be understood")]
    Malformed,
}

impl Refused {
    /// For metrics, in the order of [`RefusedCounts::by_reason`].
    const LABELS: [&'static str; 8] = [
        "too_short",
        "version",
        "unknown_key",
        "forged",
        "own",
        "replayed",
        "old_generation",
        "malformed",
    ];

    fn place(self) -> usize {
        match self {
            Self::TooShort => 0,
            Self::Version(_) => 1,
            Self::UnknownKey => 2,
            Self::Forged => 3,
            Self::Own => 4,
            Self::Replayed { .. } => 5,
            Self::OldGeneration { .. } => 6,
            Self::Malformed => 7,
        }
    }

    pub fn label(self) -> &'static str {
        Self::LABELS[self.place()]
    }
}

/// How many datagrams were refused, by reason. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct RefusedCounts(Arc<[AtomicU64; Refused::LABELS.len()]>);

impl RefusedCounts {
    pub fn count(&self, refused: Refused) {
        self.0[refused.place()].fetch_add(1, Relaxed);
    }

    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        Refused::LABELS.into_iter().zip(counts)
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }
}

/// Seals the datagrams of one node in one generation.
pub struct Sealer {
    cipher: Cipher,
    key: KeyId,
    node: NodeId,
    generation: u64,
    /// Of the datagram before.
    number: u64,
    entropy: Arc<dyn Entropy>,
}

impl Sealer {
    /// What it has sealed so far.
    pub fn newest(&self) -> Newest {
        Newest {
            generation: self.generation,
            number: self.number,
        }
    }

    /// There must be one of these only for a generation of a node: it numbers the datagrams.
    pub fn new(keys: &KeyRing, node: NodeId, generation: u64, entropy: Arc<dyn Entropy>) -> Self {
        let key = keys.first();
        Self {
            cipher: Cipher::new(&key.datagram),
            key: key.id,
            node,
            generation,
            number: 0,
            entropy,
        }
    }

    /// Fills `datagram`, which keeps only its memory. The caller keeps to [`PAYLOAD_BYTES_MAX`].
    pub fn seal(&mut self, payload: &[u8], datagram: &mut Vec<u8>) {
        self.number += 1;
        datagram.clear();
        datagram.reserve(payload.len() + OVERHEAD_BYTES);
        datagram.push(VERSION);
        datagram.extend_from_slice(&self.key.0);
        datagram.extend_from_slice(&self.node.0.to_le_bytes());
        datagram.extend_from_slice(&self.generation.to_le_bytes());
        datagram.extend_from_slice(&self.number.to_le_bytes());
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce);
        datagram.extend_from_slice(&nonce);
        datagram.extend_from_slice(payload);
        let (header, sealed) = datagram.split_at_mut(HEADER_BYTES);
        let payload = &mut sealed[NONCE_BYTES..];
        match self.cipher.seal(nonce, header, payload) {
            Ok(tag) => datagram.extend_from_slice(&tag),
            // Only for 256 GiB and more. Without its tag the datagram is refused.
            Err(_) => datagram.clear(),
        }
    }
}

/// An authentic datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    pub sender: NodeId,
    pub generation: u64,
    pub payload: &'a [u8],
}

/// Opens what others sealed.
pub struct Opener {
    ciphers: Vec<(KeyId, Cipher)>,
    node: NodeId,
    replay: Replay,
}

impl Opener {
    /// For `node`, which does not hear itself.
    pub fn new(keys: &KeyRing, node: NodeId) -> Self {
        let ciphers = keys.iter().map(|key| (key.id, Cipher::new(&key.datagram)));
        Self {
            ciphers: ciphers.collect(),
            node,
            replay: Replay::default(),
        }
    }

    /// Checks a datagram and decrypts it where it lies.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<Opened<'a>, Refused> {
        if datagram.len() < OVERHEAD_BYTES {
            return Err(Refused::TooShort);
        }
        let (header, sealed) = datagram.split_at_mut(HEADER_BYTES);
        let (nonce, rest) = sealed.split_first_chunk_mut().ok_or(Refused::TooShort)?;
        let (ciphertext, tag) = rest.split_last_chunk_mut().ok_or(Refused::TooShort)?;
        if header[0] != VERSION {
            return Err(Refused::Version(header[0]));
        }
        let key = KeyId(eight(header, 1));
        let cipher = self.ciphers.iter().find(|(id, _)| *id == key);
        let (_, cipher) = cipher.ok_or(Refused::UnknownKey)?;
        let opened = cipher.open(*nonce, header, ciphertext, *tag);
        opened.map_err(|_| Refused::Forged)?;
        let sender = NodeId(u64::from_le_bytes(eight(header, 9)));
        let generation = u64::from_le_bytes(eight(header, 17));
        let number = u64::from_le_bytes(eight(header, 25));
        if sender == self.node {
            return Err(Refused::Own);
        }
        self.replay
            .note(sender, generation, number)
            .map_err(|stale| match stale {
                Stale::Replayed(newest) => Refused::Replayed { sender, newest },
                Stale::OldGeneration(newest) => Refused::OldGeneration { sender, newest },
            })?;
        Ok(Opened {
            sender,
            generation,
            payload: ciphertext,
        })
    }
}

/// Eight bytes of a header, whose length was checked.
fn eight(header: &[u8], at: usize) -> [u8; 8] {
    std::array::from_fn(|offset| header[at + offset])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::key::ClusterKey;
    use crate::os::entropy::OsEntropy;

    const SENDER: NodeId = NodeId(0x1122);
    const RECEIVER: NodeId = NodeId(0x3344);

    fn ring(byte: u8) -> KeyRing {
        KeyRing::of(&ClusterKey::from_bytes([byte; 32]))
    }

    fn sealer(keys: &KeyRing, generation: u64) -> Sealer {
        Sealer::new(keys, SENDER, generation, Arc::new(OsEntropy))
    }

    /// draft-irtf-cfrg-xchacha-03, A.3.1: nodes of all versions understand each other.
    #[test]
    fn the_cipher_gives_the_bytes_of_its_specification() {
        let key = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce = std::array::from_fn(|at| 0x40 + at as u8);
        let header = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
            sunscreen would be it."
            .to_vec();
        let tag = Cipher::new(&key).seal(nonce, &header, &mut text).unwrap();
        assert_eq!(text[..8], [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b]);
        let expected = 0xc087_5924_c1c7_9879_47de_afd8_780a_cf49_u128;
        assert_eq!(u128::from_be_bytes(tag), expected);
    }

    fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
        let mut datagram = b"what was in the buffer before".to_vec();
        sealer.seal(payload, &mut datagram);
        assert_eq!(datagram.len(), payload.len() + OVERHEAD_BYTES);
        datagram
    }

    #[test]
    fn a_datagram_of_any_size_arrives_as_it_was_sent_and_once() {
        let keys = ring(1);
        let (mut sealer, mut opener) = (sealer(&keys, 5), Opener::new(&keys, RECEIVER));
        for size in [0, 1, 15, 16, 17, 1000, PAYLOAD_BYTES_MAX] {
            let payload: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let mut datagram = sealed(&mut sealer, &payload);
            assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
            let mut again = datagram.clone();
            let opened = opener.open(&mut datagram).unwrap();
            assert_eq!((opened.sender, opened.generation), (SENDER, 5));
            assert_eq!(opened.payload, payload);
            let refused = opener.open(&mut again);
            assert!(matches!(refused, Err(Refused::Replayed { sender: SENDER, .. })));
        }
    }

    #[test]
    fn a_bit_flipped_anywhere_is_noticed_and_leaves_no_trace() {
        let keys = ring(1);
        let (mut sealer, mut opener) = (sealer(&keys, 5), Opener::new(&keys, RECEIVER));
        let datagram = sealed(&mut sealer, b"payload");
        for at in 0..datagram.len() {
            let mut flipped = datagram.clone();
            flipped[at] ^= 1 << (at % 8);
            let refused = opener.open(&mut flipped).unwrap_err();
            let expected = match at {
                0 => matches!(refused, Refused::Version(_)),
                1..9 => refused == Refused::UnknownKey,
                _ => refused == Refused::Forged,
            };
            assert!(expected, "byte {at}: {refused}");
        }
        for length in 0..datagram.len() {
            assert!(opener.open(&mut datagram[..length].to_vec()).is_err());
        }
        assert!(opener.open(&mut datagram.clone()).is_ok());
    }

    #[test]
    fn another_key_is_told_by_its_id_and_every_key_of_a_ring_opens() {
        let both = format!(
            "{}\n{}",
            ClusterKey::from_bytes([2; 32]).to_hex(),
            ClusterKey::from_bytes([1; 32]).to_hex()
        );
        let both = KeyRing::parse(&both).unwrap();
        let mut datagram = sealed(&mut sealer(&ring(1), 5), b"payload");
        let refused = Opener::new(&ring(2), RECEIVER).open(&mut datagram);
        assert_eq!(refused, Err(Refused::UnknownKey));
        assert!(Opener::new(&both, RECEIVER).open(&mut datagram.clone()).is_ok());
        // The ring seals with its first key.
        let datagram = sealed(&mut sealer(&both, 5), b"payload");
        assert!(Opener::new(&ring(2), RECEIVER).open(&mut datagram.clone()).is_ok());
        // The right id alone is worth nothing.
        let mut forged = sealed(&mut sealer(&ring(3), 5), b"payload");
        forged[1..9].copy_from_slice(&ring(1).first().id.0);
        assert_eq!(Opener::new(&ring(1), RECEIVER).open(&mut forged), Err(Refused::Forged));
    }

    #[test]
    fn an_older_generation_and_the_node_itself_are_refused() {
        let keys = ring(1);
        let mut opener = Opener::new(&keys, RECEIVER);
        let mut old = sealed(&mut sealer(&keys, 5), b"payload");
        assert!(opener.open(&mut sealed(&mut sealer(&keys, 6), b"payload")).is_ok());
        let refused = opener.open(&mut old).unwrap_err();
        assert_eq!(
            refused,
            Refused::OldGeneration {
                sender: SENDER,
                newest: Newest {
                    generation: 6,
                    number: 1
                }
            }
        );
        let mut own = sealed(&mut sealer(&keys, 6), b"payload");
        assert_eq!(Opener::new(&keys, SENDER).open(&mut own), Err(Refused::Own));
    }

    #[test]
    fn refusals_are_counted_by_their_reason() {
        let counts = RefusedCounts::default();
        counts.count(Refused::Replayed {
            sender: SENDER,
            newest: Newest {
                generation: 1,
                number: 2,
            },
        });
        counts.clone().count(Refused::Version(9));
        let counted: Vec<_> = counts.by_reason().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("version", 1), ("replayed", 1)]);
        assert_eq!(counts.total(), 2);
        assert_eq!(Refused::Malformed.label(), "malformed");
    }

    #[test]
    fn garbage_is_refused() {
        let mut opener = Opener::new(&ring(1), RECEIVER);
        for size in 0..200 {
            let mut garbage = vec![0; size];
            OsEntropy.fill(&mut garbage);
            assert!(opener.open(&mut garbage).is_err());
        }
    }
}
