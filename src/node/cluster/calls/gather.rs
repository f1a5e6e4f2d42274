//! Asking several replicas, until enough of them gave an answer that counts.

use std::borrow::Borrow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::node::peers::{Call, Peer};
use crate::wire::{Request, Response};

/// A peer that has not answered anything for so long is asked last.
pub(in crate::node::cluster) const SLOW: Duration = Duration::from_millis(100);
/// Those that were asked first get so long before the others are asked too: many times what an answer takes, and little for whoever waits.
pub(in crate::node::cluster) const HEDGE: Duration = Duration::from_millis(15);

/// Requests on their way to a few peers. Each is looked at whenever one moves: there are never more than a slot has replicas, and for so
/// few that costs less than knowing which it was.
#[derive(Default)]
struct Calls(Vec<(Peer, Call)>);

impl Calls {
    /// Whether the request could be sent.
    fn begin(&mut self, peer: &Peer, request: impl Borrow<Request>) -> bool {
        let call = peer.call(request);
        let begun = call.is_ok();
        self.0.extend(call.ok().map(|call| (peer.clone(), call)));
        begun
    }

    /// Who answered next, and what, or that its connection was lost; none when nobody is left.
    async fn next(&mut self) -> Option<(Peer, Option<Response>)> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(Peer, Option<Response>)>> {
        for index in 0..self.0.len() {
            if let Poll::Ready(answer) = Pin::new(&mut self.0[index].1).poll(context) {
                let (peer, _) = self.0.remove(index);
                return Poll::Ready(Some((peer, answer.ok())));
            }
        }
        match self.0.is_empty() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }
}

/// The answers that count, at least `want` of them, each with its peer; or, when there cannot be so many, how many there were.
///
/// As many are asked as are needed; the rest when one fails or `HEDGE` went by.
pub(in crate::node::cluster) async fn gather<T>(
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
    let mut calls = Calls::default();
    // One that cannot even be asked is as one that failed.
    let mut ask_another = |calls: &mut Calls| left.any(|peer| calls.begin(peer, request()));
    for _ in 0..want {
        ask_another(&mut calls);
    }
    let hedge = tokio::time::sleep(HEDGE);
    tokio::pin!(hedge);
    let mut hedged = false;
    loop {
        tokio::select! {
            biased;
            answer = calls.next() => {
                let Some((peer, response)) = answer else {
                    return Err(answers.len());
                };
                match response.and_then(&counts) {
                    Some(answer) => answers.push((peer, answer)),
                    None => {
                        ask_another(&mut calls);
                    }
                }
                if answers.len() >= want {
                    return Ok(answers);
                }
            }
            () = &mut hedge, if !hedged => {
                hedged = true;
                while ask_another(&mut calls) {}
            }
        }
    }
}
