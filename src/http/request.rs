//! A request's body with its credentials: what it asks, and who asks.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use serde::Deserialize;
use tokio::time::Instant;

use crate::api::{self, DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX, User};
use crate::core::op::Text;
use crate::types::{Consistency, Key, PASSWORD_HASH_BYTES_MAX, RequestId, USER_ID_BYTES_MAX, UserId, check_length};
use crate::users::{AuthError, Principal};

use super::Terms;
use super::admission::{Admission, Turn};
use super::backend::Backend;
use super::body::Held;
use super::explain::{explain, unexplained};
use super::failure::Failure;
use super::front::Front;
use super::metrics::Refusal;
use super::shape::Shape;

/// A text from this size on shares the body's buffer when it is most of it; a smaller one is copied, so that it does not
/// keep a whole buffer alive.
const SHARED_TEXT_BYTES_MIN: usize = 16 * 1024;

pub struct Submitted<'f, B> {
    pub front: &'f Front<B>,
    admission: &'f Admission,
    shape: &'static Shape,
    body: Held,
    basic: Basic,
    from: IpAddr,
    /// Set once the credentials were found good; for the log.
    user: OnceLock<UserId>,
    /// Taken at the same moment: a login that has to wait is not at work.
    turn: OnceLock<Turn<'f>>,
}

impl<'f, B: Backend> Submitted<'f, B> {
    pub fn new(
        front: &'f Front<B>,
        admission: &'f Admission,
        shape: &'static Shape,
        body: Held,
        headers: &HeaderMap,
        from: IpAddr,
    ) -> Self {
        Self {
            front,
            admission,
            shape,
            body,
            basic: Basic::of(headers),
            from,
            user: OnceLock::new(),
            turn: OnceLock::new(),
        }
    }

