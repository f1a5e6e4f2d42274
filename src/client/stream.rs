//! Answers that are read as they arrive.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;

use super::decode::{ValueDecoder, ValuePiece};
use super::error::ClientError;
use super::transport::{Answer, next_bytes};

/// The bytes of an answer, as they come.
///
/// Until the first of them, and for a short answer until the last, another node is asked when one fails. After that it cannot be
/// gone on with elsewhere: what was added or cleared meanwhile may have moved every value to another place.
pub struct BodyStream {
    url: String,
    begun: Bytes,
    rest: Option<Incoming>,
    timeout: Duration,
}

impl BodyStream {
    pub(super) fn new(answer: Answer, timeout: Duration) -> Self {
        Self {
            url: answer.url,
            begun: answer.begun,
            rest: answer.rest,
            timeout,
        }
    }

    /// The next bytes; None at the end of a whole answer.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if !self.begun.is_empty() {
            return Ok(Some(std::mem::take(&mut self.begun)));
        }
        match &mut self.rest {
            Some(rest) => next_bytes(&self.url, rest, self.timeout).await,
            None => Ok(None),
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

    /// Whether nothing more has to come from the node.
    pub(crate) fn is_all_here(&self) -> bool {
        self.body.rest.is_none()
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
