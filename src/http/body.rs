//! Reads a request's body under a permit for its bytes.
//!
//! The permit grows while the body arrives, so a slow client holds only what it has sent, and it is kept until the call is
//! done, so it also covers bytes that wait further down. A client that sends slower than the configured rate is cut off. Short bodies have
//! permits of their own: whoever sends long ones, and may be nobody's user, must not stop what is asked in a few bytes.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, EXPECT, HeaderMap, HeaderValue};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::quota::{Quota, Share};
use crate::types::BODY_BYTES_MAX;

use super::answer::Hold;
use super::config::{FrontConfig, LINGER_BYTES_MAX, LINGER_TIME, SHORT_BODY_BYTES_MAX};
use super::failure::Failure;
use super::front::Front;
use super::metrics::Refusal;

/// A whole body with the permit for it.
pub struct Held {
    pub bytes: Bytes,
    _permit: Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    TooLarge,
    NoPermit,
    TooSlow,
    Broken,
}

/// The content encoding, if the body has one: it would have to be unpacked.
pub fn encoding(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut all = headers.get_all(CONTENT_ENCODING).iter();
    all.find(|encoding| !encoding.is_empty() && !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

pub async fn read<B>(front: &Front<B>, headers: &HeaderMap, mut body: Incoming, hold: &Hold) -> Result<Held, Failure> {
    let (refused, asked_for) = match Permit::of(front, &body) {
        Err(refused) => (refused, false),
        Ok(permit) => match collect(front, &mut body, permit).await {
            Ok(held) => return Ok(held),
            Err(refused) => (refused, true),
        },
    };
    let linger = || match asked_for {
        true => read_on(body, hold),
        false => linger(headers, body, hold),
    };
    Err(match refused {
        Refused::TooLarge => {
            linger();
            Failure::body_too_large()
        }
        Refused::NoPermit => {
            front.metrics.refused(Refusal::BodyBytes);
            linger();
            Failure::too_many("bytes of bodies")
        }
        Refused::TooSlow => {
            front.metrics.refused(Refusal::SlowBody);
            Failure::body_too_slow()
        }
        Refused::Broken => Failure::body_broken(),
    })
}

/// The body's length, if the head declares it.
fn declared(body: &Incoming) -> Option<usize> {
    let bytes = body.size_hint().exact();
    bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

async fn collect<B>(front: &Front<B>, body: &mut Incoming, mut permit: Permit<'_>) -> Result<Held, Refused> {
    let declared = declared(body);
    let mut pace = Pace::new(&front.config);
    // The usual body comes in one frame and is not copied.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut received = 0;
    while let Some(data) = next_data(body, pace.deadline(received)).await? {
        received += data.len();
        pace.came(received);
        if received > BODY_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        if !permit.grow_to(received) {
            return Err(Refused::NoPermit);
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(declared.unwrap_or(received).min(2 * received));
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Held {
        bytes: if whole.is_empty() { first } else { whole.freeze() },
        _permit: permit.share,
    })
}

/// For the bytes of one body.
struct Permit<'a> {
    share: Share,
    long: &'a Quota,
    is_short: bool,
}

impl<'a> Permit<'a> {
    /// For none of its bytes yet: those of a body that never comes are nobody else's loss. One for which there is no room now is refused.
    fn of<B>(front: &'a Front<B>, body: &Incoming) -> Result<Self, Refused> {
        let declared = declared(body).unwrap_or(0);
        if declared > BODY_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        let (short, long) = (&front.short_body_bytes, &front.body_bytes);
        let is_short = declared <= SHORT_BODY_BYTES_MAX && declared <= short.free();
        if !is_short && declared > long.free() {
            return Err(Refused::NoPermit);
        }
        let share = if is_short { short.none() } else { long.none() };
        Ok(Self { share, long, is_short })
    }

    fn grow_to(&mut self, bytes: usize) -> bool {
        if self.is_short && bytes <= SHORT_BODY_BYTES_MAX && self.share.grow_to(bytes) {
            return true;
        }
        if !self.is_short {
            return self.share.grow_to(bytes);
        }
        let Some(share) = self.long.take(bytes) else {
            return false;
        };
        (self.share, self.is_short) = (share, false);
        true
    }
}

/// How fast a body comes. What came quickly is credit for `body_grace`, and no longer.
struct Pace<'a> {
    config: &'a FrontConfig,
    since: Instant,
    /// Bytes that had come by then.
    had: usize,
}

impl<'a> Pace<'a> {
    fn new(config: &'a FrontConfig) -> Self {
        Self {
            config,
            since: Instant::now(),
            had: 0,
        }
    }

    /// How much time the bytes that came since then are worth, at the lowest rate.
    fn worth(&self, received: usize) -> Duration {
        let rate = u64::from(self.config.body_bytes_per_s_min.max(1));
        Duration::from_millis((received - self.had) as u64 * 1000 / rate)
    }

    /// When more than these bytes must have come.
    fn deadline(&self, received: usize) -> Instant {
        self.since + self.config.body_grace + self.worth(received)
    }

    fn came(&mut self, received: usize) {
        if self.worth(received) >= self.config.body_grace {
            (self.since, self.had) = (Instant::now(), received);
        }
    }
}

/// The next data that is not empty; None at the end of the body.
async fn next_data(body: &mut Incoming, deadline: Instant) -> Result<Option<Bytes>, Refused> {
    while !body.is_end_stream() {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Refused::TooSlow),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(Refused::Broken),
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
        // Trailers and empty frames carry nothing; the deadline stands.
    }
    Ok(None)
}

/// For a body of which nothing was asked for: not when the client asked before sending, for then it sends nothing.
pub fn linger(headers: &HeaderMap, body: Incoming, hold: &Hold) {
    if !headers.contains_key(EXPECT) {
        read_on(body, hold);
    }
}

/// Reads on for a while without keeping anything, so that the client gets to read why its body was refused. So long its stream is there.
fn read_on(mut body: Incoming, hold: &Hold) {
    let stream = hold.stream();
    tokio::spawn(timeout(LINGER_TIME, async move {
        let _stream = stream;
        let mut left = LINGER_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(bytes);
            if left == 0 {
                return;
            }
        }
    }));
}
