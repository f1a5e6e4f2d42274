//! Names that every layer shares, and the limits of the system.
//!
//! Invariant: a `UserId`, `Key` or `RequestId` that exists is within its limit; nothing checks it again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest user name, in bytes of UTF-8.
pub const USER_ID_BYTES_MAX: usize = 256;
/// Longest `password_hash`, in bytes of UTF-8.
pub const PASSWORD_HASH_BYTES_MAX: usize = 256;
/// Longest `request_id`, in bytes of UTF-8.
pub const REQUEST_ID_BYTES_MAX: usize = 256;
/// Largest body of one HTTP request; so also the longest text that one op can carry.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest value that may be assembled from parts.
pub const VALUE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Most shards of a node: each has its own actor, log and memtables.
pub const SHARDS_MAX: u16 = 256;
/// Longest name of a zone or a cluster, in bytes of UTF-8: they travel with all gossip.
pub const CLUSTER_NAME_BYTES_MAX: usize = 64;
/// A node of the greatest weight gets a thousand times the data of one of the least, whose weight is 1.
pub const WEIGHT_MAX: u16 = 1000;

/// A text was empty or too long to be the thing it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {min} to {max} bytes long, got {got}")]
pub struct LengthError {
    pub min: usize,
    pub max: usize,
    pub got: usize,
}

/// For texts that a client sends: 1 to `max` bytes.
pub(crate) fn check_length(text: &str, max: usize) -> Result<(), LengthError> {
    if text.is_empty() || text.len() > max {
        return Err(LengthError {
            min: 1,
            max,
            got: text.len(),
        });
    }
    Ok(())
}

/// A user's name: 1 to [`USER_ID_BYTES_MAX`] bytes. [`UserId::system`] is the one exception: the empty name, which no
/// client can send, names the key space in which the store keeps its own records.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    pub fn new(text: &str) -> Result<Self, LengthError> {
        check_length(text, USER_ID_BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// A name as it stands on disk, where the empty one is the system's. The bound was checked when it was written.
    pub(crate) fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    pub fn system() -> Self {
        Self("".into())
    }

    pub fn is_system(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {:?}", self.as_str())
    }
}

/// A key: 1 to [`KEY_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    pub fn new(text: &str) -> Result<Self, LengthError> {
        check_length(text, KEY_BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:?}", self.as_str())
    }
}

/// What makes a retried request count once: 128 bits of BLAKE3 over the client's text, within one key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RequestId(pub [u8; 16]);

impl RequestId {
    pub fn new(text: &str) -> Result<Self, LengthError> {
        check_length(text, REQUEST_ID_BYTES_MAX)?;
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        Ok(Self(id))
    }
}

/// How many of a key's replicas must have done their part before a request is answered. With one replica all are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Consistency {
    One,
    /// More than half.
    #[default]
    Quorum,
    All,
}

impl Consistency {
    pub const ALL: [Self; 3] = [Self::One, Self::Quorum, Self::All];
    /// As the API and the command line write them, in the same order.
    pub const NAMES: [&'static str; 3] = ["one", "quorum", "all"];

    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Quorum => "quorum",
            Self::All => "all",
        }
    }

    /// How many of so many replicas that is.
    pub fn needed(self, replicas: usize) -> usize {
        match self {
            Self::One => replicas.min(1),
            Self::Quorum => (replicas / 2 + 1).min(replicas),
            Self::All => replicas,
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write one, quorum or all")]
pub struct NoConsistency;

impl std::str::FromStr for Consistency {
    type Err = NoConsistency;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|level| level.name() == text);
        found.ok_or(NoConsistency)
    }
}

/// A node of the cluster: a random number that its data folder keeps. Another folder is another node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {self}")
    }
}

/// Longest text that is looked at as the id of a node.
pub const NODE_ID_TEXT_BYTES_MAX: usize = 64;

impl std::str::FromStr for NodeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Milliseconds since the Unix epoch, as some wall clock claims. Never used to decide which op wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct WallMs(pub u64);

/// Addresses that count as one: a single IPv4 address, or an IPv6 /64, which is what one household or host is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressGroup {
    V4(Ipv4Addr),
    /// The upper 64 bits.
    V6(u64),
}

impl AddressGroup {
    pub fn of(address: IpAddr) -> Self {
        // A socket that takes both families shows IPv4 clients as ::ffff:a.b.c.d.
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_counts_by_address_and_ipv6_by_its_upper_half() {
        let group = |text: &str| AddressGroup::of(text.parse().expect("an address"));
        assert_ne!(group("10.0.0.1"), group("10.0.0.2"));
        assert_eq!(group("10.0.0.1"), group("::ffff:10.0.0.1"));
        assert_eq!(group("2001:db8:1:2::1"), group("2001:db8:1:2:ffff::9"));
        assert_ne!(group("2001:db8:1:2::1"), group("2001:db8:1:3::1"));
    }

    #[test]
    fn each_consistency_is_read_as_it_is_written() {
        assert_eq!(Consistency::ALL.map(Consistency::name), Consistency::NAMES);
        for level in Consistency::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert_eq!("Quorum".parse::<Consistency>(), Err(NoConsistency));
    }

    #[test]
    fn two_quorums_of_a_key_share_a_replica() {
        for replicas in 1..=7 {
            let quorum = Consistency::Quorum.needed(replicas);
            assert!(quorum * 2 > replicas && (quorum - 1) * 2 <= replicas);
            assert_eq!(
                (Consistency::One.needed(replicas), Consistency::All.needed(replicas)),
                (1, replicas)
            );
        }
    }
}