    pub fn into_user(self) -> Option<UserId> {
        self.user.into_inner()
    }

    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        api::read(&self.body.bytes).map_err(|error| self.reject(error))
    }

    /// 422 with every fault of the body; `error` is what shows when the table of fields knows of none.
    pub fn reject(&self, error: impl std::fmt::Display) -> Failure {
        let mut faults = explain(&self.body.bytes, self.shape, self.basic != Basic::Absent);
        if faults.is_empty() {
            faults.push(unexplained(error));
        }
        Failure::fields(faults)
    }

    pub fn key(&self, text: &str) -> Result<Key, Failure> {
        Key::new(text).map_err(|error| self.reject(error))
    }

    pub fn user_id(&self, text: &str) -> Result<UserId, Failure> {
        UserId::new(text).map_err(|error| self.reject(error))
    }

    pub fn request_id(&self, text: Option<&str>) -> Result<Option<RequestId>, Failure> {
        text.map(RequestId::new).transpose().map_err(|error| self.reject(error))
    }

    /// Counted from now: that the body came slowly is not the nodes' fault.
    pub fn terms(&self, consistency: Option<Consistency>, deadline_ms: Option<u64>) -> Result<Terms, Failure> {
        Ok(Terms {
            consistency: consistency.unwrap_or_default(),
            deadline: Instant::now() + self.patience(deadline_ms)?,
        })
    }

    pub fn patience(&self, deadline_ms: Option<u64>) -> Result<Duration, Failure> {
        let deadline_ms = deadline_ms.unwrap_or(DEADLINE_MS_DEFAULT);
        if !(1..=DEADLINE_MS_MAX).contains(&deadline_ms) {
            return Err(self.reject("deadline_ms is out of its range"));
        }
        Ok(Duration::from_millis(deadline_ms))
    }

    pub fn password_hash<'t>(&self, text: Option<&'t str>) -> Result<&'t str, Failure> {
        let text = text.ok_or_else(|| self.reject("password_hash is missing"))?;
        check_length(text, PASSWORD_HASH_BYTES_MAX).map_err(|error| self.reject(error))?;
        Ok(text)
    }

    /// A text of the body as the text of an op.
    pub fn text(&self, text: Cow<'_, str>) -> Text {
        let body = &self.body.bytes;
        match text {
            Cow::Owned(text) => text.into(),
            Cow::Borrowed(text) if text.len() >= SHARED_TEXT_BYTES_MIN && text.len() * 2 >= body.len() => {
                Text::from_utf8(body.slice_ref(text.as_bytes())).unwrap_or_else(|_| text.into())
            }
            Cow::Borrowed(text) => text.into(),
        }
    }

    /// Faults of the credentials' form; call it before [`Self::authenticate`], with all other checks of form.
    pub fn credentials<'s>(&'s self, user: &'s Option<User<'_>>) -> Result<Credentials<'s>, Failure> {
        if let Some(User { user_id, password_hash }) = user {
            check_length(user_id, USER_ID_BYTES_MAX)
                .and_then(|()| check_length(password_hash, PASSWORD_HASH_BYTES_MAX))
                .map_err(|error| self.reject(error))?;
            return Ok(Credentials { user_id, password_hash });
        }
        match &self.basic {
            Basic::Given(text) => {
                let (user_id, password_hash) = text.split_once(':').unwrap_or_default();
                Ok(Credentials { user_id, password_hash })
            }
            Basic::Malformed => Ok(Credentials {
                user_id: "",
                password_hash: "",
            }),
            Basic::Absent => Err(self.reject("user is missing")),
        }
    }

    pub async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Principal, Failure> {
        let Credentials { user_id, password_hash } = credentials;
        let formed = check_length(user_id, USER_ID_BYTES_MAX)
            .and_then(|()| check_length(password_hash, PASSWORD_HASH_BYTES_MAX));
        let verified = match formed {
            // No such user can exist, which is no secret.
            Err(_) => Err(AuthError::Invalid),
            Ok(()) => self.front.backend.verify(user_id, password_hash, self.from).await,
        };
        match &verified {
            Ok(principal) => {
                let _ = self.user.set(principal.user.clone());
            }
            Err(AuthError::Invalid | AuthError::CutOff(_)) => self.front.metrics.failed_login(),
            Err(AuthError::Busy { .. }) => self.front.metrics.refused(Refusal::Logins),
            Err(AuthError::Store(_)) => {}
        }
        let principal = verified?;
        let turn = self.admission.enter(Instant::now());
        let _ = self.turn.set(turn.ok_or_else(|| self.front.overloaded())?);
        Ok(principal)
    }
}

#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    pub(super) user_id: &'a str,
    password_hash: &'a str,
}

/// HTTP Basic credentials, `user_id:password_hash`.
#[derive(PartialEq, Eq)]
enum Basic {
    /// None, or of another scheme.
    Absent,
    Malformed,
    Given(String),
}

impl Basic {
    fn of(headers: &HeaderMap) -> Self {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Self::Absent;
        };
        let Some((scheme, encoded)) = header.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return Self::Absent;
        };
        if !scheme.eq_ignore_ascii_case("Basic") {
            return Self::Absent;
        }
        let decoded = STANDARD
            .decode(encoded.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded {
            Some(text) if text.contains(':') => Self::Given(text),
            _ => Self::Malformed,
        }
    }
}

/// The body's size, for tests and metrics; never its text.
impl<B> std::fmt::Debug for Submitted<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", self.shape.name, self.body.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(header: &str) -> Basic {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.parse().unwrap());
        Basic::of(&headers)
    }

    #[test]
    fn basic_credentials_are_read_in_any_case_and_with_colons_in_the_secret() {
        assert!(basic(&format!("bAsIc {}", STANDARD.encode("u:p:q"))) == Basic::Given("u:p:q".into()));
        assert!(basic("Bearer abc") == Basic::Absent && basic("Basic") == Basic::Absent);
        assert!(basic("Basic !!!") == Basic::Malformed);
        assert!(basic(&format!("Basic {}", STANDARD.encode("no colon"))) == Basic::Malformed);
        assert!(basic(&format!("Basic {}", STANDARD.encode(b"\xff:p"))) == Basic::Malformed);
        assert!(Basic::of(&HeaderMap::new()) == Basic::Absent);
    }
}
