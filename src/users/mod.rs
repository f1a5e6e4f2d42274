//! Users: who may use the store, kept in the store's own system key range, and the check of every request's credentials.

use std::net::IpAddr;

use crate::node::OpError;
use crate::types::UserId;

/// Who a request is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub user: UserId,
    pub admin: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// One answer, in the same time, for a wrong password and an unknown user.
    #[error("Invalid user_id or password")]
    Invalid,
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
    #[error("user {0:?} is being removed; add it again when that is done")]
    BeingRemoved(String),
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
pub struct Users {}

impl Users {
    /// Microseconds for a credential that was verified before; an Argon2id run otherwise.
    pub async fn verify(&self, user_id: &str, password_hash: &str, from: IpAddr) -> Result<Principal, AuthError> {
        let _ = (user_id, password_hash, from);
        Err(AuthError::Invalid)
    }

    pub async fn add(&self, user: &UserId, password_hash: &str, admin: bool) -> Result<(), UsersError> {
        let _ = (user, password_hash, admin);
        Err(UsersError::Store(OpError::ShuttingDown))
    }

    /// Removes the user and everything under their keys.
    pub async fn remove(&self, user: &UserId) -> Result<(), UsersError> {
        let _ = user;
        Err(UsersError::Store(OpError::ShuttingDown))
    }

    pub async fn set_password(&self, user: &UserId, password_hash: &str) -> Result<(), UsersError> {
        let _ = (user, password_hash);
        Err(UsersError::Store(OpError::ShuttingDown))
    }

    pub async fn list(&self) -> Result<Vec<UserInfo>, UsersError> {
        Err(UsersError::Store(OpError::ShuttingDown))
    }
}
