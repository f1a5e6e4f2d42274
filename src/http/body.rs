//! Reads a request's body under a permit for its bytes.
//!
//! The permit grows while the body arrives, so a slow client holds only what it has sent, and it is kept until the call is
//! done, so it also covers bytes that wait further down. A client that sends slower than the configured rate is cut off.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{EXPECT, HeaderMap};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::quota::Share;
use crate::types::BODY_BYTES_MAX;

use super::config::{BODY_STEP_BYTES, FrontConfig, LINGER_BYTES_MAX, LINGER_TIME};
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

pub async fn read<B>(front: &Front<B>, headers: &HeaderMap, mut body: Incoming) -> Result<Held, Failure> {
    let refused = match collect(front, &mut body).await {
        Ok(held) => return Ok(held),
        Err(refused) => refused,
    };
    Err(match refused {
        Refused::TooLarge => {
            linger(headers, body);
            Failure::body_too_large()
        }
        Refused::NoPermit => {
            front.metrics.refused(Refusal::BodyBytes);
            linger(headers, body);
            Failure::too_many("bytes of bodies")
        }
        Refused::TooSlow => {
            front.metrics.refused(Refusal::SlowBody);
            Failure::body_too_slow()
        }
        Refused::Broken => Failure::body_broken(),
    })
}

async fn collect<B>(front: &Front<B>, body: &mut Incoming) -> Result<Held, Refused> {
    let config = &front.config;
    let declared = body
        .size_hint()
        .exact()
        .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if let Some(declared) = declared {
        if declared > BODY_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        if declared > front.body_bytes.free() {
            return Err(Refused::NoPermit);
        }
    }
    let first_step = declared.unwrap_or(0).min(BODY_STEP_BYTES);
    let mut permit = front.body_bytes.take(first_step).ok_or(Refused::NoPermit)?;
    let started = Instant::now();
    // The usual body comes in one frame and is not copied.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut received = 0;
    while let Some(data) = next_data(body, started + time_for(received, config)).await? {
        received += data.len();
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
        _permit: permit,
    })
}

/// How long after its start a body may be incomplete of which `received` bytes are there.
fn time_for(received: usize, config: &FrontConfig) -> Duration {
    let rate = u64::from(config.body_bytes_per_s_min.max(1));
    config.body_grace + Duration::from_millis(received as u64 * 1000 / rate)
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

/// Reads on for a while without keeping anything, so that the client gets to read why its body was refused. Not when it
/// asked before sending: then it sends nothing.
pub fn linger(headers: &HeaderMap, mut body: Incoming) {
    if headers.contains_key(EXPECT) {
        return;
    }
    tokio::spawn(timeout(LINGER_TIME, async move {
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
