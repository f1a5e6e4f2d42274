//! One connection of another node, whose requests are answered. One task does most of it: it reads, answers what can be answered on the
//! spot, drives the short work, and writes all answers that are ready in one go.
//!
//! Invariants:
//! - what a connection has at work is bounded, and so are the answers that wait to be written; beyond that nothing more is read from it;
//! - the service hears of a connection's end exactly once, however it ends, and none of its requests is at work any more then.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::answers::Answers;
use super::batch::send;
use super::connection::Ended;
use super::figures::Counter;
use super::handshakes::Place;
use super::link::CALLS_BYTES_MAX;
use super::meter::{Meter, Metered};
use super::pending::CALLS_MAX;
use super::shared::{Shared, WrongPeer};
use crate::env::{BoxFuture, Stream};
use crate::net::{self, Channel, FrameReader};
use crate::types::NodeId;
use crate::wire::{Message, Request, Response, WireError};

/// Requests of one connection at work, and their bytes: as many as an honest peer has without an answer, so that only others are stopped.
const AT_WORK_MAX: usize = CALLS_MAX;
const AT_WORK_BYTES_MAX: usize = CALLS_BYTES_MAX;
/// Of those, the ones with large answers: each may be as large as a message, and is in memory until those before it are written. One bound
/// is for pages, one for what a replica lacks of a key: where a key is read at a quorum, a page waits for the latter, so they have no bound
/// in common.
const LARGE_AT_WORK_MAX: [usize; 2] = [32, 8];
/// How often to look whether anything came.
const LOOK_MS: u64 = 500;
/// A peer that for so many looks sent nothing, and took nothing, is gone: its own keep-alives come every two seconds at least.
const SILENT_LOOKS_MAX: u64 = 20;
/// An answer with this id is one to no request. The lower bits of an id are a place among so many.
const NOBODY: u64 = u64::MAX;

/// From the first byte to the end of a connection that was made at `from`. `place` is held until it is known who that is.
pub async fn serve(
    shared: Arc<Shared>,
    from: SocketAddr,
    stream: Box<dyn Stream>,
    mut place: Place,
    meter: Arc<Meter>,
) {
    let stream = Metered::new(stream, shared.meter.clone());
    let stream = Metered::new(Box::new(stream), meter.clone());
    let let_in = tokio::select! {
        biased;
        let_in = let_in(&shared, Box::new(stream)) => let_in,
        () = place.lost() => Err(WrongPeer::TooMany),
    };
    let channel = match let_in {
        Ok(channel) => channel,
        Err(error) => {
            shared.counters.refused.add(1);
            if shared.may_complain() {
                tracing::warn!(%from, why = %error, "a connection to the peer port was refused");
            }
            return;
        }
    };
    drop(place);
    shared.counters.accepted.add(1);
    let served = Served::new(shared, channel.peer.node);
    let Err(ended) = run(&served, channel, &meter).await;
    if ended.is_garbage() {
        served.shared.counters.garbage.add(1);
        tracing::warn!(node = %served.from, why = %ended, "the connection of a peer was closed");
    } else {
        tracing::debug!(node = %served.from, why = %ended, "the connection of a peer ended");
    }
}

async fn let_in(shared: &Shared, stream: Box<dyn Stream>) -> Result<Channel, WrongPeer> {
    let channel = net::accept(stream, &shared.local()).await?;
    shared.check(&channel.peer, None)?;
    Ok(channel)
}

/// A connection that is served.
struct Served {
    shared: Arc<Shared>,
    from: NodeId,
    connection: u64,
}

