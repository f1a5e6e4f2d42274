//! Asking several replicas, until enough of them gave an answer that counts.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::node::peers::Peer;
use crate::wire::{Request, Response};

/// A peer that has not answered anything for so long is asked last.
pub(super) const SLOW: Duration = Duration::from_millis(100);
/// Those that were asked first get so long before the others are asked too: many times what an answer takes, and little for whoever waits.
const HEDGE: Duration = Duration::from_millis(15);

/// The answers that count, at least `want` of them, each with its peer; or, when there cannot be so many, how many there were.
///
/// As many are asked as are needed; the rest when one fails or `HEDGE` went by.
pub(super) async fn gather<T>(
    peers: &[Peer],
    want: usize,
    request: impl Fn() -> Request,
    counts: impl Fn(Response) -> Option<T>,
) -> Result<Vec<(Peer, T)>, usize> {
    let mut answers = Vec::with_capacity(want);
    if want == 0 {
        return Ok(answers);
    }
    if peers.len() < want {
        return Err(peers.len());
    }
    let mut left = peers.iter();
    let mut asked = FuturesUnordered::new();
    let ask = |peer: &Peer| {
        let peer = peer.clone();
        let call = peer.call(request());
        async move {
            match call {
                Ok(call) => (peer, call.await.ok()),
                Err(_) => (peer, None),
            }
        }
    };
    asked.extend(left.by_ref().take(want).map(ask));
    let hedge = tokio::time::sleep(HEDGE);
    tokio::pin!(hedge);
    let mut hedged = false;
    loop {
        tokio::select! {
            biased;
            answer = asked.next() => match answer {
                Some((peer, Some(response))) => match counts(response) {
                    Some(answer) => {
                        answers.push((peer, answer));
                        if answers.len() >= want {
                            return Ok(answers);
                        }
                    }
                    None => asked.extend(left.next().map(ask)),
                },
                Some(_) => asked.extend(left.next().map(ask)),
                None => return Err(answers.len()),
            },
            () = &mut hedge, if !hedged => {
                hedged = true;
                asked.extend(left.by_ref().map(ask));
            }
        }
    }
}
