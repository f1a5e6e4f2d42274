//! The check of a credential that is not remembered: wait out what failed before, queue, run Argon2id, remember.
//!
//! Invariants:
//! - up to the answer, nothing here depends on whether the user exists, but for the read of the record;
//! - cut off from the others, a node lets in whom it knows, and refuses nobody for good: a new user or a new password may not have come here yet;
//! - who goes away during the delay has neither failed nor cost anything. Who has a place in the queue is checked, also when nobody waits for it
//!   any more: a right password is remembered, and a wrong one counts. A client that gives up early and comes again gets in, and gains nothing.

use std::sync::Arc;

use tokio::time::Instant;

use crate::node::OpError;
use crate::quota::{Quota, Share};
use crate::types::{AddressGroup, UserId};

use super::address::{AddressBound, AddressSlot};
use super::failures::{Begun, FailureKey};
use super::flights::FlightKey;
use super::hashing::{Place, StoredHash};
use super::history::{History, Standing};
use super::record::{self, Record};
use super::record_store::Sight;
use super::verified::{Digest, Epoch, Fingerprint, Lookup};
use super::{AuthError, Inner, Principal};

/// Logins of one address that wait for Argon2id or run it: a quarter of the queue, so that no single one fills it.
pub(super) const WAITING_PER_ADDRESS_MAX: usize = super::hashing::QUEUE_MAX / 4;
/// When it is worth while to try again: a good part of a full queue is done by then.
const RETRY_AFTER_S: u32 = 1;

const BUSY: AuthError = AuthError::Busy {
    retry_after_s: RETRY_AFTER_S,
};

/// Requests whose credential is not remembered, and which wait to know whether it is right. Any number of them may share one check, but each
/// holds what a request holds: half of the requests that the front takes (`FrontConfig::requests_in_flight_max`), and half of those for one
/// address, so that neither who is remembered nor who logs in from elsewhere is kept out.
pub const UNKNOWN_MAX: usize = 2048;
pub(super) const UNKNOWN_PER_ADDRESS_MAX: usize = UNKNOWN_MAX / 2;

/// The places of such requests.
pub(super) struct UnknownLogins {
    all: Quota,
    of_address: AddressBound,
}

impl Default for UnknownLogins {
    fn default() -> Self {
        Self {
            all: Quota::new(UNKNOWN_MAX),
            of_address: AddressBound::new(UNKNOWN_PER_ADDRESS_MAX),
        }
    }
}

impl UnknownLogins {
    /// Held until it is known whether the credential is right.
    pub fn try_enter(&self, group: AddressGroup) -> Result<(AddressSlot, Share), AuthError> {
        let slot = self.of_address.try_enter(group).ok_or(BUSY)?;
        Ok((slot, self.all.take(1).ok_or(BUSY)?))
    }
}

/// A credential that could be right.
struct Credential {
    user: UserId,
    password_hash: Box<[u8]>,
    digest: Digest,
}

/// A user's record as it was found.
struct Current {
    principal: Principal,
    stored: StoredHash,
}

/// What is known of a name.
pub(super) struct Sighted {
    pub history: History,
    /// Why this is what this node alone knows.
    pub cut_off: Option<OpError>,
}

/// A login that is counted as failed; not any more if this is dropped before it was decided.
struct Counted {
    inner: Arc<Inner>,
    begun: Option<Begun>,
}

impl Counted {
    fn begin(inner: &Arc<Inner>, key: FailureKey, now: Instant) -> Self {
        Self {
            inner: inner.clone(),
            begun: Some(inner.failures.lock().begin(key, now)),
        }
    }

    fn proved_right(mut self) {
        if let Some(begun) = self.begun.take() {
            self.inner.failures.lock().forgive(&begun);
        }
    }

    /// It stays counted.
    fn proved_wrong(mut self) {
        self.begun = None;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.inner.failures.lock().undo(&begun);
        }
    }
}

impl Inner {
    pub(super) async fn verify_slowly(
        self: &Arc<Self>,
        user_id: &str,
        password_hash: &str,
        digest: Option<Digest>,
        group: AddressGroup,
    ) -> Result<Principal, AuthError> {
        let key = self.failures.lock().key(user_id, group);
        let (Some(digest), Ok(user)) = (digest, UserId::new(user_id)) else {
            // No user has such a name or password. The work is done all the same, so that it takes the same time.
            return self.counted(key, group, None, None).await;
        };
        let credential = Credential {
            user,
            password_hash: password_hash.as_bytes().into(),
            digest,
        };
        let (inner, flight) = (self.clone(), (digest, group, self.verified.epoch()));
        let check = async move {
            match inner.renew(&credential).await? {
                Some(principal) => Ok(principal),
                None => inner.counted(key, group, Some(credential), Some(flight)).await,
            }
        };
        self.flights.join(flight, check).await
    }

    /// For a credential that is remembered, but from a record read too long ago: reads it again, without Argon2id. `None`
    /// when the credential is not remembered, or the record has changed.
    async fn renew(&self, credential: &Credential) -> Result<Option<Principal>, AuthError> {
        loop {
            let (epoch, now) = (self.verified.epoch(), Instant::now());
            let remembered = match self.verified.look_up(credential.user.as_str(), &credential.digest, now) {
                Lookup::Fresh(principal) => return Ok(Some(principal)),
                Lookup::Stale(fingerprint) => fingerprint,
                Lookup::Unknown => return Ok(None),
            };
            let (current, _) = self.current(&credential.user).await?;
            let Some(current) = current.filter(|current| current.principal.record == remembered) else {
                return Ok(None);
            };
            if self.remember(epoch, credential, &current, now) {
                return Ok(Some(current.principal));
            }
        }
    }

