//! Changes of records, one at a time on each node. What others change at the same moment is for `adding` and `removal` to see to.
//!
//! Invariant: once begun, a change goes on to its end, whether or not the one who asked for it still waits: memory and store
//! would differ otherwise.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::node::OpError;
use crate::types::{LengthError, PASSWORD_HASH_BYTES_MAX, UserId};

use super::adding::Stored;
use super::history::{History, Standing};
use super::record::{self, Record, RecordError};
use super::record_store::Sight;
use super::{AuthError, Fingerprint, Inner, Principal, UserInfo, Users, UsersError};

/// Records in one page of a listing.
const PAGE_RECORDS: usize = 1000;
/// Records read at the same time, so that listing many users does not wait for each in turn.
const READS_AT_ONCE: usize = 16;

impl Users {
    /// Adds a user. Of those who add one name at the same time at most one is told that it was done. Refused while anything is stored under
    /// the name.
    pub async fn add(&self, user: &UserId, password_hash: &str, admin: bool) -> Result<(), UsersError> {
        self.add_with(user, password_hash, admin, Stored::Refused).await
    }

    /// The same, and what is stored under the name is the new user's.
    pub async fn adopt(&self, user: &UserId, password_hash: &str, admin: bool) -> Result<(), UsersError> {
        self.add_with(user, password_hash, admin, Stored::Adopted).await
    }

    async fn add_with(&self, user: &UserId, password_hash: &str, admin: bool, kept: Stored) -> Result<(), UsersError> {
        let (inner, asker, user) = (self.inner.clone(), self.asker.clone(), user.clone());
        let password_hash = checked(password_hash)?;
        let place = inner.changes.enter(&user)?;
        to_its_end(async move {
            let _turn = place.turn().await;
            inner.check_asker(asker.as_ref()).await?;
            inner.add(&user, password_hash, admin, kept).await
        })
        .await
    }

    pub async fn set_password(&self, user: &UserId, password_hash: &str) -> Result<(), UsersError> {
        let (inner, asker, user) = (self.inner.clone(), self.asker.clone(), user.clone());
        let password_hash = checked(password_hash)?;
        let place = inner.changes.enter(&user)?;
        to_its_end(async move {
            let _turn = place.turn().await;
            inner.check_asker(asker.as_ref()).await?;
            inner.set_password(&user, password_hash).await
        })
        .await
    }

    /// Removes the user and everything under their keys. When it fails with [`UsersError::Store`] after it had begun, it is
    /// carried on in the background. Of those who remove one user at the same time one is told that it was done, the others that it is
    /// being done; two where their marks came on their way past each other.
    pub async fn remove(&self, user: &UserId) -> Result<(), UsersError> {
        let (inner, asker, user) = (self.inner.clone(), self.asker.clone(), user.clone());
        let place = inner.changes.enter(&user)?;
        to_its_end(async move {
            let begun = {
                let _turn = place.turn().await;
                inner.check_asker(asker.as_ref()).await?;
                inner.begin_removal(&user).await
            };
            match begun {
                Ok(removal) => inner.finish_removal(removal).await.map_err(doubted),
                Err(error) => {
                    if matches!(error, UsersError::Store(_) | UsersError::BeingRemoved(_)) {
                        // The user may be marked, and would be neither there nor gone; or is, by a node that died over it.
                        tokio::spawn(inner.resume_removal(user));
                    }
                    Err(error)
                }
            }
        })
        .await
    }

    /// Every user but those being removed and those whose record is damaged, by name.
    pub async fn list(&self) -> Result<Vec<UserInfo>, UsersError> {
        Ok(self.inner.list().await?)
    }

    /// Whether there is no record of any user, not even a damaged one.
    pub async fn is_empty(&self) -> Result<bool, UsersError> {
        Ok(self.inner.store.list_records(None, 1).await?.keys.is_empty())
    }
}

fn checked(password_hash: &str) -> Result<Box<[u8]>, UsersError> {
    let got = password_hash.len();
    if got == 0 || got > PASSWORD_HASH_BYTES_MAX {
        return Err(UsersError::PasswordHash(LengthError {
            min: 1,
            max: PASSWORD_HASH_BYTES_MAX,
            got,
        }));
    }
    Ok(password_hash.as_bytes().into())
}

async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, UsersError>> + Send + 'static,
) -> Result<T, UsersError> {
    // The task fails only when the runtime goes down, or where it panicked: in the middle of the change.
    let half_done = OpError::ShardUnavailable { maybe_applied: true };
    tokio::spawn(change).await.unwrap_or(Err(half_done.into()))
}

pub(super) fn unknown(user: &UserId) -> UsersError {
    UsersError::Unknown(user.as_str().to_owned())
}

