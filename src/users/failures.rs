//! How many logins failed lately for each user and address, and for each address over all users, and how long the next one has to wait
//! for it.
//!
//! Invariant: what is counted for one address never slows another, and no delay is longer than [`DELAY_MAX`]. So a stranger who guesses at
//! passwords slows only themselves and who shares their address, and never locks a user out. A right login takes back what was counted
//! for that user, but of its address only its own count: whoever has one password is not free to guess at the others.
//!
//! A login counts as failed from its beginning until it proves right, so that many tried at the same moment gain nothing. One that is given up
//! during its delay counts no more.
//! Names are kept as keyed hashes: a user that exists and one that does not look alike here.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::env::Entropy;
use crate::types::AddressGroup;

/// Failures that slow nothing: people mistype.
pub(super) const FAILURES_FREE: u32 = 3;
/// The same of one address over all users: many people may share it. More than can be under way at a time, each counted until it proves
/// right: right logins alone never slow anybody.
pub(super) const ADDRESS_FAILURES_FREE: u32 = 20;
const _: () = assert!(ADDRESS_FAILURES_FREE as usize > super::login::WAITING_PER_ADDRESS_MAX);
/// The delay after the first failure beyond those; it doubles with each further one.
pub(super) const DELAY_FIRST: Duration = Duration::from_millis(100);
/// The longest delay: a guesser gets few tries, and a person who remembers the password at last still waits for it.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(5);
/// One failure is forgotten each time this has passed.
pub(super) const FORGET_ONE_AFTER: Duration = Duration::from_secs(60);
/// The same of one address over all users, who mistype more often together than one does. Whoever guesses gains little by it: at the longest
/// delay an address has many more guesses in this time anyway.
const ADDRESS_FORGET_ONE_AFTER: Duration = Duration::from_secs(10);
/// Failures beyond the free ones and these change nothing: the delay has reached its maximum.
const FAILURES_SLOWER_MAX: u32 = 7;

#[derive(Clone, Copy)]
struct Limits {
    free: u32,
    forget_one_after: Duration,
}

const OF_NAME: Limits = Limits {
    free: FAILURES_FREE,
    forget_one_after: FORGET_ONE_AFTER,
};
const OF_ADDRESS: Limits = Limits {
    free: ADDRESS_FAILURES_FREE,
    forget_one_after: ADDRESS_FORGET_ONE_AFTER,
};

impl Limits {
    const fn counted_max(self) -> u32 {
        self.free + FAILURES_SLOWER_MAX
    }

    /// After this time even the most failures are forgotten.
    const fn forget_all_after(self) -> Duration {
        Duration::from_secs(self.forget_one_after.as_secs() * self.counted_max() as u64)
    }
}

/// Bound on memory: about 10 MB. Filling it takes that many Argon2id runs, many minutes' worth, and gains its sender only
/// that the oldest failures are forgotten.
const TRACKED_MAX: usize = 65_536;
/// Longer names cannot exist; what follows does not matter.
const NAME_BYTES_HASHED_MAX: usize = crate::types::USER_ID_BYTES_MAX + 1;

/// A user's name, hashed under a key of this process, and where the login comes from; without a name, all that come from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FailureKey {
    name: Option<[u8; 16]>,
    group: AddressGroup,
}

impl FailureKey {
    fn of_address(self) -> Self {
        Self { name: None, ..self }
    }

    fn limits(&self) -> Limits {
        match self.name {
            Some(_) => OF_NAME,
            None => OF_ADDRESS,
        }
    }
}

/// A login that is counted as failed, and where that added something.
#[must_use]
pub(super) struct Begun {
    key: FailureKey,
    of_name: bool,
    of_address: bool,
}

struct Entry {
    failures: u32,
    /// Up to when forgetting is already counted in `failures`.
    counted_until: Instant,
    /// Its place in `by_age`.
    age: u64,
}

pub(super) struct Failures {
    name_key: [u8; 32],
    entries: BTreeMap<FailureKey, Entry>,
    /// Every entry, the one that failed longest ago first.
    by_age: BTreeMap<u64, FailureKey>,
    next_age: u64,
    tracked_max: usize,
}

