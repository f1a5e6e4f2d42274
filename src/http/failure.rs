//! Every error with its status and words.

use std::borrow::Cow;

use hyper::StatusCode;

use crate::api::{Detail, FieldError};
use crate::node::OpError;
use crate::types::BODY_BYTES_MAX;
use crate::users::{AuthError, UsersError};

use super::config::RETRY_AFTER_S;

/// What a client is told when a call was not carried out.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub detail: Words,
    pub retry_after_s: Option<u32>,
    /// For 405.
    pub allow: Option<&'static str>,
}

#[derive(Debug)]
pub enum Words {
    Message(Cow<'static, str>),
    Fields(Vec<FieldError>),
}

impl From<Words> for Detail {
    fn from(words: Words) -> Self {
        match words {
            Words::Message(text) => Self::Message(text.into_owned()),
            Words::Fields(fields) => Self::Fields(fields),
        }
    }
}

impl Failure {
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: Words::Message(detail.into()),
            retry_after_s: None,
            allow: None,
        }
    }

    pub fn fields(errors: Vec<FieldError>) -> Self {
        Self {
            detail: Words::Fields(errors),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "")
        }
    }

    pub fn busy(retry_after_s: u32, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        }
    }

    pub fn invalid_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Invalid user_id or password")
    }

    pub fn body_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the body is larger than {BODY_BYTES_MAX} bytes; send a larger value in parts, with finish_value: false"
            ),
        )
    }

    pub fn body_too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
    }

    pub fn body_broken() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the body could not be read to its end")
    }

    pub fn too_many(what: &str) -> Self {
        Self::busy(
            RETRY_AFTER_S,
            format!("the node is overloaded: too many {what} in flight; retry"),
        )
    }
}

impl From<OpError> for Failure {
    fn from(error: OpError) -> Self {
        match &error {
            OpError::Overloaded { retry_after_s, .. } => Self::busy(*retry_after_s, error.to_string()),
            OpError::ShardUnavailable { maybe_applied: true } => Self::busy(
                RETRY_AFTER_S,
                format!("{error}: a retry with the same request_id is safe, one without may count twice"),
            ),
            OpError::Quorum {
                maybe_applied: true, ..
            }
            | OpError::Deadline { maybe_applied: true } => Self::busy(
                RETRY_AFTER_S,
                format!(
                    "{error}; this request may have taken effect: a retry with the same request_id is safe, one without \
                     may count twice"
                ),
            ),
            OpError::NotReady(_)
            | OpError::ShuttingDown
            | OpError::ShardUnavailable { maybe_applied: false }
            | OpError::Quorum {
                maybe_applied: false, ..
            }
            | OpError::Deadline { maybe_applied: false } => {
                Self::busy(RETRY_AFTER_S, format!("{error}: nothing was changed"))
            }
            OpError::DiskFull => Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
            OpError::ValueTooLong { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            OpError::Damaged(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            // The cause names files of the server: it goes to the log, not to the client.
            OpError::Disk(cause) => {
                tracing::error!(%cause, "the disk failed under a request");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the disk failed; whether this request took effect is unknown",
                )
            }
            OpError::Peer(_) | OpError::Internal(_) => {
                tracing::error!(%error, "a request failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the nodes do not understand each other; whether this request took effect is unknown",
                )
            }
        }
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid => Self::invalid_credentials(),
            AuthError::Busy { retry_after_s } => Self::busy(retry_after_s, error.to_string()),
            AuthError::Store(error) => error.into(),
        }
    }
}

impl From<UsersError> for Failure {
    fn from(error: UsersError) -> Self {
        match error {
            UsersError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            UsersError::Exists(_)
            | UsersError::KeysLeft(_)
            | UsersError::LastAdmin(_)
            | UsersError::BeingRemoved(_)
            | UsersError::Contended(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            // No 409: whoever tries again after a lost answer takes that for the effect of its first try.
            UsersError::KeysUnknown(_) => Self::busy(RETRY_AFTER_S, format!("{error}; nothing was changed")),
            UsersError::PasswordHash(error) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            UsersError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MAYBE_APPLIED;

    fn words(failure: &Failure) -> &str {
        match &failure.detail {
            Words::Message(text) => text,
            Words::Fields(_) => "",
        }
    }

    #[test]
    fn an_overload_says_when_to_come_back() {
        let failure = Failure::from(OpError::Overloaded {
            what: "the queue of shard 3",
            retry_after_s: 7,
        });
        assert_eq!((failure.status.as_u16(), failure.retry_after_s), (503, Some(7)));
    }

    #[test]
    fn a_lost_shard_says_whether_the_request_may_have_counted() {
        let maybe = Failure::from(OpError::ShardUnavailable { maybe_applied: true });
        assert!(words(&maybe).contains(MAYBE_APPLIED) && words(&maybe).contains("same request_id is safe"));
        let not = Failure::from(OpError::ShardUnavailable { maybe_applied: false });
        assert!(words(&not).contains("nothing was changed"));
        assert!(maybe.retry_after_s.is_some() && not.retry_after_s.is_some());
    }

    #[test]
    fn too_few_replicas_are_counted_and_the_doubt_is_named() {
        let failed = |maybe_applied| {
            Failure::from(OpError::Quorum {
                needed: 2,
                answered: 1,
                maybe_applied,
            })
        };
        let maybe = failed(true);
        assert!(
            words(&maybe).contains("2 replicas are needed and 1 answered"),
            "{maybe:?}"
        );
        assert!(words(&maybe).contains(MAYBE_APPLIED) && words(&maybe).contains("same request_id is safe"));
        assert!(words(&failed(false)).contains("nothing was changed"));
        assert_eq!((maybe.status.as_u16(), maybe.retry_after_s), (503, Some(RETRY_AFTER_S)));
        let late = Failure::from(OpError::Deadline { maybe_applied: true });
        assert!(words(&late).contains("deadline") && words(&late).contains(MAYBE_APPLIED));
        assert_eq!((late.status.as_u16(), late.retry_after_s), (503, Some(RETRY_AFTER_S)));
    }

    #[test]
    fn each_error_has_its_status() {
        let status = |error: OpError| Failure::from(error).status.as_u16();
        assert_eq!(status(OpError::DiskFull), 507);
        assert_eq!(status(OpError::ValueTooLong { got: 9, max: 8 }), 413);
        assert_eq!(status(OpError::Damaged("segment 1".into())), 500);
        assert_eq!(status(OpError::Disk("EIO".into())), 500);
        assert_eq!(status(OpError::Peer("no such slot".into())), 500);
        assert_eq!(status(OpError::ShuttingDown), 503);
        assert!(words(&OpError::ShuttingDown.into()).contains("nothing was changed"));
        let status = |error: UsersError| Failure::from(error).status.as_u16();
        assert_eq!(status(UsersError::Exists("a".into())), 409);
        assert_eq!(status(UsersError::LastAdmin("a".into())), 409);
        assert_eq!(status(UsersError::KeysUnknown("a".into())), 503);
        assert_eq!(status(UsersError::BeingRemoved("a".into())), 409);
        assert_eq!(status(UsersError::Unknown("a".into())), 404);
    }

    #[test]
    fn the_words_of_a_failed_disk_name_no_file() {
        let failure = Failure::from(OpError::Disk("/data/shard-1: EIO".into()));
        assert!(!words(&failure).contains("/data"));
    }
}
