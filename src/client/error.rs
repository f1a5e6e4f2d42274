//! What can go wrong with a call, as the caller can act on it.

use std::time::Duration;

use hyper::StatusCode;

use crate::api::{Detail, ErrorBody, FieldError, MAYBE_APPLIED, Outage, OutageCode};

/// A node that did not answer, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub url: String,
    pub reason: String,
}

/// Why a call failed, after all the retries that were safe.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The client was built with something unusable; nothing was sent.
    #[error("{0}")]
    Setup(String),
    /// No connection to any of the nodes; nothing was sent.
    #[error("cannot connect to {}", failures(.tried))]
    Unreachable { tried: Vec<Failure> },
    /// The request was sent, and no whole answer came back: unless it only reads, it may have taken effect.
    #[error("no answer from {url}: {reason}")]
    Broken {
        url: String,
        reason: String,
        /// Nothing came for as long as was waited: the node may still be at work on it.
        silent: bool,
    },
    /// The user or the password is wrong.
    #[error("{detail}")]
    Credentials { detail: String },
    /// The user is who they say, and may not do this.
    #[error("{detail}")]
    Forbidden { detail: String },
    /// The request breaks a rule or a limit of the API.
    #[error("the request was refused: {}", fields_text(.fields))]
    BadRequest { fields: Vec<FieldError> },
    /// The body, the value, or what a batch would read is larger than its limit.
    #[error("{detail}")]
    TooLarge { detail: String },
    /// The nodes cannot do it now, or it came too slowly; `code` says why, unless it came too slowly or the node is too old to say so. [`Self::is_in_doubt`] tells whether it may have been done.
    #[error("{detail}")]
    Unavailable {
        detail: String,
        code: Option<OutageCode>,
        retry_after: Option<Duration>,
    },
    /// Adds are refused until space returns; reads and clears go on.
    #[error("{detail}")]
    DiskFull { detail: String },
    /// Any other refusal, such as a user that exists already.
    #[error("{detail} (status {status})")]
    Refused { status: u16, detail: String },
    /// What was asked for is damaged, or the disk failed: it may have taken effect.
    #[error("the node failed: {detail} (status {status})")]
    Server { status: u16, detail: String },
    /// Whatever answered does not know the call, which every node does; nothing was done.
    #[error("{url} does not know {path} (status {status})")]
    NoSuchCall { url: String, path: String, status: u16 },
    /// Whatever answered does not speak this API.
    #[error("{url} gave an answer that is not of this API: {what}")]
    BadAnswer { url: String, what: String },
}

/// Nothing was sent to this node.
pub(super) fn unreachable(url: &str, reason: String) -> ClientError {
    let url = url.to_owned();
    ClientError::Unreachable {
        tried: vec![Failure { url, reason }],
    }
}

/// The same, as there was no connection in time.
pub(super) fn unconnected(url: &str, waited: Duration) -> ClientError {
    unreachable(url, format!("no connection within {} s", waited.as_secs_f32()))
}

fn failures(tried: &[Failure]) -> String {
    let each = |failure: &Failure| format!("{}: {}", failure.url, failure.reason);
    tried.iter().map(each).collect::<Vec<_>>().join("; ")
}

fn fields_text(fields: &[FieldError]) -> String {
    let each = |field: &FieldError| {
        let path: Vec<String> = field.loc.iter().skip(1).map(location_text).collect();
        format!("{}: {}", path.join("."), field.msg)
    };
    fields.iter().map(each).collect::<Vec<_>>().join("; ")
}

fn location_text(part: &serde_json::Value) -> String {
    part.as_str().map_or_else(|| part.to_string(), str::to_owned)
}

