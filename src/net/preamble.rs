//! What both sides of a new stream say in the clear, before anything is secret: which versions of the protocol they speak and which key
//! they mean. The shape of these bytes is the one thing that no version may change.
//!
//! ```text
//! first (who connects):   magic 4 | lowest version 2 | highest version 2 | key id 8
//! answer (who accepts):   magic 4 | verdict 1 | lowest version 2 | highest version 2 | agreed version 2
//! ```
//!
//! Integers are little-endian. The first is bound into the handshake as Noise's prologue. The agreed version is said again inside the
//! encrypted answer, so whoever changes one on the way only ends the handshake.

use super::key::KeyId;

pub const FIRST_BYTES: usize = 4 /* magic */ + 2 /* lowest */ + 2 /* highest */ + 8 /* key id */;
pub const ANSWER_BYTES: usize = 4 /* magic */ + 1 /* verdict */ + 2 /* lowest */ + 2 /* highest */ + 2 /* agreed */;

/// They differ, so that a side that hears itself does not take that for a peer.
const FIRST_MAGIC: [u8; 4] = *b"kvp>";
pub const ANSWER_MAGIC: [u8; 4] = *b"kvp<";

/// Versions of the protocol that a node speaks, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub lowest: u16,
    pub highest: u16,
}

impl Versions {
    pub fn only(version: u16) -> Self {
        Self {
            lowest: version,
            highest: version,
        }
    }

    /// The highest that both speak.
    pub fn agree(self, other: Self) -> Option<u16> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(highest)
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.lowest, self.highest)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    pub versions: Versions,
    pub key: KeyId,
}

impl First {
    pub fn encode(&self) -> [u8; FIRST_BYTES] {
        let mut bytes = [0; FIRST_BYTES];
        bytes[..4].copy_from_slice(&FIRST_MAGIC);
        bytes[4..6].copy_from_slice(&self.versions.lowest.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.versions.highest.to_le_bytes());
        bytes[8..].copy_from_slice(&self.key.0);
        bytes
    }

    /// Nothing, if it is not of this protocol.
    pub fn decode(bytes: &[u8; FIRST_BYTES]) -> Option<Self> {
        let key = KeyId(std::array::from_fn(|at| bytes[8 + at]));
        let versions = Versions {
            lowest: u16::from_le_bytes([bytes[4], bytes[5]]),
            highest: u16::from_le_bytes([bytes[6], bytes[7]]),
        };
        bytes.starts_with(&FIRST_MAGIC).then_some(Self { versions, key })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// On with the handshake, in this version.
    Agreed(u16),
    NoCommonVersion,
    UnknownKey,
    /// The key's id is known, but what came was not sealed with the key.
    NotAuthentic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    /// Those of who answers.
    pub versions: Versions,
}

impl Answer {
    pub fn encode(&self) -> [u8; ANSWER_BYTES] {
        let (code, agreed) = match self.verdict {
            Verdict::Agreed(version) => (0, version),
            Verdict::NoCommonVersion => (1, 0),
            Verdict::UnknownKey => (2, 0),
            Verdict::NotAuthentic => (3, 0),
        };
        let mut bytes = [0; ANSWER_BYTES];
        bytes[..4].copy_from_slice(&ANSWER_MAGIC);
        bytes[4] = code;
        bytes[5..7].copy_from_slice(&self.versions.lowest.to_le_bytes());
        bytes[7..9].copy_from_slice(&self.versions.highest.to_le_bytes());
        bytes[9..11].copy_from_slice(&agreed.to_le_bytes());
        bytes
    }

    /// Nothing, if it is not of this protocol.
    pub fn decode(bytes: &[u8; ANSWER_BYTES]) -> Option<Self> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let verdict = match bytes[4] {
            0 => Verdict::Agreed(u16_at(9)),
            1 => Verdict::NoCommonVersion,
            2 => Verdict::UnknownKey,
            3 => Verdict::NotAuthentic,
            _ => return None,
        };
        let versions = Versions {
            lowest: u16_at(5),
            highest: u16_at(7),
        };
        bytes.starts_with(&ANSWER_MAGIC).then_some(Self { verdict, versions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(lowest: u16, highest: u16) -> Versions {
        Versions { lowest, highest }
    }

    #[test]
    fn the_highest_common_version_is_agreed_on() {
        assert_eq!(versions(1, 3).agree(versions(1, 3)), Some(3));
        assert_eq!(versions(1, 3).agree(versions(2, 9)), Some(3));
        assert_eq!(versions(3, 5).agree(versions(1, 3)), Some(3));
        assert_eq!(versions(4, 5).agree(versions(1, 3)), None);
        assert_eq!(versions(5, 4).agree(versions(1, 9)), None);
    }

    #[test]
    fn both_sides_survive_their_bytes_which_never_change() {
        let first = First {
            versions: versions(1, 0x0203),
            key: KeyId([1, 2, 3, 4, 5, 6, 7, 8]),
        };
        assert_eq!(First::decode(&first.encode()), Some(first));
        assert_eq!(&first.encode(), b"kvp>\x01\x00\x03\x02\x01\x02\x03\x04\x05\x06\x07\x08");
        let answer = |verdict| Answer {
            verdict,
            versions: versions(1, 0x0203),
        };
        for verdict in [
            Verdict::Agreed(7),
            Verdict::NoCommonVersion,
            Verdict::UnknownKey,
            Verdict::NotAuthentic,
        ] {
            assert_eq!(Answer::decode(&answer(verdict).encode()), Some(answer(verdict)));
        }
        let agreed = answer(Verdict::Agreed(7)).encode();
        assert_eq!(&agreed, b"kvp<\x00\x01\x00\x03\x02\x07\x00");
    }

    #[test]
    fn other_protocols_are_not_taken_for_this_one() {
        assert_eq!(First::decode(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(Answer::decode(b"HTTP/1.1 40"), None);
        assert_eq!(Answer::decode(b"kvp<\x09\x01\x00\x03\x02\x07\x00"), None);
        let mut own = [0; ANSWER_BYTES];
        let first = First {
            versions: versions(1, 1),
            key: KeyId([0; 8]),
        };
        own.copy_from_slice(&first.encode()[..ANSWER_BYTES]);
        assert_eq!(Answer::decode(&own), None);
    }
}
