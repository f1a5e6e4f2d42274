//! The calls about users. All but `users_passwd` for oneself need an admin.
//!
//! Invariant: what may have taken effect is not sent again: a second `add` would be told that the user exists, and a second
//! `passwd` would come with the old password.

use serde::Serialize;

use crate::api::{Status, User, UserChange, UserEntries, UserEntry, path};

use super::course::Repeat;
use super::error::ClientError;
use super::{Client, password_hash};

#[derive(Serialize)]
struct Credentials<'a> {
    user: User<'a>,
}

impl Client {
    pub async fn users_list(&self) -> Result<Vec<UserEntry>, ClientError> {
        let body = Credentials { user: self.user() };
        let answer: UserEntries = self.post(path::USERS_LIST, &body, Repeat::Safe).await?;
        Ok(answer.users)
    }

    pub async fn users_add(&self, name: &str, password: &str, admin: bool) -> Result<(), ClientError> {
        self.change_user(path::USERS_ADD, name, Some(password), admin).await
    }

    /// Removes the user and everything under their keys.
    pub async fn users_remove(&self, name: &str) -> Result<(), ClientError> {
        self.change_user(path::USERS_REMOVE, name, None, false).await
    }

    pub async fn users_passwd(&self, name: &str, password: &str) -> Result<(), ClientError> {
        self.change_user(path::USERS_PASSWD, name, Some(password), false).await
    }

    async fn change_user(
        &self,
        path: &str,
        name: &str,
        password: Option<&str>,
        admin: bool,
    ) -> Result<(), ClientError> {
        let body = UserChange {
            name: name.into(),
            password_hash: password.map(|password| password_hash(password).into()),
            admin,
            user: Some(self.user()),
        };
        let _: Status = self.post(path, &body, Repeat::Unsafe).await?;
        Ok(())
    }
}