impl Failures {
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut name_key = [0; 32];
        entropy.fill(&mut name_key);
        Self {
            name_key,
            entries: BTreeMap::new(),
            by_age: BTreeMap::new(),
            next_age: 0,
            tracked_max: TRACKED_MAX,
        }
    }

    pub fn key(&self, user: &str, group: AddressGroup) -> FailureKey {
        let bytes = user.as_bytes();
        let bytes = bytes.get(..NAME_BYTES_HASHED_MAX).unwrap_or(bytes);
        let mut name = [0; 16];
        name.copy_from_slice(&blake3::keyed_hash(&self.name_key, bytes).as_bytes()[..16]);
        FailureKey {
            name: Some(name),
            group,
        }
    }

    /// How long a login that begins now has to wait.
    pub fn delay(&self, key: &FailureKey, now: Instant) -> Duration {
        self.delay_of(key, now).max(self.delay_of(&key.of_address(), now))
    }

    fn delay_of(&self, key: &FailureKey, now: Instant) -> Duration {
        let failures = self.entries.get(key).map_or(0, |entry| entry.failures_at(key, now).0);
        match failures.checked_sub(key.limits().free) {
            None => Duration::ZERO,
            Some(beyond) => DELAY_FIRST.saturating_mul(1 << beyond.min(16)).min(DELAY_MAX),
        }
    }

    /// Counts a login as failed; [`Self::undo`] or [`Self::forgive`] take it back.
    pub fn begin(&mut self, key: FailureKey, now: Instant) -> Begun {
        Begun {
            key,
            of_name: self.count(key, now),
            of_address: self.count(key.of_address(), now),
        }
    }

    /// False when there are so many that one more changes nothing.
    fn count(&mut self, key: FailureKey, now: Instant) -> bool {
        let (failures, counted_until) = match self.entries.remove(&key) {
            Some(entry) => {
                self.by_age.remove(&entry.age);
                entry.failures_at(&key, now)
            }
            None => (0, now),
        };
        self.make_room(now);
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, key);
        let counted = (failures + 1).min(key.limits().counted_max());
        let entry = Entry {
            failures: counted,
            // Forgetting starts with the first failure.
            counted_until: if failures == 0 { now } else { counted_until },
            age,
        };
        self.entries.insert(key, entry);
        counted > failures
    }

    fn take_back(&mut self, key: &FailureKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = entry.failures.saturating_sub(1);
            if entry.failures == 0 {
                self.remove(key);
            }
        }
    }

    fn remove(&mut self, key: &FailureKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_age.remove(&entry.age);
        }
    }

    /// The login that began was never decided: it does not count.
    pub fn undo(&mut self, begun: &Begun) {
        if begun.of_name {
            self.take_back(&begun.key);
        }
        if begun.of_address {
            self.take_back(&begun.key.of_address());
        }
    }

    /// The user proved to be who they say from this address: nothing is held against them.
    pub fn forgive(&mut self, begun: &Begun) {
        self.undo(begun);
        self.remove(&begun.key);
    }

    /// Drops what is forgotten anyway, and the oldest when that is not enough.
    fn make_room(&mut self, now: Instant) {
        while let Some((&age, key)) = self.by_age.first_key_value() {
            let forgotten = self.entries.get(key).is_none_or(|entry| {
                now.saturating_duration_since(entry.counted_until) >= key.limits().forget_all_after()
            });
            if !forgotten && self.entries.len() < self.tracked_max {
                return;
            }
            self.entries.remove(key);
            self.by_age.remove(&age);
        }
    }
}

impl Entry {
    /// Failures not yet forgotten, and up to when that has been counted.
    fn failures_at(&self, key: &FailureKey, now: Instant) -> (u32, Instant) {
        let forget_one_after = key.limits().forget_one_after;
        let passed = now.saturating_duration_since(self.counted_until);
        let forgotten = passed.as_secs() / forget_one_after.as_secs();
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX).min(self.failures);
        (
            self.failures - forgotten,
            self.counted_until + forget_one_after * forgotten,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::os::OsEntropy;

    fn group(last: u8) -> AddressGroup {
        AddressGroup::of(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))
    }

    fn delays(failures: &mut Failures, key: FailureKey, now: Instant, times: u32) -> Vec<u64> {
        (0..times)
            .map(|_| {
                let delay = failures.delay(&key, now).as_millis() as u64;
                let _ = failures.begin(key, now);
                delay
            })
            .collect()
    }