impl ClientError {
    /// The error that an answer with this status and body stands for; `url` and `path` say what was asked, and where.
    pub(super) fn from_answer(
        (url, path): (&str, &str),
        status: StatusCode,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let (detail, outage) = match serde_json::from_slice::<ErrorBody>(body) {
            Ok(ErrorBody {
                detail: Detail::Fields(fields),
                ..
            }) => return Self::BadRequest { fields },
            Ok(ErrorBody {
                detail: Detail::Message(text),
                outage,
            }) => (text, outage),
            Err(_) => (
                status.canonical_reason().unwrap_or("no reason was given").to_owned(),
                None,
            ),
        };
        let says_no_more = status.canonical_reason() == Some(&*detail);
        if says_no_more && matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            return Self::NoSuchCall {
                url: url.to_owned(),
                path: path.to_owned(),
                status: status.as_u16(),
            };
        }
        Self::from_status(status.as_u16(), retry_after, detail, outage)
    }

    /// The error that one result of a batch stands for.
    pub(super) fn from_result(status: u16, result: serde_json::Value) -> Self {
        match serde_json::from_value::<ErrorBody>(result) {
            Ok(ErrorBody {
                detail: Detail::Fields(fields),
                ..
            }) => Self::BadRequest { fields },
            Ok(ErrorBody {
                detail: Detail::Message(text),
                outage,
            }) => Self::from_status(status, None, text, outage),
            Err(_) => Self::from_status(status, None, "no reason was given".to_owned(), None),
        }
    }

    fn from_status(status: u16, retry_after: Option<Duration>, mut detail: String, outage: Option<Outage>) -> Self {
        if outage.is_some_and(|outage| outage.may_have_taken_effect) && !detail.contains(MAYBE_APPLIED) {
            detail.push_str(&format!("; this request {MAYBE_APPLIED}"));
        }
        match status {
            401 => Self::Credentials { detail },
            403 => Self::Forbidden { detail },
            413 => Self::TooLarge { detail },
            // Of a request that did not come in time (408) nothing was done.
            503 | 429 | 408 => Self::Unavailable {
                detail,
                code: outage.map(|outage| outage.code),
                retry_after,
            },
            507 => Self::DiskFull { detail },
            400..=499 => Self::Refused { status, detail },
            _ => Self::Server { status, detail },
        }
    }

    /// Whether it tells of the one that answered rather than of the call: something else stands at its address, or it is not well. Another
    /// node may do better; the same one will not soon.
    pub(super) fn is_of_one_node(&self) -> bool {
        match self {
            Self::Server { .. } | Self::NoSuchCall { .. } | Self::BadAnswer { .. } | Self::DiskFull { .. } => true,
            // A node knows the paths of this API and how they are asked.
            Self::Refused { status, .. } => {
                *status == StatusCode::NOT_FOUND.as_u16() || *status == StatusCode::METHOD_NOT_ALLOWED.as_u16()
            }
            _ => false,
        }
    }

    /// Without what it says of this try's effect: another one may follow.
    pub(super) fn reason(&self) -> String {
        let text = self.to_string();
        let text = text.strip_suffix(": nothing was changed").unwrap_or(&text);
        let doubt = format!("; this request {MAYBE_APPLIED}");
        text.split_once(&doubt).map_or(text, |(reason, _)| reason).to_owned()
    }

    /// The same of a call of which another try failed with `doubtful`, and may have taken effect. Where that cannot be added, `doubtful`.
    pub(super) fn beside(mut self, doubtful: &Self) -> Self {
        if self.is_in_doubt() {
            return self;
        }
        let Some(detail) = self.refusal_mut() else {
            return doubtful.clone();
        };
        let reason = doubtful.reason();
        detail.push_str(&format!(". But another try of this request {MAYBE_APPLIED}: {reason}"));
        self
    }

    /// What is left of that where nothing more is known of the other try.
    pub(super) fn put_in_doubt(&mut self) {
        if self.is_in_doubt() {
            return;
        }
        if let Some(detail) = self.refusal_mut() {
            detail.push_str(&format!(". But another try of this request {MAYBE_APPLIED}"));
        }
    }

    fn refusal_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Credentials { detail }
            | Self::Forbidden { detail }
            | Self::TooLarge { detail }
            | Self::Unavailable { detail, .. }
            | Self::DiskFull { detail }
            | Self::Refused { detail, .. } => Some(detail),
            _ => None,
        }
    }

    /// Whether the call may have taken effect all the same, as far as this error tells.
    pub fn is_in_doubt(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Server { .. } | Self::BadAnswer { .. } => true,
            Self::Credentials { detail }
            | Self::Forbidden { detail }
            | Self::TooLarge { detail }
            | Self::Unavailable { detail, .. }
            | Self::DiskFull { detail }
            | Self::Refused { detail, .. } => detail.contains(MAYBE_APPLIED),
            _ => false,
        }
    }

    /// Whether the same call may well succeed a little later, or at another node.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Unavailable { .. }
        )
    }
}
