//! One request of many that belong together, which end early when it fails: a round of catching up, an introduction, a promise.

use std::time::Duration;

use crate::node::OpError;
use crate::node::peers::{CallError, Peer};
use crate::wire::{Request, Response, WireError};

/// A request of a round that was not answered by then is given up, and the round with it.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Unless so much came from the peer meanwhile that it may be the answer, on a slow line: many times what keep-alives bring.
const SLOW_ANSWER_BYTES_MIN: u64 = 128 << 10;
/// And then so many times that long: the largest text has come by then.
const SLOW_ANSWER_TURNS: u32 = 60;

/// Why a round ended early; the next one begins anew.
#[derive(Debug, thiserror::Error)]
pub(in crate::node::cluster) enum Broken {
    #[error("the peer does not answer")]
    Peer,
    #[error("the peer takes too long to answer")]
    Late,
    #[error("the peer gave another answer than was asked for")]
    Answer,
    /// It will be no better the next time.
    #[error("the peer refuses the request: {0}")]
    Refused(String),
    #[error("a request takes {0} bytes, more than one message may")]
    TooLarge(usize),
    /// What was compared may not be this node's to hold any more.
    #[error("the members changed meanwhile")]
    Moved,
    #[error(transparent)]
    Local(#[from] OpError),
}

impl Broken {
    /// Waiting does not help.
    pub(in crate::node::cluster) fn stays(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooLarge(_))
    }
}

pub(in crate::node::cluster) async fn ask(peer: &Peer, request: Request) -> Result<Response, Broken> {
    let call = peer.call(request).map_err(|error| match error {
        CallError::TooLarge { bytes } => Broken::TooLarge(bytes),
        _ => Broken::Peer,
    })?;
    match while_it_comes(call, || peer.bytes_received()).await {
        Some(Ok(Response::Failed(WireError::Refused(why)))) => Err(Broken::Refused(why)),
        Some(Ok(response)) => Ok(response),
        Some(Err(_)) => Err(Broken::Peer),
        None => Err(Broken::Late),
    }
}

/// What comes of it, if that does not take too long: longer than usual only while so much is `received` that it may be on its way.
async fn while_it_comes<T>(answer: impl Future<Output = T>, received: impl Fn() -> u64) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    for _ in 0..SLOW_ANSWER_TURNS {
        let before = received();
        if let Ok(answer) = tokio::time::timeout(ANSWER_MAX, &mut answer).await {
            return Some(answer);
        }
        if received() - before < SLOW_ANSWER_BYTES_MIN {
            break;
        }
    }
    None
}

/// On which of its connections the peer is; each new one counts on.
pub(in crate::node::cluster) fn connection_of(peer: &Peer) -> u64 {
    *peer.connections().borrow()
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Whether an answer is waited for that takes so long while so much comes in a second; and for how long it was waited.
    async fn wait_for(answer_s: u64, bytes_per_s: u64) -> (bool, u64) {
        let begun = Instant::now();
        let received = || begun.elapsed().as_secs() * bytes_per_s;
        let answer = sleep(Duration::from_secs(answer_s));
        let answered = while_it_comes(answer, received).await.is_some();
        (answered, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_as_long_as_it_comes() {
        assert_eq!(wait_for(9, 0).await, (true, 9));
        assert_eq!(wait_for(11, 0).await, (false, 10));
        assert_eq!(wait_for(11, 500).await, (false, 10), "these are keep-alives");
        assert_eq!(wait_for(500, 16 << 10).await, (true, 500));
        assert_eq!(wait_for(100_000, 1 << 30).await, (false, 600), "something else comes");
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_once_does_not_count_again() {
        let begun = Instant::now();
        let burst = || if begun.elapsed().is_zero() { 0 } else { 1 << 20 };
        let never = std::future::pending::<()>();
        assert!(while_it_comes(never, burst).await.is_none());
        assert_eq!(begun.elapsed().as_secs(), 20);
    }
}
