//! Credentials that proved right, remembered so that checking them again costs no more than a hash of a few bytes.
//!
//! Invariants:
//! - neither a password nor anything it could be guessed from outside this process is kept: a digest under a random key is. It is SipHash-2-4 with
//!   128 bits (Aumasson and Bernstein, 2012), which was made for short texts: without the key nobody can tell, or find, what has which digest;
//! - a credential verified against a record that has since changed is never remembered: whoever verified it shows the epoch
//!   in which they began, and every change begins a new one.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, OptionsBuilder, UnitWeighter};
use siphasher::sip128::{Hasher128, SipHasher24};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::env::Entropy;
use crate::planted::{Bug, planted};
use crate::types::{PASSWORD_HASH_BYTES_MAX, USER_ID_BYTES_MAX, UserId};

use super::Principal;

/// How old the knowledge of a user's record may be before it is read again: another node may have changed it, and the change may be long
/// on its way here.
pub const VERIFIED_AGE_MAX: Duration = Duration::from_secs(60);
/// Users remembered: about 25 MB. One that is forgotten costs an Argon2id run when next seen.
const REMEMBERED_MAX: usize = 100_000;
/// Parts of the memory that are locked apart. Fixed, so that what is forgotten does not depend on the machine.
const SHARDS: usize = 16;

/// A credential, hashed under a key that no one outside this process knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digest(u128);

/// Tells one stored password from another. Each has a salt of its own, so the same password set again is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn of(argon2: &str) -> Self {
        Self(*blake3::hash(argon2.as_bytes()).as_bytes())
    }
}

#[derive(Clone)]
struct Entry {
    principal: Principal,
    digest: Digest,
    record_read_at: Instant,
}

pub(super) enum Lookup {
    Fresh(Principal),
    /// Right as of a record that was read too long ago: it holds if the record still has this fingerprint.
    Stale(Fingerprint),
    Unknown,
}

/// Counts the changes of records. A number of this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(u64);

pub(super) struct Verified {
    key: [u8; 16],
    entries: Cache<UserId, Entry, UnitWeighter, NameHashing>,
    epoch: Mutex<Epoch>,
}

impl Verified {
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut key = [0; 16];
        entropy.fill(&mut key);
        let hashing = NameHashing { seed: entropy.u64() };
        let mut options = OptionsBuilder::new();
        options
            .shards(SHARDS)
            .estimated_items_capacity(REMEMBERED_MAX)
            .weight_capacity(REMEMBERED_MAX as u64);
        let entries = match options.build() {
            Ok(options) => Cache::with_options(options, UnitWeighter, hashing, DefaultLifecycle::default()),
            Err(_) => Cache::with(
                REMEMBERED_MAX,
                REMEMBERED_MAX as u64,
                UnitWeighter,
                hashing,
                DefaultLifecycle::default(),
            ),
        };
        Self {
            key,
            entries,
            epoch: Mutex::new(Epoch(0)),
        }
    }

    /// `None` when either text has a length that no credential has.
    pub fn digest(&self, user: &str, password_hash: &str) -> Option<Digest> {
        let within = |text: &str, max| !text.is_empty() && text.len() <= max;
        if !within(user, USER_ID_BYTES_MAX) || !within(password_hash, PASSWORD_HASH_BYTES_MAX) {
            return None;
        }
        // The length keeps ("ab", "c") apart from ("a", "bc").
        let length = u16::try_from(user.len()).ok()?.to_le_bytes();
        let mut hasher = SipHasher24::new_with_key(&self.key);
        for part in [&length, user.as_bytes(), password_hash.as_bytes()] {
            hasher.write(part);
        }
        Some(Digest(hasher.finish128().as_u128()))
    }

    pub fn look_up(&self, user: &str, digest: &Digest, now: Instant) -> Lookup {
        let Some(entry) = self.entries.get(&Name(user)) else {
            return Lookup::Unknown;
        };
        if !bool::from(entry.digest.0.ct_eq(&digest.0)) && !planted(Bug::PasswordForgotten) {
            return Lookup::Unknown;
        }
        if now.saturating_duration_since(entry.record_read_at) < VERIFIED_AGE_MAX {
            Lookup::Fresh(entry.principal)
        } else {
            Lookup::Stale(entry.principal.record)
        }
    }

    /// To be taken before the record is read by which a credential is verified.
    pub fn epoch(&self) -> Epoch {
        *self.epoch.lock()
    }

    /// Remembers a credential that proved right; false when a record has changed since `epoch`, and the proof with it.
    pub fn remember(&self, epoch: Epoch, principal: &Principal, digest: Digest, read_at: Instant) -> bool {
        let current = self.epoch.lock();
        if *current != epoch {
            return false;
        }
        let entry = Entry {
            principal: principal.clone(),
            digest,
            record_read_at: read_at,
        };
        self.entries.insert(principal.user.clone(), entry);
        true
    }

    /// To be called when a record has changed: begins an epoch.
    pub fn forget(&self, user: &UserId) {
        let mut current = self.epoch.lock();
        current.0 += 1;
        self.entries.remove(&Name(user.as_str()));
    }
}

