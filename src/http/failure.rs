//! Every error with its status and words.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::json;

use crate::api::{Detail, ErrorBody, FieldError, MAYBE_APPLIED, Outage, OutageCode};
use crate::node::OpError;
use crate::types::BODY_BYTES_MAX;
use crate::users::{AuthError, UsersError};

use super::config::RETRY_AFTER_S;

/// What a client is told when a call was not carried out.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub detail: Words,
    /// From status 500 on.
    pub outage: Option<Outage>,
    pub retry_after_s: Option<u32>,
    /// For 405.
    pub allow: Option<&'static str>,
}

#[derive(Debug)]
pub enum Words {
    Message(Cow<'static, str>),
    Fields(Vec<FieldError>),
}

impl From<Failure> for ErrorBody {
    fn from(failure: Failure) -> Self {
        Self {
            detail: match failure.detail {
                Words::Message(text) => Detail::Message(text.into_owned()),
                Words::Fields(fields) => Detail::Fields(fields),
            },
            outage: failure.outage,
        }
    }
}

impl Failure {
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: Words::Message(detail.into()),
            outage: None,
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

    pub fn outage(status: StatusCode, outage: Outage, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            outage: Some(outage),
            ..Self::new(status, detail)
        }
    }

    /// 503: it will pass.
    pub fn passing(outage: Outage, retry_after_s: u32, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::outage(StatusCode::SERVICE_UNAVAILABLE, outage, detail)
        }
    }

    /// The node has too much to do, and did not begin.
    pub fn overloaded(retry_after_s: u32, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::passing(OutageCode::Overloaded.unchanged(), retry_after_s, detail)
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

    pub fn encoded_body(encoding: &HeaderValue) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("a body with Content-Encoding {encoding:?} is not taken: send it as it is, without that header"),
        )
    }

    pub fn body_too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
    }

    pub fn body_broken() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the body could not be read to its end")
    }

    pub fn too_many(what: &str) -> Self {
        Self::overloaded(
            RETRY_AFTER_S,
            format!("the node is overloaded: too many {what} in flight; retry"),
        )
    }
}

/// What to do when it may have been done.
const RETRY_BY_ID: &str = "a retry with the same request_id is safe, one without may count twice";
const LOOK_AT_USERS: &str = "`/users/list` tells what came of it";
const ASK_AGAIN: &str = "asked for again, what is done answers OK";

impl From<OpError> for Failure {
    fn from(error: OpError) -> Self {
        Self::of_change(error, RETRY_BY_ID)
    }
}

impl Failure {
    /// Of what changes nothing, however it ends.
    pub fn of_read(error: OpError) -> Self {
        let maybe_applied = false;
        let error = match error {
            OpError::ShardUnavailable { .. } => OpError::ShardUnavailable { maybe_applied },
            OpError::Deadline { .. } => OpError::Deadline { maybe_applied },
            OpError::Quorum { needed, answered, .. } => OpError::Quorum {
                needed,
                answered,
                maybe_applied,
            },
            other => other,
        };
        let failure = Self::from_op(error, "nothing was changed", RETRY_BY_ID);
        let outage = failure.outage.map(|outage| outage.code.unchanged());
        Self { outage, ..failure }
    }

    /// Of a change of the cluster's members.
    pub fn of_members(error: OpError) -> Self {
        Self::of_change(error, ASK_AGAIN)
    }

    /// `advice`: what to do when it may have been done.
    fn of_change(error: OpError, advice: &str) -> Self {
        Self::from_op(error, "whether this request took effect is unknown", advice)
    }

    /// `effect` is said where the error does not tell.
    fn from_op(error: OpError, effect: &str, advice: &str) -> Self {
        let Some(outage) = outage(&error) else {
            let status = match error {
                OpError::OtherRequest => StatusCode::CONFLICT,
                _ => StatusCode::PAYLOAD_TOO_LARGE,
            };
            return Self::new(status, error.to_string());
        };
        let passing = |detail| Self::passing(outage, RETRY_AFTER_S, detail);
        match &error {
            OpError::Overloaded { retry_after_s, .. } => Self::passing(outage, *retry_after_s, error.to_string()),
            OpError::ShardUnavailable { maybe_applied: true } => passing(format!("{error}: {advice}")),
            OpError::Quorum {
                maybe_applied: true, ..
            }
            | OpError::Deadline { maybe_applied: true } => {
                passing(format!("{error}; this request {MAYBE_APPLIED}: {advice}"))
            }
            OpError::NotReady(_)
            | OpError::ShuttingDown
            | OpError::ShardUnavailable { maybe_applied: false }
            | OpError::Quorum {
                maybe_applied: false, ..
            }
            | OpError::Deadline { maybe_applied: false } => passing(format!("{error}: nothing was changed")),
            OpError::ValueTooLong { .. } | OpError::OtherRequest => passing(error.to_string()),
            OpError::DiskFull => Self::outage(StatusCode::INSUFFICIENT_STORAGE, outage, error.to_string()),
            OpError::Damaged(_) => Self::outage(StatusCode::INTERNAL_SERVER_ERROR, outage, error.to_string()),
            // The cause names files of the server: it goes to the log, not to the client.
            OpError::Disk(cause) => {
                tracing::error!(%cause, "the disk failed under a request");
                let detail = format!("the disk failed; {effect}");
                Self::outage(StatusCode::INTERNAL_SERVER_ERROR, outage, detail)
            }
            OpError::Peer(_) | OpError::Internal(_) => {
                tracing::error!(%error, "a request failed");
                let detail = format!("the nodes do not understand each other; {effect}");
                Self::outage(StatusCode::INTERNAL_SERVER_ERROR, outage, detail)
            }
        }
    }
}