pub(super) fn being_removed(user: &UserId) -> UsersError {
    UsersError::BeingRemoved(user.as_str().to_owned())
}

pub(super) fn last_admin(user: &UserId) -> UsersError {
    UsersError::LastAdmin(user.as_str().to_owned())
}

pub(super) fn contended(user: &UserId) -> UsersError {
    UsersError::Contended(user.as_str().to_owned())
}

/// Of a change that was begun.
pub(super) fn doubted(error: UsersError) -> UsersError {
    match error {
        UsersError::Store(error) => {
            tracing::warn!(%error, "a change of a user was begun, and what came of it is in doubt");
            error.doubted().into()
        }
        error => error,
    }
}

pub(super) fn damaged(user: &UserId, error: &RecordError) -> UsersError {
    OpError::Damaged(format!(
        "the record of user {:?}: {error}; an admin's `users passwd` makes a new one, `users remove` removes the user with all data",
        user.as_str()
    ))
    .into()
}

impl Inner {
    /// That the password which let the asker in is still in force. Others may have had their turn since, and have reset a password that was
    /// stolen: who asked with that one, and waited, must not have the last word. To be called in turn only.
    async fn check_asker(&self, asker: Option<&Principal>) -> Result<(), UsersError> {
        let Some(asker) = asker else {
            return Ok(());
        };
        match self.history(&asker.user, Sight::Quorum).await?.standing() {
            Standing::Active { stored, .. } if Fingerprint::of(stored.as_str()) == asker.record => Ok(()),
            _ => Err(UsersError::Overtaken(AuthError::Invalid)),
        }
    }

    async fn set_password(&self, user: &UserId, password_hash: Box<[u8]>) -> Result<(), UsersError> {
        let history = self.history(user, Sight::Quorum).await?;
        let (life, admin) = match history.standing() {
            Standing::None => return Err(unknown(user)),
            Standing::Removing { .. } => return Err(being_removed(user)),
            // A newer program can read it.
            Standing::Damaged(error @ RecordError::Version(_)) => return Err(damaged(user, error)),
            Standing::Damaged(_) => history.last_known(),
            Standing::Active { life, admin, .. } => (life.to_owned(), admin),
        };
        let stored = self.hashing.hash(password_hash).await?;
        let active = Record::Active {
            life: life.clone(),
            stored,
            admin,
        };
        self.write(user, &active).await?;
        match self.history_after(user).await?.standing() {
            // Removed meanwhile.
            Standing::None => Err(unknown(user)),
            // And added anew: what was written is of a life that is over.
            Standing::Active { life: now, .. } if now != life => Err(contended(user)),
            Standing::Active { .. } | Standing::Removing { .. } | Standing::Damaged(_) => Ok(()),
        }
    }

    /// What the records come to after what was written: if that cannot be told, the change may have been made all the same.
    pub(super) async fn history_after(&self, user: &UserId) -> Result<History, UsersError> {
        let history = self.history(user, Sight::Quorum).await;
        history.map_err(|error| doubted(error.into()))
    }

    /// Adds a record of the user. To be called in turn only.
    pub(super) async fn write(&self, user: &UserId, record: &Record) -> Result<(), UsersError> {
        let text = record.encode(user).map_err(|error| damaged(user, &error))?;
        let key = record::key_of(user).map_err(|_| unknown(user))?;
        let written = self.store.append(&key, text).await;
        // Also after an error: the record may have changed all the same.
        self.verified.forget(user);
        Ok(written?)
    }

    /// A number that nobody had before.
    pub(super) fn new_id(&self) -> String {
        format!("{:016x}", self.entropy.u64())
    }

    pub(super) async fn has_other_admin(&self, user: &UserId) -> Result<bool, OpError> {
        let users = self.list().await?;
        Ok(users.iter().any(|other| other.admin && other.user != *user))
    }

    async fn list(&self) -> Result<Vec<UserInfo>, OpError> {
        stream::iter(self.names().await?)
            .map(|user| async move {
                Ok(match self.history(&user, Sight::Quorum).await?.standing() {
                    Standing::Active { admin, .. } => Some(UserInfo { user, admin }),
                    Standing::Removing { .. } | Standing::Damaged(_) | Standing::None => None,
                })
            })
            .buffered(READS_AT_ONCE)
            .try_filter_map(|user| async move { Ok(user) })
            .try_collect()
            .await
    }

    /// The names of all records.
    pub(super) async fn names(&self) -> Result<Vec<UserId>, OpError> {
        let mut names = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list_records(after.as_deref(), PAGE_RECORDS).await?;
            names.extend(page.keys.iter().filter_map(record::user_of));
            after = page.next_after.map(|key| key.as_str().to_owned());
            if after.is_none() {
                return Ok(names);
            }
        }
    }
}