    #[test]
    fn the_delay_doubles_up_to_its_maximum_for_that_user_and_address_only() {
        let mut failures = Failures::new(&OsEntropy);
        let now = Instant::now();
        let key = failures.key("ann", group(1));
        let seen = delays(&mut failures, key, now, 12);
        assert_eq!(seen, [0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        let others = [failures.key("ann", group(2)), failures.key("bob", group(1))];
        assert!(others.iter().all(|other| failures.delay(other, now).is_zero()));
    }

    #[test]
    fn failures_are_forgotten_one_by_one() {
        let mut failures = Failures::new(&OsEntropy);
        let start = Instant::now();
        let key = failures.key("ann", group(1));
        delays(&mut failures, key, start, 5);
        assert_eq!(failures.delay(&key, start), Duration::from_millis(400));
        assert_eq!(
            failures.delay(&key, start + FORGET_ONE_AFTER),
            Duration::from_millis(200)
        );
        assert_eq!(failures.delay(&key, start + FORGET_ONE_AFTER * 3), Duration::ZERO);
        let _ = failures.begin(key, start + FORGET_ONE_AFTER);
        assert_eq!(
            failures.delay(&key, start + FORGET_ONE_AFTER),
            Duration::from_millis(400)
        );
    }

    #[test]
    fn an_undone_login_does_not_count_and_a_right_one_clears_the_rest() {
        let mut failures = Failures::new(&OsEntropy);
        let now = Instant::now();
        let key = failures.key("ann", group(1));
        let begun = failures.begin(key, now);
        failures.undo(&begun);
        assert!(failures.entries.is_empty() && failures.by_age.is_empty());
        delays(&mut failures, key, now, 9);
        let begun = failures.begin(key, now);
        failures.forgive(&begun);
        assert!(failures.delay(&key, now).is_zero());
        // Of its address only its own.
        let of_address = failures.entries.get(&key.of_address());
        assert_eq!(of_address.map(|entry| entry.failures), Some(9));
        assert_eq!((failures.entries.len(), failures.by_age.len()), (1, 1));
    }

    #[test]
    fn an_address_is_slowed_over_all_names_and_a_right_login_does_not_change_that() {
        let mut failures = Failures::new(&OsEntropy);
        let now = Instant::now();
        let names = || (0..ADDRESS_FAILURES_FREE + 20).map(|number| number.to_string());
        let mut seen = Vec::new();
        for name in names() {
            let key = failures.key(&name, group(1));
            seen.push(failures.delay(&key, now).as_millis() as u64);
            let _ = failures.begin(key, now);
        }
        let free = ADDRESS_FAILURES_FREE as usize;
        assert!(seen[..free].iter().all(|delay| *delay == 0));
        assert_eq!(seen[free..free + 8], [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let (here, there) = (failures.key("ann", group(1)), failures.key("ann", group(2)));
        for _ in 0..50 {
            let begun = failures.begin(here, now);
            failures.forgive(&begun);
            assert_eq!(failures.delay(&here, now), DELAY_MAX);
        }
        assert!(failures.delay(&there, now).is_zero());
        let later = now + ADDRESS_FORGET_ONE_AFTER * (FAILURES_SLOWER_MAX + 1);
        assert!(failures.delay(&here, later).is_zero());
    }

    #[test]
    fn the_table_forgets_the_oldest_when_it_is_full_and_the_forgotten_first() {
        let mut failures = Failures::new(&OsEntropy);
        // Two names, and their addresses.
        failures.tracked_max = 4;
        let now = Instant::now();
        let keys: Vec<_> = (0..4).map(|last| failures.key("ann", group(last))).collect();
        delays(&mut failures, keys[0], now, 4);
        delays(&mut failures, keys[1], now, 4);
        delays(&mut failures, keys[0], now, 1);
        let _ = failures.begin(keys[2], now);
        assert!(failures.entries.contains_key(&keys[0]) && !failures.entries.contains_key(&keys[1]));
        let _ = failures.begin(
            keys[3],
            now + OF_NAME.forget_all_after().max(OF_ADDRESS.forget_all_after()),
        );
        assert_eq!((failures.entries.len(), failures.by_age.len()), (2, 2));
    }
}
