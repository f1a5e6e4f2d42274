//! Bodies and answers of the calls on users.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{User, accept};

/// Body of `users/list`: nothing but an admin's credentials.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListUsers<'a> {
    #[serde(
        borrow,
        default,
        deserialize_with = "accept::user",
        skip_serializing_if = "Option::is_none"
    )]
    pub user: Option<User<'a>>,
}

/// Body of `users/add`; and what a client may send to `users/remove` and `users/passwd`, which read only the fields of
/// [`RemoveUser`] and [`SetPassword`]. All but a `passwd` of one's own need an admin's credentials.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserChange<'a> {
    /// The user it is about.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The new `password_hash`; not for `remove`.
    #[serde(
        borrow,
        default,
        deserialize_with = "accept::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub password_hash: Option<Cow<'a, str>>,
    #[serde(
        default,
        deserialize_with = "accept::flag_or_no",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub admin: bool,
    #[serde(
        borrow,
        default,
        deserialize_with = "accept::user",
        skip_serializing_if = "Option::is_none"
    )]
    pub user: Option<User<'a>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveUser<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(
        borrow,
        default,
        deserialize_with = "accept::user",
        skip_serializing_if = "Option::is_none"
    )]
    pub user: Option<User<'a>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetPassword<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub password_hash: Cow<'a, str>,
    #[serde(
        borrow,
        default,
        deserialize_with = "accept::user",
        skip_serializing_if = "Option::is_none"
    )]
    pub user: Option<User<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEntry {
    pub user_id: String,
    pub admin: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEntries {
    pub users: Vec<UserEntry>,
}