impl Served {
    fn new(shared: Arc<Shared>, from: NodeId) -> Self {
        shared.counters.serving.fetch_add(1, Relaxed);
        let connection = shared.connections.fetch_add(1, Relaxed);
        Self {
            shared,
            from,
            connection,
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shared.counters.serving.fetch_sub(1, Relaxed);
        self.shared.service.connection_ended(self.from, self.connection);
    }
}

async fn run(served: &Served, channel: Channel, meter: &Meter) -> Result<Infallible, Ended> {
    let answers = Answers::default();
    let frames = Counter::default();
    tokio::select! {
        biased;
        ended = Server::new(served, &answers).receive(channel.reader) => ended,
        ended = send(&answers, channel.writer, &frames) => ended.map_err(Ended::from),
        ended = watch(meter, &answers, &frames) => ended,
    }
}

/// Ends when the peer is gone, and tells it meanwhile that it is heard.
///
/// A request may be long on its way, and its sender cannot tell a slow line from a node that reads nothing, for its keep-alive waits behind
/// that request. So while bytes come and nothing is answered, an answer to no request (`NOBODY`) says that they come. And while much waits to
/// be taken by it nothing is read from it (`Server::receive`), so that it takes some is a sign as well.
async fn watch(meter: &Meter, answers: &Answers, frames: &Counter) -> Result<Infallible, Ended> {
    let look = || (meter.received(), meter.sent(), frames.get());
    let (mut before, mut silent_looks) = (look(), 0);
    while silent_looks < SILENT_LOOKS_MAX {
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        let now = look();
        let (is_heard, takes, is_answered) = (now.0 != before.0, now.1 != before.1, now.2 != before.2);
        if is_heard && !is_answered {
            answers.add(NOBODY, &Response::Done);
        }
        silent_looks = if is_heard || takes { 0 } else { silent_looks + 1 };
        before = now;
    }
    Err(Ended::Silent)
}

struct Server<'a> {
    served: &'a Served,
    answers: &'a Answers,
    work: FuturesUnordered<Work>,
    /// Of each kind of large answers.
    large: [Large; 2],
    /// Encoded requests of all work, and of what is put off.
    work_bytes: usize,
}

#[derive(Default)]
struct Large {
    at_work: usize,
    /// Requests for more of them, in the order they came.
    put_off: VecDeque<PutOff>,
}

struct PutOff {
    id: u64,
    request: Request,
    bytes: usize,
    came: Instant,
}

impl PutOff {
    /// With the time that is left for it now; none if nobody waits for it any more.
    fn still_wanted(mut self) -> Option<Self> {
        if let Request::Read { terms, .. } = &mut self.request {
            let waited_ms = u32::try_from(self.came.elapsed().as_millis()).unwrap_or(u32::MAX);
            terms.left_ms = terms.left_ms.checked_sub(waited_ms).filter(|left_ms| *left_ms > 0)?;
        }
        Some(self)
    }
}

impl<'a> Server<'a> {
    fn new(served: &'a Served, answers: &'a Answers) -> Self {
        Self {
            served,
            answers,
            work: FuturesUnordered::new(),
            large: Default::default(),
            work_bytes: 0,
        }
    }

    async fn receive(mut self, mut reader: FrameReader) -> Result<Infallible, Ended> {
        loop {
            self.answers.room().await;
            tokio::select! {
                biased;
                Some(done) = self.work.next() => self.finish(done),
                frame = reader.recv() => {
                    let mut frame = Some(frame?.ok_or(Ended::Closed)?);
                    while let Some(bytes) = frame {
                        self.take_frame(&bytes).await?;
                        frame = reader.try_recv()?;
                    }
                }
            }
        }
    }

    async fn take_frame(&mut self, frame: &Bytes) -> Result<(), Ended> {
        let mut rest = &frame[..];
        while !rest.is_empty() {
            self.make_room().await;
            let left = rest.len();
            match Message::decode(&mut rest)? {
                Message::Request(id, request) => self.begin(id, request, left - rest.len()),
                Message::Response(..) => return Err(Ended::NoRequest),
            }
        }
        Ok(())
    }

    /// Returns when another request may be taken.
    async fn make_room(&mut self) {
        let put_off = |large: &[Large; 2]| large.iter().map(|large| large.put_off.len()).sum::<usize>();
        while self.work.len() + put_off(&self.large) >= AT_WORK_MAX || self.work_bytes >= AT_WORK_BYTES_MAX {
            self.answers.room().await;
            if let Some(done) = self.work.next().await {
                self.finish(done);
            }
        }
    }