/// A user's name, to look it up without making a [`UserId`] of it.
#[derive(Hash)]
struct Name<'a>(&'a str);

impl Equivalent<UserId> for Name<'_> {
    fn equivalent(&self, user: &UserId) -> bool {
        self.0 == user.as_str()
    }
}

/// Seeded, so that nobody can choose names that collide.
#[derive(Clone)]
struct NameHashing {
    seed: u64,
}

struct NameHasher(u64);

impl BuildHasher for NameHashing {
    type Hasher = NameHasher;

    fn build_hasher(&self) -> NameHasher {
        NameHasher(self.seed)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::OsEntropy;

    fn ann() -> Principal {
        Principal {
            user: UserId::new("ann").expect("a short name"),
            admin: true,
            record: Fingerprint::of("a"),
        }
    }

    #[test]
    fn a_remembered_credential_is_fresh_then_stale_and_no_other_is_known() {
        let verified = Verified::new(&OsEntropy);
        let right = verified.digest("ann", "right").expect("lengths within limits");
        let wrong = verified.digest("ann", "wrong").expect("lengths within limits");
        let now = Instant::now();
        assert!(verified.remember(verified.epoch(), &ann(), right, now));
        assert!(matches!(verified.look_up("ann", &right, now), Lookup::Fresh(principal) if principal == ann()));
        assert!(matches!(verified.look_up("ann", &wrong, now), Lookup::Unknown));
        assert!(matches!(verified.look_up("bob", &right, now), Lookup::Unknown));
        let later = verified.look_up("ann", &right, now + VERIFIED_AGE_MAX);
        assert!(matches!(later, Lookup::Stale(print) if print == Fingerprint::of("a")));
    }

    #[test]
    fn what_was_verified_before_a_change_is_not_remembered() {
        let verified = Verified::new(&OsEntropy);
        let digest = verified.digest("ann", "right").expect("lengths within limits");
        let now = Instant::now();
        let before = verified.epoch();
        verified.forget(&ann().user);
        assert!(!verified.remember(before, &ann(), digest, now));
        assert!(verified.remember(verified.epoch(), &ann(), digest, now));
        verified.forget(&ann().user);
        assert!(matches!(verified.look_up("ann", &digest, now), Lookup::Unknown));
    }

    #[test]
    fn a_digest_depends_on_where_the_name_ends_and_on_the_process() {
        let (one, two) = (Verified::new(&OsEntropy), Verified::new(&OsEntropy));
        assert!(one.digest("ab", "c") != one.digest("a", "bc"));
        assert!(one.digest("ab", "c") == one.digest("ab", "c"));
        assert!(one.digest("ab", "c") != two.digest("ab", "c"));
    }

    #[test]
    fn texts_beyond_the_limits_have_no_digest() {
        let verified = Verified::new(&OsEntropy);
        let long = "x".repeat(USER_ID_BYTES_MAX.max(PASSWORD_HASH_BYTES_MAX) + 1);
        for (user, password_hash) in [("", "x"), ("x", ""), (&long, "x"), ("x", &long)] {
            assert!(verified.digest(user, password_hash).is_none());
        }
        let longest = ("x".repeat(USER_ID_BYTES_MAX), "y".repeat(PASSWORD_HASH_BYTES_MAX));
        assert!(verified.digest(&longest.0, &longest.1).is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let verified = Verified::new(&OsEntropy);
        let digest = Digest(0);
        for number in 0..REMEMBERED_MAX + 10_000 {
            let principal = Principal {
                user: UserId::new(&number.to_string()).expect("a short name"),
                admin: false,
                record: Fingerprint::of("a"),
            };
            verified.remember(verified.epoch(), &principal, digest, Instant::now());
        }
        assert!(verified.entries.len() <= REMEMBERED_MAX);
    }
}
