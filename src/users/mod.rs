//! Users: who may use the store, kept in the store's own system key range, and the check of every request's credentials.
//!
//! | file | what it is |
//! | --- | --- |
//! | `record`, `history`, `record_store` | the records of a name, what they come to, and where they are kept |
//! | `adding`, `removal`, `changes`, `turns` | changing records, one at a time on each node |
//! | `verified`, `flights` | credentials that proved right, remembered; those being checked, shared |
//! | `first_admin` | the user that the start of a node gave |
//! | `login`, `hashing` | the check of any other credential; Argon2id |
//! | `failures`, `delayed`, `address` | how failed logins slow the next ones, and how many one address may have |
//!
//! Invariants:
//! - a credential is right only by the user's current record; what memory remembers of it is at most [`VERIFIED_AGE_MAX`] old
//!   and is dropped when the record changes, here or, as soon as that has come here, through another node;
//! - a wrong password and an unknown user take the same path: the same delay, the same queue, one Argon2id run, one answer;
//! - a name whose removal has begun can neither log in nor be added before everything under it is gone;
//! - who changes records, or goes away while it waits for that, takes a bounded part of the node;
//! - no name with control characters is given to anybody new; one that is there already is used, adopted and removed as any other;
//! - nothing that is stored is removed by adding a user, or by what is left of an earlier removal of the name.

mod adding;
mod address;
mod changes;
mod delayed;
mod failures;
mod first_admin;
mod flights;
mod hashing;
mod history;
mod login;
mod record;
mod record_store;
mod removal;
#[cfg(test)]
mod tests;
mod turns;
mod verified;

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::env::{Entropy, Env};
use crate::node::{Node, OpError};
use crate::types::{AddressGroup, LengthError, UserId};

use address::AddressBound;
use delayed::Delayed;
use failures::Failures;
use flights::Flights;
use hashing::Hashing;
use login::UnknownLogins;
use record_store::RecordStore;
use removal::Removals;
use turns::Turns;
use verified::{Lookup, Verified};

pub use first_admin::{AwaitedAdmin, Ensured};
pub use hashing::PasswordCost;
pub use login::UNKNOWN_MAX;
pub use verified::{Fingerprint, VERIFIED_AGE_MAX};

/// Who a request is from.
#[derive(Debug, Clone)]
pub struct Principal {
    pub user: UserId,
    pub admin: bool,
    /// The stored password that let it in.
    pub record: Fingerprint,
}

/// The same user with the same rights, by whichever password.
impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        (&self.user, self.admin) == (&other.user, other.admin)
    }
}

impl Eq for Principal {}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// One answer, in the same time, for a wrong password and an unknown user.
    #[error("Invalid user_id or password")]
    Invalid,
    /// It is not what this node knows, which cannot ask the others whether it is right by now. A wrong password and an unknown user are told
    /// alike here too.
    #[error(transparent)]
    CutOff(OpError),
    /// Too many credentials wait to be checked.
    #[error("too many logins at once; retry after {retry_after_s} s")]
    Busy { retry_after_s: u32 },
    #[error(transparent)]
    Store(#[from] OpError),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    #[error("user {0:?} exists already")]
    Exists(String),
    #[error("there is no user {0:?}")]
    Unknown(String),
    #[error("user {0:?} is the last admin")]
    LastAdmin(String),
    #[error(
        "something is stored under the name {0:?}, and there is no such user: `users remove` deletes it, `users add --keep-data` (`keep_data` in \
         the API) gives it to the new user"
    )]
    KeysLeft(String),
    #[error(
        "a node is away that may hold what an earlier user {0:?} stored: add the user when it is back, or with `users add --keep-data` \
         (`keep_data` in the API), which gives that to the new user"
    )]
    KeysUnknown(String),
    #[error("user {0:?} is being removed; add it again when that is done")]
    BeingRemoved(String),
    #[error(
        "user {0:?} is being changed by somebody else at this moment: look with `users list` what came of it, and try again"
    )]
    Contended(String),
    /// Who lists users would take it for another name, or for two.
    #[error("a new user's name has no control characters, and {0:?} has")]
    Name(String),
    #[error("password_hash {0}")]
    PasswordHash(LengthError),
    /// While the change waited for its turn, what let the asker in was changed.
    #[error(transparent)]
    Overtaken(AuthError),
    #[error(transparent)]
    Store(#[from] OpError),
}

