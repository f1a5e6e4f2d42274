//! Bodies and answers of the calls on users.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{User, accept};

body! {
    /// Body of `users/list`: nothing but an admin's credentials.
    #[derive(Default)]
    pub struct ListUsers {}
}

body! {
    /// Body of `users/add`; and what a client may send to `users/remove` and `users/passwd`, which read only the fields of
    /// [`RemoveUser`] and [`SetPassword`]. All but a `passwd` of one's own need an admin's credentials.
    pub struct UserChange {
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
        /// For `add`: what is stored under the name is the new user's.
        #[serde(
            default,
            deserialize_with = "accept::flag_or_no",
            skip_serializing_if = "std::ops::Not::not"
        )]
        pub keep_data: bool,
    }
}

body! {
    pub struct RemoveUser {
        #[serde(borrow)]
        pub name: Cow<'a, str>,
    }
}

body! {
    pub struct SetPassword {
        #[serde(borrow)]
        pub name: Cow<'a, str>,
        #[serde(borrow)]
        pub password_hash: Cow<'a, str>,
    }
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
