//! The JSON API: paths, bodies and answers. Shared by the server, the client and the CLI.
//!
//! Reading is strict in types and lenient in presence: unknown fields are ignored, `null` for an optional field counts as
//! absent, and an object is never accepted in the form of an array (see `accept`).

/// The body of a call: its own fields, and whose call it is.
macro_rules! body {
    ($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub struct $name<'a> {
            $($fields)*
            #[serde(borrow, default, deserialize_with = "accept::user", skip_serializing_if = "Option::is_none")]
            pub user: Option<User<'a>>,
        }
    };
}

/// The same of a call on keys, which says how far it has to reach.
macro_rules! call_on_keys {
    ($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        body! {
            $(#[$meta])*
            pub struct $name {
                $($fields)*
                /// `quorum` when left out.
                #[serde(
                    default,
                    deserialize_with = "accept::consistency",
                    serialize_with = "accept::consistency_name",
                    skip_serializing_if = "Option::is_none"
                )]
                pub consistency: Option<Consistency>,
                /// Milliseconds, 1 to [`DEADLINE_MS_MAX`]; [`DEADLINE_MS_DEFAULT`] when left out.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub deadline_ms: Option<u64>,
            }
        }
    };
}

mod accept;
mod cluster;
mod errors;
mod text;
mod users;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::types::Consistency;

pub use accept::read;
pub use cluster::{AskClusterStatus, ClusterStatus, Member, MemberState, RemoveNode, ReplaceNode};
pub use errors::{Detail, ErrorBody, FieldError, MAYBE_APPLIED, Outage, OutageCode};
pub use text::plain_bytes;
pub use users::{ListUsers, RemoveUser, SetPassword, UserChange, UserEntries, UserEntry};

pub mod path {
    pub const ADD_VALUE: &str = "/add_value";
    pub const GET_VALUE: &str = "/get_value";
    pub const CLEAR_KEY: &str = "/clear_key";
    pub const LIST_KEYS: &str = "/list_keys";
    pub const BATCH: &str = "/batch";
    pub const USERS_LIST: &str = "/users/list";
    pub const USERS_ADD: &str = "/users/add";
    pub const USERS_REMOVE: &str = "/users/remove";
    pub const USERS_PASSWD: &str = "/users/passwd";
    pub const CLUSTER_STATUS: &str = "/cluster/status";
    pub const CLUSTER_REMOVE: &str = "/cluster/remove";
    pub const CLUSTER_REPLACE: &str = "/cluster/replace";
    pub const HEALTHZ: &str = "/healthz";
    pub const READYZ: &str = "/readyz";
    pub const METRICS: &str = "/metrics";
    pub const OPENAPI: &str = "/openapi.json";
}

/// `status` of an add that finished a value, and of every other call that changed something.
pub const STATUS_OK: &str = "OK";
/// `status` of an add with `finish_value: false`.
pub const STATUS_IN_PROGRESS: &str = "IN_PROGRESS";
/// Keys per page of `list_keys` when no `limit` is given, and the most that one may ask for.
pub const LIST_KEYS_LIMIT_DEFAULT: u64 = 1000;
pub const LIST_KEYS_LIMIT_MAX: u64 = 10_000;
/// Most operations in one batch.
pub const BATCH_OPERATIONS_MAX: usize = 10_000;
/// Most bytes that the answers of all `get_value` operations of one batch may take together; what would go beyond gets
/// 413 as its result. A `get_value` call of its own has no such limit: it streams.
pub const BATCH_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A page of `list_keys` ends early once its keys take this many bytes; `after` then says where the next one begins.
pub const LIST_KEYS_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Most entries in the `detail` of one 422.
pub const FIELD_ERRORS_MAX: usize = 1000;
/// Longest time that a request may give the cluster for its answer, and what it gives when it says nothing.
pub const DEADLINE_MS_MAX: u64 = 60_000;
pub const DEADLINE_MS_DEFAULT: u64 = 10_000;

/// Credentials; may come as HTTP Basic instead.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User<'a> {
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    #[serde(borrow)]
    pub password_hash: Cow<'a, str>,
}

fn yes() -> bool {
    true
}

