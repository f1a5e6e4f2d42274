//! The tries of one forwarded request: each a replica that it was sent to and that has not answered.
//!
//! Invariant: a reader that was opened for it and that nobody waits for is closed again, whether another replica was quicker or the one who
//! asked went away.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::node::peers::{Call, CallError, Peer};
use crate::wire::{Request, Response};

#[derive(Default)]
pub(in crate::node::cluster) struct Tries {
    calls: FuturesUnordered<Try>,
    /// The number of the reader that the request opens, if it does.
    reader: Option<u64>,
}

struct Try {
    peer: Peer,
    call: Result<Call, Option<CallError>>,
}

impl Tries {
    pub(in crate::node::cluster) fn begin(&mut self, peer: Peer, request: &Request) {
        if let Request::Read { reader, .. } = request {
            self.reader = Some(*reader);
        }
        let call = peer.call(request).map_err(Some);
        self.calls.push(Try { peer, call });
    }

    pub(in crate::node::cluster) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Who answers next; None when nobody is left.
    pub(in crate::node::cluster) async fn next(&mut self) -> Option<(Peer, Result<Response, CallError>)> {
        self.calls.next().await
    }
}

impl Future for Try {
    type Output = (Peer, Result<Response, CallError>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.call {
            Ok(call) => ready!(Pin::new(call).poll(context)),
            Err(error) => Err(error.take().unwrap_or(CallError::Lost)),
        };
        Poll::Ready((self.peer.clone(), answer))
    }
}

impl Drop for Tries {
    fn drop(&mut self) {
        let (Some(reader), false) = (self.reader, self.calls.is_empty()) else {
            return;
        };
        // Without a runtime the connections end too, and the readers with them.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut calls = std::mem::take(&mut self.calls);
        runtime.spawn(async move {
            // Not before the answer: what is still being opened cannot be closed.
            while let Some((peer, answer)) = calls.next().await {
                if let Ok(Response::Page(_)) = answer {
                    let _ = peer.call(Request::ReadEnd { reader });
                }
            }
        });
    }
}
