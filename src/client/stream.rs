//! Answers that are read as they arrive.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;

use super::decode::{ValueDecoder, ValuePiece};
use super::error::ClientError;
use super::transport::{Answer, broken, innermost};

/// The bytes of an answer, as they come.
pub struct BodyStream {
    url: String,
    body: Incoming,
    timeout: Duration,
}

impl BodyStream {
    pub(super) fn new(answer: Answer, timeout: Duration) -> Self {
        Self {
            url: answer.url,
            body: answer.response.into_body(),
            timeout,
        }
    }

    /// The next bytes; None at the end of a whole answer.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = match timeout(self.timeout, self.body.frame()).await {
                Err(_) => {
                    let reason = format!("nothing came for {} s", self.timeout.as_secs_f32());
                    return Err(broken(&self.url, reason));
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    let reason = format!("the answer broke off: {}", innermost(&error));
                    return Err(broken(&self.url, reason));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers say nothing here.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

/// A key's values, as they come: memory does not grow with them.
pub struct ValueStream {
    body: BodyStream,
    decoder: ValueDecoder,
    pieces: VecDeque<ValuePiece>,
    ended: bool,
}

impl ValueStream {
    pub(super) fn new(body: BodyStream) -> Self {
        Self {
            body,
            decoder: ValueDecoder::new(),
            pieces: VecDeque::new(),
            ended: false,
        }
    }

    /// The next piece of a value; None after the last piece of the last value of a whole answer.
    pub async fn next_piece(&mut self) -> Result<Option<ValuePiece>, ClientError> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            if self.ended {
                return Ok(None);
            }
            let mut pieces = Vec::new();
            let decoded = match self.body.next().await? {
                Some(chunk) => self.decoder.feed(&chunk, &mut pieces),
                None => {
                    self.ended = true;
                    self.decoder.finish()
                }
            };
            decoded.map_err(|error| ClientError::BadAnswer {
                url: self.body.url.clone(),
                what: error.to_string(),
            })?;
            self.pieces.extend(pieces);
        }
    }

    /// The next value, whole.
    pub async fn next_value(&mut self) -> Result<Option<String>, ClientError> {
        let mut value = String::new();
        while let Some(piece) = self.next_piece().await? {
            if value.is_empty() {
                value = piece.text;
            } else {
                value.push_str(&piece.text);
            }
            if piece.ends_value {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}