    /// Answers the request on the spot, or takes it to work.
    fn begin(&mut self, id: u64, request: Request, bytes: usize) {
        let Served { shared, from, .. } = self.served;
        shared.counters.requests.add(1);
        let now = match &request {
            Request::Ping => Some(Response::Done),
            Request::Unknown(why) => {
                if shared.may_complain() {
                    tracing::warn!(node = %from, why, "a request of a peer is not known here; is it newer?");
                }
                Some(Response::Failed(WireError::Refused(why.clone())))
            }
            _ => shared.service.answer_now(*from, &request),
        };
        if let Some(response) = now {
            self.answers.add(id, &response);
            return;
        }
        self.work_bytes += bytes;
        match kind_of_large(&request) {
            Some(kind) if self.large[kind].at_work >= LARGE_AT_WORK_MAX[kind] => {
                self.large[kind].put_off.push_back(PutOff {
                    id,
                    request,
                    bytes,
                    came: Instant::now(),
                });
            }
            _ => self.work_on(id, request, bytes),
        }
    }

    fn work_on(&mut self, id: u64, request: Request, bytes: usize) {
        let Served {
            shared,
            from,
            connection,
        } = self.served;
        // An `Ask` that was not answered on the spot looks something up, in a turn that others wait for: it must not wait for room for answers.
        let is_short = matches!(
            request,
            Request::Append(_) | Request::Digest { .. } | Request::Compare { .. }
        );
        let large = kind_of_large(&request);
        let answer = shared.service.answer(*from, *connection, request);
        let answer = match is_short {
            true => Answer::Here(answer),
            false => Answer::There(tokio::spawn(answer)),
        };
        if let Some(kind) = large {
            self.large[kind].at_work += 1;
        }
        self.work.push(Work {
            id,
            bytes,
            large,
            answer,
        });
        self.answers.set_at_work(self.work.len());
    }

    fn finish(&mut self, done: Done) {
        self.work_bytes -= done.bytes;
        self.answers.set_at_work(self.work.len());
        self.answers.add(done.id, &done.response);
        let Some(kind) = done.large else { return };
        self.large[kind].at_work -= 1;
        while let Some(put_off) = self.large[kind].put_off.pop_front() {
            let (id, bytes) = (put_off.id, put_off.bytes);
            if let Some(PutOff { request, .. }) = put_off.still_wanted() {
                return self.work_on(id, request, bytes);
            }
            self.work_bytes -= bytes;
            let late = WireError::Deadline { maybe_applied: false };
            self.answers.add(id, &Response::Failed(late));
        }
    }
}

/// Whether the answer may be large, and by which bound. None of these waits for another of its kind, on this connection or at a third node.
fn kind_of_large(request: &Request) -> Option<usize> {
    match request {
        Request::Read { .. } | Request::ReadNext { .. } | Request::PullNext { .. } => Some(0),
        Request::SyncKey { .. } => Some(1),
        _ => None,
    }
}

/// A request at work.
struct Work {
    id: u64,
    bytes: usize,
    /// The kind of its answer, if that may be large.
    large: Option<usize>,
    answer: Answer,
}

struct Done {
    id: u64,
    bytes: usize,
    large: Option<usize>,
    response: Response,
}

enum Answer {
    /// In the connection's own task: when a commit answers many of them at once, that wakes one task, not many.
    Here(BoxFuture<'static, Response>),
    /// In a task of its own, as it may keep its thread for a while.
    There(JoinHandle<Response>),
}

impl Future for Work {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Done> {
        let response = match &mut self.answer {
            Answer::Here(answer) => ready!(answer.as_mut().poll(context)),
            Answer::There(task) => ready!(Pin::new(task).poll(context)).unwrap_or_else(|_panicked| {
                let maybe_applied = true;
                Response::Failed(WireError::Unavailable { maybe_applied })
            }),
        };
        Poll::Ready(Done {
            id: self.id,
            bytes: self.bytes,
            large: self.large,
            response,
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Answer::There(task) = &self.answer {
            task.abort();
        }
    }
}