/// None of what is the request's own fault.
fn outage(error: &OpError) -> Option<Outage> {
    Some(match error {
        OpError::ValueTooLong { .. } | OpError::OtherRequest => return None,
        OpError::Overloaded { .. } => OutageCode::Overloaded.unchanged(),
        OpError::NotReady(_) => OutageCode::NotReady.unchanged(),
        OpError::ShuttingDown => OutageCode::ShuttingDown.unchanged(),
        OpError::ShardUnavailable { maybe_applied } => OutageCode::ShardUnavailable.in_doubt_if(*maybe_applied),
        OpError::Quorum { maybe_applied, .. } => OutageCode::NoQuorum.in_doubt_if(*maybe_applied),
        OpError::Deadline { maybe_applied } => OutageCode::DeadlineExceeded.in_doubt_if(*maybe_applied),
        OpError::DiskFull => OutageCode::DiskFull.unchanged(),
        OpError::Disk(_) => OutageCode::DiskFailed.in_doubt_if(true),
        OpError::Damaged(_) => OutageCode::Damaged.in_doubt_if(true),
        OpError::Peer(_) | OpError::Internal(_) => OutageCode::Internal.in_doubt_if(true),
    })
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid => Self::invalid_credentials(),
            AuthError::Busy { retry_after_s } => Self::overloaded(retry_after_s, error.to_string()),
            // Nobody acts before it is known who asks.
            AuthError::CutOff(error) | AuthError::Store(error) => Self::of_read(error),
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
            // No 409: a client that tries again after a lost answer takes that for the effect of its first try.
            UsersError::KeysUnknown(_) => {
                let outage = OutageCode::NoQuorum.unchanged();
                Self::passing(outage, RETRY_AFTER_S, format!("{error}; nothing was changed"))
            }
            UsersError::Name(_) => Self::fields(vec![FieldError {
                loc: vec![json!("body"), json!("name")],
                msg: error.to_string(),
                kind: "value_error".into(),
            }]),
            UsersError::PasswordHash(error) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            UsersError::Overtaken(error) => error.into(),
            UsersError::Store(error) => Self::of_change(error, LOOK_AT_USERS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_is_told_to_programs_is_what_is_told_to_people() {
        let errors = [true, false].into_iter().flat_map(|maybe_applied| {
            [
                OpError::ShardUnavailable { maybe_applied },
                OpError::Quorum {
                    needed: 2,
                    answered: 1,
                    maybe_applied,
                },
                OpError::Deadline { maybe_applied },
            ]
        });
        let clear = [
            OpError::NotReady("it starts".into()),
            OpError::DiskFull,
            OpError::ShuttingDown,
        ];
        for error in errors.chain(clear) {
            let failure = Failure::from(error);
            let outage = failure.outage.unwrap();
            assert_eq!(
                outage.may_have_taken_effect,
                words(&failure).contains(MAYBE_APPLIED),
                "{failure:?}"
            );
        }
        let body = serde_json::to_value(ErrorBody::from(Failure::from(OpError::DiskFull))).unwrap();
        assert_eq!(
            (&body["code"], &body["may_have_taken_effect"]),
            (&"disk_full".into(), &false.into())
        );
        let own_fault = Failure::from(OpError::ValueTooLong { got: 9, max: 8 });
        assert!(own_fault.outage.is_none() && Failure::invalid_credentials().outage.is_none());
    }

    #[test]
    fn what_only_reads_has_changed_nothing() {
        let maybe_applied = true;
        for error in [
            OpError::ShardUnavailable { maybe_applied },
            OpError::Deadline { maybe_applied },
            OpError::Quorum {
                needed: 2,
                answered: 1,
                maybe_applied,
            },
            OpError::Damaged("segment 1".into()),
            OpError::Disk("EIO".into()),
            OpError::Peer("no such slot".into()),
            OpError::Internal("a fault".into()),
        ] {
            // If it cannot be checked who asks, nothing was done either.
            for failure in [
                Failure::of_read(error.clone()),
                Failure::from(AuthError::Store(error.clone())),
            ] {
                let told = words(&failure);
                assert!(!told.contains(MAYBE_APPLIED) && !told.contains("took effect"), "{told}");
                assert!(
                    failure.outage.is_some_and(|outage| !outage.may_have_taken_effect),
                    "{told}"
                );
            }
            let change = Failure::from(UsersError::Store(error));
            assert!(change.outage.is_some_and(|outage| outage.may_have_taken_effect));
            assert!(!words(&change).contains("request_id"), "{change:?}");
        }
    }

    #[test]
    fn each_error_has_its_status() {
        let status = |error: OpError| Failure::from(error).status.as_u16();
        assert_eq!(status(OpError::DiskFull), 507);
        assert_eq!(status(OpError::ValueTooLong { got: 9, max: 8 }), 413);
        assert_eq!(status(OpError::OtherRequest), 409);
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
        assert_eq!(status(UsersError::Overtaken(AuthError::Invalid)), 401);
        assert_eq!(status(UsersError::Name("a\n".into())), 422);
    }

    #[test]
    fn the_words_of_a_failed_disk_name_no_file() {
        let failure = Failure::from(OpError::Disk("/data/shard-1: EIO".into()));
        assert!(!words(&failure).contains("/data"));
    }
}
