//! The calls about users. All but `users_passwd` for oneself need an admin.
//!
//! When a node fails, the next one is asked, but not where a node falls silent: a change that is still at work somewhere could undo what
//! came after it. (One that is silent before is passed over.) Where an earlier try may have taken effect, a refusal by the next node may only mean that it did: a second `add` is told that
//! the user exists, a second `remove` that there is none, and a second `passwd` comes with the old password. Then it is looked at what is so.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::api::{KeyList, ListKeys, Status, User, UserChange, UserEntries, UserEntry, path};

use super::error::ClientError;
use super::repeat::{Again, Repeat};
use super::{Client, password_hash};

const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

#[derive(Serialize)]
struct Credentials<'a> {
    user: User<'a>,
}

impl Client {
    pub async fn users_list(&self) -> Result<Vec<UserEntry>, ClientError> {
        let body = Credentials { user: self.user() };
        let answer: UserEntries = self.post(path::USERS_LIST, &body, Repeat::READ).await?;
        Ok(answer.users)
    }

    /// Adds a user; refused while anything is stored under the name.
    pub async fn users_add(&self, name: &str, password: &str, admin: bool) -> Result<(), ClientError> {
        self.add_user(name, password, admin, false).await
    }

    /// The same, and what is stored under the name is the new user's.
    pub async fn users_adopt(&self, name: &str, password: &str, admin: bool) -> Result<(), ClientError> {
        self.add_user(name, password, admin, true).await
    }

    async fn add_user(&self, name: &str, password: &str, admin: bool, keep_data: bool) -> Result<(), ClientError> {
        let change = UserChange {
            admin,
            keep_data,
            ..self.change_of(name, Some(password))
        };
        let (added, in_doubt) = self.change_user(path::USERS_ADD, change).await;
        match added {
            Err(ClientError::Refused { status: CONFLICT, .. })
                if in_doubt && self.logs_in(name, password).await && self.is_user(name, admin).await =>
            {
                Ok(())
            }
            added => added,
        }
    }

    /// Removes the user and everything under their keys.
    pub async fn users_remove(&self, name: &str) -> Result<(), ClientError> {
        match self.change_user(path::USERS_REMOVE, self.change_of(name, None)).await {
            (Err(ClientError::Refused { status: NOT_FOUND, .. }), true) => Ok(()),
            (removed, _) => removed,
        }
    }

    pub async fn users_passwd(&self, name: &str, password: &str) -> Result<(), ClientError> {
        let change = self.change_of(name, Some(password));
        let (changed, in_doubt) = self.change_user(path::USERS_PASSWD, change).await;
        match changed {
            Err(ClientError::Credentials { .. })
                if in_doubt && name == self.user_id() && self.logs_in(name, password).await =>
            {
                Ok(())
            }
            changed => changed,
        }
    }

    fn change_of<'a>(&'a self, name: &'a str, password: Option<&str>) -> UserChange<'a> {
        UserChange {
            name: name.into(),
            password_hash: password.map(|password| password_hash(password).into()),
            admin: false,
            keep_data: false,
            user: Some(self.user()),
        }
    }

    /// What came of it, and whether an earlier try than the one that tells may have taken effect.
    async fn change_user(&self, path: &str, body: UserChange<'_>) -> (Result<(), ClientError>, bool) {
        let in_doubt = AtomicBool::new(false);
        let repeat = Repeat {
            again: Again::InTurnUnlessSilent,
            in_doubt: Some(&in_doubt),
            ..Repeat::SAFE
        };
        let changed: Result<Status, _> = self.post(path, &body, repeat).await;
        (changed.map(|_| ()), in_doubt.load(Ordering::Relaxed))
    }

    async fn logs_in(&self, name: &str, password: &str) -> bool {
        let body = ListKeys {
            prefix: None,
            limit: Some(1),
            after: None,
            consistency: self.consistency,
            deadline_ms: self.deadline_ms,
            user: Some(User {
                user_id: name.into(),
                password_hash: password_hash(password).into(),
            }),
        };
        let listed: Result<KeyList, _> = self.post(path::LIST_KEYS, &body, Repeat::READ).await;
        listed.is_ok()
    }

    async fn is_user(&self, name: &str, admin: bool) -> bool {
        let users = self.users_list().await.unwrap_or_default();
        users.iter().any(|user| user.user_id == name && user.admin == admin)
    }
}
