//! Answers and their bodies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::api::{Detail, ErrorBody, MAYBE_APPLIED, Outage};
use crate::quota::Share;

use super::connection::Busy;
use super::failure::Failure;
use super::untaken::{Piece, Taking, Untaken};

/// The stream of an answer was cut: hyper then breaks the connection or resets the stream, so that the client can not take
/// what it has for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer could not be completed")]
pub struct Aborted;

pub type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Aborted>> + Send>>;

pub enum Payload {
    Whole(Bytes),
    Frames(Frames),
}

/// An answer before it becomes a response.
pub struct Answer {
    pub status: StatusCode,
    pub payload: Payload,
    content_type: &'static str,
    retry_after_s: Option<u32>,
    allow: Option<&'static str>,
    /// For the bytes of the payload, until they have been sent.
    room: Option<Share>,
}

const JSON: &str = "application/json";

const CUT_SHORT: &str = "too many answers wait to be taken by their clients, so this one is cut short: see its status";

impl Answer {
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            payload: Payload::Whole(body.into()),
            content_type: JSON,
            retry_after_s: None,
            allow: None,
            room: None,
        }
    }

    pub fn text(content_type: &'static str, text: Bytes) -> Self {
        Self {
            content_type,
            ..Self::json(text)
        }
    }

    pub fn status_ok() -> Self {
        Self::json(Bytes::from_static(br#"{"status":"OK"}"#))
    }

    pub fn status_in_progress() -> Self {
        Self::json(Bytes::from_static(br#"{"status":"IN_PROGRESS"}"#))
    }

    pub fn of(body: &impl Serialize) -> Self {
        Self::json(to_json(body))
    }

    pub fn frames(frames: Frames) -> Self {
        Self {
            payload: Payload::Frames(frames),
            ..Self::json(Bytes::new())
        }
    }

    pub fn holding(self, room: Option<Share>) -> Self {
        Self { room, ..self }
    }

    /// Bytes that were made for it and that no permit covers yet.
    pub fn uncovered_bytes(&self) -> usize {
        match &self.payload {
            Payload::Whole(bytes) if self.room.is_none() => bytes.len(),
            _ => 0,
        }
    }

    /// The same answer in a few words, which need no permit. Whether the request may have taken effect is not left out.
    pub fn cut_short(self, outage: Option<Outage>) -> Self {
        let mut text = CUT_SHORT.to_owned();
        if outage.is_some_and(|outage| outage.may_have_taken_effect) {
            text.push_str(&format!("; this request {MAYBE_APPLIED}"));
        }
        let detail = Detail::Message(text);
        Self {
            payload: Payload::Whole(to_json(&ErrorBody { detail, outage })),
            ..self
        }
    }

    /// `head_only`: answer HEAD with the headers that GET would get.
    pub fn into_response(self, head_only: bool, mut hold: Hold) -> Response<AnswerBody> {
        let (payload, whole_bytes) = match self.payload {
            Payload::Whole(bytes) if head_only => (Payload::Whole(Bytes::new()), Some(bytes.len())),
            payload => (payload, None),
        };
        if matches!(payload, Payload::Whole(_)) {
            // Nothing more is done for it, and its bytes have a permit of their own: how long its client takes is no reason to refuse others.
            hold.permit = None;
        }
        let kept = if hold.busy.is_http2() {
            Kept::Shared(Taking::new(hold, self.room))
        } else {
            Kept::Here(hold, self.room)
        };
        let mut response = Response::new(AnswerBody { payload, kept });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(bytes) = whole_bytes {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static(r#"Basic realm="kv-storage", charset="UTF-8""#),
            );
        }
        response
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        Self {
            status: failure.status,
            retry_after_s: failure.retry_after_s,
            allow: failure.allow,
            ..Self::of(&ErrorBody::from(failure))
        }
    }
}

/// The types of `api` always serialize; if one did not, the body would be empty.
pub fn to_json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).unwrap_or_default().into()
}

/// What a request holds until its answer has been sent.
pub struct Hold {
    /// Held until the answer is made, if it is complete then.
    pub permit: Option<OwnedSemaphorePermit>,
    busy: Busy,
}

impl Hold {
    pub fn new(busy: Busy) -> Self {
        Self { permit: None, busy }
    }

    pub fn untaken(&self) -> &Untaken {
        self.busy.untaken()
    }

    /// Over HTTP/2, the place of its stream.
    pub fn stream(&self) -> Option<Arc<Share>> {
        self.busy.stream()
    }
}

pub struct AnswerBody {
    payload: Payload,
    kept: Kept,
}

/// Over HTTP/1 an answer ends when the connection has taken its last piece, and what that holds, until the socket has. Over HTTP/2 a
/// client can leave pieces of any number of answers where they are, so all is held until the last of them has left.
enum Kept {
    Here(#[expect(dead_code, reason = "held, not read")] Hold, Option<Share>),
    Shared(Arc<Taking>),
}

impl AnswerBody {
    fn piece(&mut self, bytes: Bytes) -> Frame<Piece> {
        let is_last = matches!(&self.payload, Payload::Whole(_));
        Frame::data(match &mut self.kept {
            Kept::Here(_, room) => Piece::new(bytes, None, room.take_if(|_| is_last)),
            Kept::Shared(taking) => Piece::new(bytes, Some(taking.clone()), None),
        })
    }
}

impl Body for AnswerBody {
    type Data = Piece;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, Aborted>>> {
        let bytes = match &mut self.payload {
            Payload::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Payload::Whole(bytes) => std::mem::take(bytes),
            Payload::Frames(frames) => match ready!(frames.as_mut().poll_next(context)) {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            },
        };
        Poll::Ready(Some(Ok(self.piece(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.payload, Payload::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.payload {
            Payload::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Payload::Frames(_) => SizeHint::default(),
        }
    }
}
