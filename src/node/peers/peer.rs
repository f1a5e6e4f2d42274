//! A peer as the rest of the node sees it: something that is asked, and answers.
//!
//! Invariant: nothing waits for a place in the queue. A request is on its way when `call` returns, or it is refused.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::CallError;
use super::batch::Hurry;
use super::figures::PeerFigures;
use super::link::Link;
use super::on_answer::OnAnswer;
use crate::types::NodeId;
use crate::wire::{Request, Response};

/// The link to one peer. Clones share it.
#[derive(Clone)]
pub struct Peer(pub(super) Arc<Link>);

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.node())
    }
}

impl Peer {
    /// One that nobody dials.
    #[cfg(test)]
    pub fn unconnected(node: NodeId) -> Self {
        Self(Arc::new(Link::new(node, ([127, 0, 0, 1], 1).into(), 1)))
    }

    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Whether it is the same link, and not a later one to the same node.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether there is a connection now. The peer may be frozen all the same: see `silence`.
    pub fn is_up(&self) -> bool {
        self.0.is_up()
    }

    /// How long the oldest request without an answer has waited; zero if none waits.
    pub fn waiting(&self) -> Duration {
        self.0.waiting()
    }

    /// For how long nothing at all has come from the peer while a request waited. Unlike `waiting` it stays low while one request
    /// takes its time and others are answered; a frozen peer shows here.
    pub fn silence(&self) -> Duration {
        self.0.silence()
    }

    /// Sends the request, or refuses it at once. If the `Call` is dropped, the answer is lost; the request is made all the same.
    pub fn call(&self, request: impl Borrow<Request>) -> Result<Call, CallError> {
        self.0.call(request.borrow()).map(Call)
    }

    /// Like [`call`](Self::call), but runs `then` with the answer, or with None if there will be none; when the request is refused, before
    /// this returns.
    pub fn call_then(&self, request: &Request, hurry: Hurry, then: impl FnOnce(Option<Response>) + Send + 'static) {
        // `then` was told.
        let _ = self.0.send(request, hurry, OnAnswer::then(then));
    }

    /// Like [`call`](Self::call), for requests whose answers take long to make. At most `LONG_CALLS_MAX` of them are
    /// with the peer at a time, also when nobody waits for the answer any more, so that they leave room for others;
    /// the rest queue here, not there.
    pub async fn call_in_turn(&self, request: impl FnOnce() -> Request) -> Result<Response, CallError> {
        let turn = self.0.turns.clone().acquire_owned().await;
        let (waiter, answer) = oneshot::channel();
        self.call_then(&request(), Hurry::Now, move |response| {
            drop(turn);
            if let Some(response) = response {
                // Who asked may have given up.
                let _ = waiter.send(response);
            }
        });
        answer.await.map_err(|_| CallError::Lost)
    }

    /// Grows by one each time a connection has been made; 0 before the first.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.0.connections.subscribe()
    }

    /// Counts ops that were taken from the peer to catch up, and about their bytes.
    pub fn note_pulled(&self, ops: u64, bytes: u64) {
        self.0.counters.pulled_ops.add(ops);
        self.0.counters.pulled_bytes.add(bytes);
    }

    /// On all connections to it, with all that is around what it says.
    pub fn bytes_received(&self) -> u64 {
        self.0.meter.received()
    }

    pub fn figures(&self) -> PeerFigures {
        self.0.figures()
    }
}

/// A request on its way. Resolves with the answer, or with `CallError::Lost`.
#[derive(Debug)]
#[must_use = "the answer is lost when this is dropped"]
pub struct Call(pub(super) oneshot::Receiver<Response>);

impl Future for Call {
    type Output = Result<Response, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(answer.map_err(|_| CallError::Lost))
    }
}