/// What `users list` shows of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInfo {
    pub user: UserId,
    pub admin: bool,
}

/// The service; cheap to clone.
#[derive(Clone)]
pub struct Users {
    inner: Arc<Inner>,
    /// Who asks for what is changed through this; the node itself, if none.
    asker: Option<Principal>,
}

struct Inner {
    store: Box<dyn RecordStore>,
    entropy: Arc<dyn Entropy>,
    hashing: Hashing,
    verified: Verified,
    flights: Flights,
    /// Requests with credentials that are not remembered.
    unknown: UnknownLogins,
    failures: Mutex<Failures>,
    /// Logins that wait out a delay. Apart from those that wait for Argon2id, so that the delayed never crowd out the others.
    delayed: Delayed,
    /// Logins that wait for Argon2id or run it.
    waiting: AddressBound,
    removals: Removals,
    changes: Turns,
    /// The first admin, where it may not be made yet.
    awaited: Mutex<Option<UserId>>,
}

impl Users {
    /// Starts the service on a running node, within a tokio runtime. Removals that a crash cut short are resumed in the
    /// background, as soon as the node can tell of them.
    pub fn start(env: Env, node: Node, cost: PasswordCost) -> Self {
        let users = Self::start_on(env, Box::new(node.clone()), cost);
        let inner = Arc::downgrade(&users.inner);
        node.watch_system(Box::new(move |key| {
            if let (Some(inner), Some(user)) = (inner.upgrade(), record::user_of(key)) {
                inner.verified.forget(&user);
            }
        }));
        users
    }

    fn start_on(env: Env, store: Box<dyn RecordStore>, cost: PasswordCost) -> Self {
        let users = Self {
            inner: Arc::new(Inner {
                store,
                entropy: env.entropy.clone(),
                verified: Verified::new(&*env.entropy),
                failures: Mutex::new(Failures::new(&*env.entropy)),
                hashing: Hashing::new(env, cost),
                flights: Flights::default(),
                unknown: UnknownLogins::default(),
                delayed: Delayed::default(),
                waiting: AddressBound::new(login::WAITING_PER_ADDRESS_MAX),
                removals: Removals::default(),
                changes: Turns::default(),
                awaited: Mutex::default(),
            }),
            asker: None,
        };
        tokio::spawn(users.inner.clone().resume_removals());
        users
    }

    /// The same service for changes that `asker` asks for: each is refused if, when its turn has come, the password that let `asker` in is
    /// no longer in force.
    #[must_use]
    pub fn asked_by(&self, asker: &Principal) -> Self {
        Self {
            inner: self.inner.clone(),
            asker: Some(asker.clone()),
        }
    }

    /// Microseconds for a credential that was verified before; an Argon2id run otherwise.
    pub async fn verify(&self, user_id: &str, password_hash: &str, from: IpAddr) -> Result<Principal, AuthError> {
        let digest = self.inner.verified.digest(user_id, password_hash);
        let known = digest
            .as_ref()
            .map(|digest| self.inner.verified.look_up(user_id, digest, Instant::now()));
        let group = AddressGroup::of(from);
        let _place = match known {
            Some(Lookup::Fresh(principal)) => return Ok(principal),
            Some(Lookup::Stale(_)) => None,
            Some(Lookup::Unknown) | None => Some(self.inner.unknown.try_enter(group)?),
        };
        // Boxed, so that the usual case does not carry the unusual one's state.
        Box::pin(self.inner.verify_slowly(user_id, password_hash, digest, group)).await
    }
}