call_on_keys! {
    pub struct AddValue {
        #[serde(borrow)]
        pub key: Cow<'a, str>,
        #[serde(borrow)]
        pub value: Cow<'a, str>,
        #[serde(default = "yes", deserialize_with = "accept::flag_or_yes")]
        pub finish_value: bool,
        #[serde(
            borrow,
            default,
            deserialize_with = "accept::text",
            skip_serializing_if = "Option::is_none"
        )]
        pub request_id: Option<Cow<'a, str>>,
    }
}

call_on_keys! {
    pub struct GetValue {
        #[serde(borrow)]
        pub key: Cow<'a, str>,
        /// Values to skip.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub offset: Option<u64>,
        /// Values to return at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
        /// Answer `{"key":…, "count":n}` instead of the values.
        #[serde(
            default,
            deserialize_with = "accept::flag_or_no",
            skip_serializing_if = "std::ops::Not::not"
        )]
        pub count_only: bool,
    }
}

call_on_keys! {
    pub struct ClearKey {
        #[serde(borrow)]
        pub key: Cow<'a, str>,
        #[serde(
            borrow,
            default,
            deserialize_with = "accept::text",
            skip_serializing_if = "Option::is_none"
        )]
        pub request_id: Option<Cow<'a, str>>,
    }
}

call_on_keys! {
    #[derive(Default)]
    pub struct ListKeys {
        #[serde(
            borrow,
            default,
            deserialize_with = "accept::text",
            skip_serializing_if = "Option::is_none"
        )]
        pub prefix: Option<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u64>,
        /// The `after` of the page before.
        #[serde(
            borrow,
            default,
            deserialize_with = "accept::text",
            skip_serializing_if = "Option::is_none"
        )]
        pub after: Option<Cow<'a, str>>,
    }
}

/// Answer of `list_keys`: `after` is set when there are more, and is what the next call passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    pub keys: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

call_on_keys! {
    /// `{"operations":[…], "user":…}`, one result each. Those on one key are carried out in their order, and none after a write that failed; those on
    /// different keys side by side. Not atomic.
    pub struct Batch {
        #[serde(borrow, deserialize_with = "accept::operations")]
        pub operations: Vec<Operation<'a>>,
    }
}

/// How many replicas an operation of a batch must reach, and how long that may take; those of the batch when left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct OperationTerms {
    #[serde(serialize_with = "accept::consistency_name", skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// `{"op":"add_value", "key":…, …}`: the body of the call of that name, without `user`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation<'a> {
    AddValue {
        key: Cow<'a, str>,
        value: Cow<'a, str>,
        finish_value: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<Cow<'a, str>>,
        #[serde(flatten)]
        terms: OperationTerms,
    },
    GetValue {
        key: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        count_only: bool,
        #[serde(flatten)]
        terms: OperationTerms,
    },
    ClearKey {
        key: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<Cow<'a, str>>,
        #[serde(flatten)]
        terms: OperationTerms,
    },
}

impl Operation<'_> {
    /// The same, without copies of its texts.
    pub fn borrowed(&self) -> Operation<'_> {
        match self {
            Self::AddValue {
                key,
                value,
                finish_value,
                request_id,
                terms,
            } => Operation::AddValue {
                key: Cow::Borrowed(key),
                value: Cow::Borrowed(value),
                finish_value: *finish_value,
                request_id: request_id.as_deref().map(Cow::Borrowed),
                terms: *terms,
            },
            Self::GetValue {
                key,
                offset,
                limit,
                count_only,
                terms,
            } => Operation::GetValue {
                key: Cow::Borrowed(key),
                offset: *offset,
                limit: *limit,
                count_only: *count_only,
                terms: *terms,
            },
            Self::ClearKey { key, request_id, terms } => Operation::ClearKey {
                key: Cow::Borrowed(key),
                request_id: request_id.as_deref().map(Cow::Borrowed),
                terms: *terms,
            },
        }
    }
}

/// Answer of a batch: `results[i]` is `{"status_code": 200, …the answer of the call…}` or
/// `{"status_code": 4xx/5xx, …an [`ErrorBody`]…}` for operation `i`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchResults {
    pub results: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    pub key: String,
    pub value: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub key: String,
    pub count: u64,
}