    /// Checks a credential, counting it as failed until it proves right.
    async fn counted(
        self: &Arc<Self>,
        key: FailureKey,
        group: AddressGroup,
        credential: Option<Credential>,
        flight: Option<FlightKey>,
    ) -> Result<Principal, AuthError> {
        let digest = credential.as_ref().map(|credential| credential.digest);
        let (place, counted) = self.wait_for_place(key, group, digest).await?;
        let (inner, flight) = (self.clone(), flight.and_then(|key| self.flights.under_way(&key)));
        let decided = tokio::spawn(async move {
            // Who gave up and comes again joins it.
            let _kept_to_the_end = flight;
            let outcome = inner.check(credential.as_ref(), place).await;
            match &outcome {
                Ok(_) => counted.proved_right(),
                Err(AuthError::Invalid | AuthError::CutOff(_)) => counted.proved_wrong(),
                Err(AuthError::Busy { .. } | AuthError::Store(_)) => return outcome,
            }
            if let Some(digest) = digest {
                inner.delayed.give_up_turn(group, digest);
            }
            outcome
        });
        decided.await.unwrap_or(Err(OpError::ShuttingDown.into()))
    }

    /// A place in the queue, after the delay that earlier failures impose. Who gets one is counted as failed from now on.
    async fn wait_for_place(
        self: &Arc<Self>,
        key: FailureKey,
        group: AddressGroup,
        digest: Option<Digest>,
    ) -> Result<(Place, Counted), AuthError> {
        let now = Instant::now();
        let delay = self.failures.lock().delay(&key, now);
        if delay.is_zero() {
            let place = self.enter_queue(group)?;
            return Ok((place, Counted::begin(self, key, now)));
        }
        let slot = self.delayed.try_enter(key, group, digest, now).ok_or(BUSY)?;
        let counted = Counted::begin(self, key, now);
        match slot.wait(delay).await {
            true => Ok((self.enter_queue(group)?, counted)),
            false => Err(BUSY),
        }
    }

    fn enter_queue(&self, group: AddressGroup) -> Result<Place, AuthError> {
        let slot = self.waiting.try_enter(group).ok_or(BUSY)?;
        self.hashing.try_enter(slot).ok_or(BUSY)
    }

    async fn check(&self, credential: Option<&Credential>, place: Place) -> Result<Principal, AuthError> {
        let Some(credential) = credential else {
            self.hashing.check(Box::default(), None, place).await?;
            return Err(AuthError::Invalid);
        };
        let (mut epoch, mut read_at) = (self.verified.epoch(), Instant::now());
        let (current, mut cut_off) = self.current(&credential.user).await?;
        let stored = current.as_ref().map(|current| current.stored.clone());
        let right = self
            .hashing
            .check(credential.password_hash.clone(), stored, place)
            .await?;
        let refused = |cut_off: Option<OpError>| cut_off.map_or(AuthError::Invalid, AuthError::CutOff);
        let Some(mut current) = current.filter(|_| right) else {
            return Err(refused(cut_off));
        };
        // Records may have changed while Argon2id ran: what was proven counts only by the record of now.
        while !self.remember(epoch, credential, &current, read_at) {
            (epoch, read_at) = (self.verified.epoch(), Instant::now());
            let (newer, now_cut_off) = self.current(&credential.user).await?;
            cut_off = now_cut_off;
            match newer {
                Some(newer) if newer.stored.as_str() == current.stored.as_str() => current = newer,
                _ => return Err(refused(cut_off)),
            }
        }
        Ok(current.principal)
    }

    fn remember(&self, epoch: Epoch, credential: &Credential, current: &Current, read_at: Instant) -> bool {
        self.verified
            .remember(epoch, &current.principal, credential.digest, read_at)
    }

    /// The user's record, if by it anybody may log in; and why no other node was asked, if so.
    async fn current(&self, user: &UserId) -> Result<(Option<Current>, Option<OpError>), AuthError> {
        let sighted = self.sighted(user).await?;
        let current = match sighted.history.standing() {
            Standing::Active { stored, admin, .. } => Some(Current {
                principal: Principal {
                    user: user.clone(),
                    admin,
                    record: Fingerprint::of(stored.as_str()),
                },
                stored: stored.clone(),
            }),
            // A damaged record is told of where it is read. Its user is refused; others go on.
            Standing::Removing { .. } | Standing::Damaged(_) | Standing::None => None,
        };
        Ok((current, sighted.cut_off))
    }

    /// What a quorum knows of the name; this node alone, where no quorum answers.
    pub(super) async fn sighted(&self, user: &UserId) -> Result<Sighted, OpError> {
        let (history, cut_off) = match self.history(user, Sight::Quorum).await {
            Err(cut_off @ (OpError::Quorum { .. } | OpError::NotReady(_) | OpError::Deadline { .. })) => {
                (self.history(user, Sight::Own).await?, Some(cut_off))
            }
            of_quorum => (of_quorum?, None),
        };
        Ok(Sighted { history, cut_off })
    }

    pub(super) async fn history(&self, user: &UserId, sight: Sight) -> Result<History, OpError> {
        let mut history = History::default();
        let Ok(key) = record::key_of(user) else {
            return Ok(history);
        };
        for text in self.store.records(&key, sight).await? {
            history.push(Record::decode(user, &text));
        }
        if let Standing::Damaged(error) = history.standing() {
            tracing::error!(
                user = user.as_str(), %error,
                "the record of this user is unusable: the user is refused until an admin gives it a new password with `users passwd`"
            );
        }
        Ok(history)
    }
}
