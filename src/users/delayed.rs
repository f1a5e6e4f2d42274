//! Logins that wait out a delay: few of one address at a time, and one of each name.
//!
//! Invariant: a credential that is turned away, and comes again soon, goes before all that came first after it. So strangers at an address,
//! whose guesses are new ones each time, keep nobody out who tries again: a place goes to the one that was there first, and it is taken from
//! the one that came last when there is none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::types::AddressGroup;

use super::failures::FailureKey;
use super::verified::Digest;

/// Of one address. They cost no more than their memory; but each is a guess when its delay is over, so that this and the longest delay
/// say how many guesses an address has.
pub(super) const DELAYED_PER_ADDRESS_MAX: usize = 16;
/// A credential that does not come again within this time has lost its turn: several times what a client pauses between two tries.
const TURN_KEPT_FOR: Duration = Duration::from_secs(30);
/// Bound on memory: about 3 MB. Beyond it those lose their turn that were not here for the longest time.
const TURNS_KEPT_MAX: usize = 16_384;

/// A credential, and where it comes from.
type Claim = (AddressGroup, Digest);

/// When a credential came first, as a place in the order of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn(u64);

struct Kept {
    turn: Turn,
    seen_at: Instant,
    /// Its place in `by_age`.
    age: u64,
}

struct Waiting {
    turn: Turn,
    id: u64,
    /// Dropped when another one takes its place.
    _stays: oneshot::Sender<()>,
}

#[derive(Default)]
struct Table {
    /// Turns, ages and ids are numbers of their own, and all from here.
    next_number: u64,
    waiting: BTreeMap<AddressGroup, BTreeMap<FailureKey, Waiting>>,
    kept: BTreeMap<Claim, Kept>,
    /// Every kept turn, the one that was claimed longest ago first.
    by_age: BTreeMap<u64, Claim>,
}

#[derive(Default)]
pub(super) struct Delayed {
    table: Arc<Mutex<Table>>,
}

/// Given back when dropped.
pub(super) struct DelaySlot {
    group: AddressGroup,
    key: FailureKey,
    id: u64,
    taken: oneshot::Receiver<()>,
    table: Arc<Mutex<Table>>,
}

impl Delayed {
    /// A place to wait at, if there is one or one that came later can be sent away. One without a digest is nobody's credential.
    pub fn try_enter(
        &self,
        key: FailureKey,
        group: AddressGroup,
        digest: Option<Digest>,
        now: Instant,
    ) -> Option<DelaySlot> {
        let mut table = self.table.lock();
        let turn = match digest {
            Some(digest) => table.claim((group, digest), now),
            None => Turn(table.number()),
        };
        let id = table.number();
        let waiting = table.waiting.entry(group).or_default();
        let rival = if waiting.contains_key(&key) {
            Some(key)
        } else if waiting.len() >= DELAYED_PER_ADDRESS_MAX {
            let youngest = waiting.iter().max_by_key(|(_, other)| other.turn);
            youngest.map(|(key, _)| *key)
        } else {
            None
        };
        if let Some(rival) = rival {
            if waiting.get(&rival).is_some_and(|other| other.turn <= turn) {
                return None;
            }
            waiting.remove(&rival);
        }
        let (stays, taken) = oneshot::channel();
        let entry = Waiting {
            turn,
            id,
            _stays: stays,
        };
        waiting.insert(key, entry);
        Some(DelaySlot {
            group,
            key,
            id,
            taken,
            table: self.table.clone(),
        })
    }

    /// The credential was checked: should it come again, it comes anew.
    pub fn give_up_turn(&self, group: AddressGroup, digest: Digest) {
        let mut table = self.table.lock();
        if let Some(kept) = table.kept.remove(&(group, digest)) {
            table.by_age.remove(&kept.age);
        }
    }
}

impl Table {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// The turn of a credential that is here now.
    fn claim(&mut self, claim: Claim, now: Instant) -> Turn {
        self.drop_old(now);
        let age = self.number();
        let turn = match self.kept.remove(&claim) {
            Some(kept) => {
                self.by_age.remove(&kept.age);
                kept.turn
            }
            None => Turn(age),
        };
        if self.kept.len() >= TURNS_KEPT_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.kept.remove(&oldest);
        }
        self.by_age.insert(age, claim);
        let kept = Kept {
            turn,
            seen_at: now,
            age,
        };
        self.kept.insert(claim, kept);
        turn
    }

    fn drop_old(&mut self, now: Instant) {
        while let Some((&age, claim)) = self.by_age.first_key_value() {
            let seen_at = self.kept.get(claim).map(|kept| kept.seen_at);
            if seen_at.is_some_and(|at| now.saturating_duration_since(at) < TURN_KEPT_FOR) {
                return;
            }
            self.kept.remove(claim);
            self.by_age.remove(&age);
        }
    }
}

