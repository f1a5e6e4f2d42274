//! Changes of records, one at a time.
//!
//! Invariant: once begun, a change goes on to its end, whether or not the one who asked for it still waits: memory and store
//! would differ otherwise.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::node::OpError;
use crate::types::{LengthError, PASSWORD_HASH_BYTES_MAX, UserId};

use super::record::{self, Record, RecordError};
use super::{Inner, UserInfo, Users, UsersError};

/// Records in one page of a listing.
const PAGE_RECORDS: usize = 1000;
/// Records read at the same time, so that listing many users does not wait for each in turn.
const READS_AT_ONCE: usize = 16;

/// What [`Users::ensure_admin`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    Created,
    /// The user exists, with whatever password and right; nothing was changed.
    Present,
}

impl Users {
    pub async fn add(&self, user: &UserId, password_hash: &str, admin: bool) -> Result<(), UsersError> {
        let (inner, user) = (self.inner.clone(), user.clone());
        let password_hash = checked(password_hash)?;
        to_its_end(async move {
            let _turn = inner.changes.lock().await;
            inner.add(&user, password_hash, admin).await
        })
        .await
    }

    pub async fn set_password(&self, user: &UserId, password_hash: &str) -> Result<(), UsersError> {
        let (inner, user) = (self.inner.clone(), user.clone());
        let password_hash = checked(password_hash)?;
        to_its_end(async move {
            let _turn = inner.changes.lock().await;
            inner.set_password(&user, password_hash).await
        })
        .await
    }

    /// Removes the user and everything under their keys. When it fails with [`UsersError::Store`] after it had begun, it is
    /// carried on in the background.
    pub async fn remove(&self, user: &UserId) -> Result<(), UsersError> {
        let (inner, user) = (self.inner.clone(), user.clone());
        to_its_end(async move {
            let removal = {
                let _turn = inner.changes.lock().await;
                inner.begin_removal(&user).await?
            };
            Ok(inner.finish_removal(removal).await?)
        })
        .await
    }

    /// Every user but those being removed and those whose record is damaged, by name.
    pub async fn list(&self) -> Result<Vec<UserInfo>, UsersError> {
        Ok(self.inner.list().await?)
    }

    /// Makes the first admin; does nothing when a user of that name exists.
    pub async fn ensure_admin(&self, user: &UserId, password_hash: &str) -> Result<Ensured, UsersError> {
        match self.add(user, password_hash, true).await {
            Ok(()) => Ok(Ensured::Created),
            Err(UsersError::Exists(_)) => Ok(Ensured::Present),
            Err(error) => Err(error),
        }
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
    // The task fails only when the runtime goes down.
    tokio::spawn(change).await.unwrap_or(Err(OpError::ShuttingDown.into()))
}

fn unknown(user: &UserId) -> UsersError {
    UsersError::Unknown(user.as_str().to_owned())
}

fn being_removed(user: &UserId) -> UsersError {
    UsersError::BeingRemoved(user.as_str().to_owned())
}

fn damaged(user: &UserId, error: &RecordError) -> UsersError {
    OpError::Damaged(format!(
        "the record of user {:?}: {error}; remove the user and add it again",
        user.as_str()
    ))
    .into()
}

impl Inner {
    async fn add(&self, user: &UserId, password_hash: Box<[u8]>, admin: bool) -> Result<(), UsersError> {
        match self.read(user).await? {
            None => {}
            Some(Ok(Record::Removing)) => return Err(being_removed(user)),
            Some(Ok(Record::Active { .. }) | Err(_)) => return Err(UsersError::Exists(user.as_str().to_owned())),
        }
        // A request of a removed user that was still under way when their keys were cleared may have written after it.
        self.clear_keys(user).await?;
        let stored = self.hashing.hash(password_hash).await?;
        self.write(user, &Record::Active { stored, admin }).await
    }

    async fn set_password(&self, user: &UserId, password_hash: Box<[u8]>) -> Result<(), UsersError> {
        let admin = match self.read(user).await? {
            None => return Err(unknown(user)),
            Some(Ok(Record::Removing)) => return Err(being_removed(user)),
            Some(Err(error)) => return Err(damaged(user, &error)),
            Some(Ok(Record::Active { admin, .. })) => admin,
        };
        let stored = self.hashing.hash(password_hash).await?;
        self.write(user, &Record::Active { stored, admin }).await
    }

    async fn begin_removal(&self, user: &UserId) -> Result<super::removal::Removal, UsersError> {
        match self.read(user).await? {
            None => return Err(unknown(user)),
            Some(Ok(Record::Removing)) => return Err(being_removed(user)),
            Some(Ok(Record::Active { admin: true, .. })) if !self.has_other_admin(user).await? => {
                return Err(UsersError::LastAdmin(user.as_str().to_owned()));
            }
            // Removing is also how a damaged record is got rid of.
            Some(Ok(Record::Active { .. }) | Err(_)) => {}
        }
        self.write(user, &Record::Removing).await?;
        self.removals.begin(user).ok_or_else(|| being_removed(user))
    }

    /// Makes `record` the user's current one. To be called in turn only.
    async fn write(&self, user: &UserId, record: &Record) -> Result<(), UsersError> {
        let text = record.encode(user).map_err(|error| damaged(user, &error))?;
        let key = record::key_of(user).map_err(|_| unknown(user))?;
        let written = self.store.append(&key, text).await;
        // Also after an error: the record may have changed all the same.
        self.verified.forget(user);
        Ok(written?)
    }

    async fn has_other_admin(&self, user: &UserId) -> Result<bool, OpError> {
        let users = self.list().await?;
        Ok(users.iter().any(|other| other.admin && other.user != *user))
    }

    async fn list(&self) -> Result<Vec<UserInfo>, OpError> {
        stream::iter(self.names().await?)
            .map(|user| async move {
                let record = self.read(&user).await?;
                Ok(match record {
                    Some(Ok(Record::Active { admin, .. })) => Some(UserInfo { user, admin }),
                    Some(Ok(Record::Removing) | Err(_)) | None => None,
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