impl DelaySlot {
    /// False when one that came first took the place meanwhile.
    pub async fn wait(mut self, delay: Duration) -> bool {
        tokio::select! {
            biased;
            _ = &mut self.taken => false,
            () = tokio::time::sleep(delay) => true,
        }
    }
}

impl Drop for DelaySlot {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        let Some(waiting) = table.waiting.get_mut(&self.group) else {
            return;
        };
        // Another one may have taken the place.
        if waiting.get(&self.key).is_some_and(|own| own.id == self.id) {
            waiting.remove(&self.key);
        }
        if waiting.is_empty() {
            table.waiting.remove(&self.group);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::os::OsEntropy;
    use crate::users::failures::Failures;
    use crate::users::verified::Verified;

    struct Rig {
        delayed: Delayed,
        failures: Failures,
        verified: Verified,
        group: AddressGroup,
        now: Instant,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                delayed: Delayed::default(),
                failures: Failures::new(&OsEntropy),
                verified: Verified::new(&OsEntropy),
                group: AddressGroup::of(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                now: Instant::now(),
            }
        }

        fn digest(&self, name: &str, password: &str) -> Digest {
            self.verified.digest(name, password).expect("lengths within limits")
        }

        fn enter(&self, name: &str, password: &str) -> Option<DelaySlot> {
            let key = self.failures.key(name, self.group);
            let digest = Some(self.digest(name, password));
            self.delayed.try_enter(key, self.group, digest, self.now)
        }

        /// As many as may wait, each of a name of its own.
        fn fill(&self) -> Vec<DelaySlot> {
            let names = (0..DELAYED_PER_ADDRESS_MAX).map(|number| number.to_string());
            names
                .map(|name| self.enter(&name, "x").expect("there is room"))
                .collect()
        }
    }

    fn is_taken(slot: &mut DelaySlot) -> bool {
        slot.taken.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn of_one_name_one_waits_and_whoever_came_first_is_not_sent_away() {
        let rig = Rig::new();
        let mut first = rig.enter("ann", "first").expect("there is room");
        assert!(rig.enter("ann", "second").is_none());
        assert!(!is_taken(&mut first));
        drop(first);
        // Who was turned away goes before who came first after that.
        let mut third = rig.enter("ann", "third").expect("there is room");
        let mut second = rig.enter("ann", "second").expect("it came before the third");
        assert!(is_taken(&mut third) && !is_taken(&mut second));
        drop(third);
        assert!(rig.enter("ann", "third").is_none(), "the second one still waits");
        drop(second);
        assert!(rig.delayed.table.lock().waiting.is_empty());
    }

    #[test]
    fn where_all_places_are_taken_the_one_that_came_last_goes() {
        let rig = Rig::new();
        let mut slots = rig.fill();
        assert!(rig.enter("ann", "right").is_none());
        slots.remove(0);
        slots.push(rig.enter("stranger", "x").expect("there is room"));
        let mut ann = rig.enter("ann", "right").expect("it came before the stranger");
        let taken: Vec<bool> = slots.iter_mut().map(is_taken).collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
        assert!(taken.ends_with(&[true]) && !is_taken(&mut ann));
    }

    #[test]
    fn a_turn_is_lost_when_the_credential_was_checked_or_did_not_come_again() {
        let mut rig = Rig::new();
        let mut slots = rig.fill();
        assert!(rig.enter("ann", "right").is_none() && rig.enter("bob", "right").is_none());
        rig.delayed.give_up_turn(rig.group, rig.digest("ann", "right"));
        slots.remove(0);
        slots.push(rig.enter("stranger", "x").expect("there is room"));
        assert!(rig.enter("ann", "right").is_none());
        rig.now += TURN_KEPT_FOR;
        assert!(rig.enter("bob", "right").is_none());
        let table = rig.delayed.table.lock();
        assert_eq!((table.kept.len(), table.by_age.len()), (1, 1));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let rig = Rig::new();
        let _slots = rig.fill();
        for number in 0..TURNS_KEPT_MAX + 100 {
            assert!(rig.enter("ann", &number.to_string()).is_none());
        }
        let table = rig.delayed.table.lock();
        assert_eq!((table.kept.len(), table.by_age.len()), (TURNS_KEPT_MAX, TURNS_KEPT_MAX));
    }
}
