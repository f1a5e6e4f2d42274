//! One request: route, permits, the call, then log and metrics. Holds what all requests share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::api::OutageCode;
use crate::quota::{Quota, Share};
use crate::types::UserId;

use super::admission::Admission;
use super::answer::{Answer, AnswerBody, Hold};
use super::backend::Backend;
use super::body;
use super::calls::{batch, cluster, keys, users};
use super::config::{
    BODY_READ_BEFORE_REFUSAL_MAX, FrontConfig, H2_STREAMS_OWN_MIN, H2_STREAMS_PART, RETRY_AFTER_S, STREAMS_WAITING_MAX,
    TURNED_AWAY_MAX, TURNED_AWAY_PART,
};
use super::connection::{Activity, Busy, Connections};
use super::failure::Failure;
use super::metrics::{self, MetricSource, Metrics, Refusal};
use super::openapi;
use super::request::Submitted;
use super::route::{COUNTS, Call};
use super::shape::Shape;

/// A body up to this size is hardly more than the headers, and needs no permit.
const SMALL_ANSWER_BYTES: usize = 128;

/// The front's state, shared by all its connections.
pub struct Front<B> {
    pub(super) backend: B,
    pub(super) config: FrontConfig,
    pub(super) metrics: Metrics,
    pub(super) connections: Connections,
    /// A permit for each stream over HTTP/2, until its answer has been taken: a connection costs a file, a stream nothing but memory.
    h2_streams: Quota,
    /// A permit for each request in flight.
    pub(super) requests: Arc<Semaphore>,
    /// Calls that write values are bounded apart from those that read: a disk that stands still must not stop what can be read without it.
    pub(super) writes: Admission,
    reads: Admission,
    /// Changes of users and members, which wait for each other, are bounded apart again.
    changes: Admission,
    /// A permit for each byte of a body in flight.
    pub(super) body_bytes: Quota,
    /// Permits for the bytes of short bodies, as most are; when all are held, short bodies use those above.
    pub(super) short_body_bytes: Quota,
    /// A permit for each byte of an answer that is being made or sent. Apart from those of bodies: clients that are slow to take their
    /// answers must not stop writes.
    answer_bytes: Quota,
    /// A permit for each stream that waits for more of these.
    pub(super) waiting_streams: Quota,
    /// A permit for each byte of answers that anybody may get, without credentials. Apart again: strangers must not stop reads.
    pub(super) public_bytes: Quota,
    /// A permit for each connection that found no place and is about to be told so.
    pub(super) turned_away: Quota,
    pub(super) draining: AtomicBool,
    openapi: Bytes,
}

impl<B: Backend> Front<B> {
    /// `sources` add what they count to `/metrics`.
    pub fn new(config: FrontConfig, backend: B, sources: &[&dyn MetricSource]) -> Arc<Self> {
        Arc::new(Self {
            backend,
            metrics: Metrics::new(sources),
            connections: Connections::default(),
            h2_streams: Quota::new(config.h2_streams_max),
            requests: Arc::new(Semaphore::new(config.requests_in_flight_max)),
            writes: Admission::new(config.requests_at_work_max, config.requests_in_flight_max),
            reads: Admission::new(config.requests_at_work_max, config.requests_in_flight_max),
            changes: Admission::new(config.requests_at_work_max, config.requests_in_flight_max),
            body_bytes: Quota::new(config.body_bytes_in_flight_max),
            short_body_bytes: Quota::new(config.short_body_bytes_in_flight_max),
            answer_bytes: Quota::new(config.answer_bytes_in_flight_max),
            waiting_streams: Quota::new(STREAMS_WAITING_MAX),
            public_bytes: Quota::new(config.public_bytes_in_flight_max),
            turned_away: Quota::new((config.connections_max / TURNED_AWAY_PART).clamp(1, TURNED_AWAY_MAX)),
            draining: AtomicBool::new(false),
            openapi: openapi::document().to_string().into(),
            config,
        })
    }

    /// A permit for `bytes` more of an answer.
    pub(super) fn answer_room(&self, bytes: usize) -> Result<Share, Failure> {
        self.answer_bytes.take(bytes).ok_or_else(|| {
            self.metrics.refused(Refusal::AnswerBytes);
            Failure::too_many("bytes of answers")
        })
    }

    fn refusal(&self, failure: Failure) -> Answer {
        let outage = failure.outage;
        let answer = Answer::from(failure);
        match self.public_bytes.take(answer.uncovered_bytes()) {
            Some(room) => answer.holding(Some(room)),
            None => answer.cut_short(outage),
        }
    }

    /// An answer to good credentials, under a permit for its bytes. The answer to a write is small, or got its permit before the write was
    /// done: no write is refused afterwards.
    fn covered(&self, answer: Answer) -> Result<Answer, Failure> {
        let bytes = answer.uncovered_bytes();
        if bytes <= SMALL_ANSWER_BYTES {
            return Ok(answer);
        }
        let room = self.answer_room(bytes)?;
        Ok(answer.holding(Some(room)))
    }

    #[cfg(test)]
    pub(super) fn free_answer_bytes(&self) -> usize {
        self.answer_bytes.free()
    }

    /// What a request over HTTP/2 holds from the end of its head on, or why its stream is reset: an answer would need the place that there is
    /// not, until it is taken. The reason says that nothing was done.
    pub(super) fn begin_stream(
        &self,
        activity: &Arc<Activity>,
        request: &Request<Incoming>,
    ) -> Result<Busy, h2::Error> {
        let stream = self.stream_place(activity.busy())?;
        Ok(Busy::new(activity, Some(stream), request.body().size_hint().exact()))
    }

    /// A place among the streams of all connections, for one that has `own` of them. The fewer are left, the fewer it may have.
    fn stream_place(&self, own: u64) -> Result<Share, h2::Error> {
        let own_max = (self.h2_streams.free() / H2_STREAMS_PART).max(H2_STREAMS_OWN_MIN);
        let place = match own < own_max as u64 {
            true => self.h2_streams.take(1),
            false => None,
        };
        place.ok_or_else(|| {
            self.metrics.refused(Refusal::Streams);
            h2::Reason::REFUSED_STREAM.into()
        })
    }

    pub(super) async fn handle(&self, from: IpAddr, busy: Busy, request: Request<Incoming>) -> Response<AnswerBody> {
        let started = Instant::now();
        let mut hold = Hold::new(busy);
        let (head, body) = request.into_parts();
        let call = Call::of_path(head.uri.path());
        let mut user = None;
        let answer = match self.answer(call, &head, body, from, &mut hold, &mut user).await {
            Ok(answer) => answer,
            Err(failure) => self.refusal(failure),
        };
        let took = started.elapsed();
        self.metrics.finished(call, answer.status, took);
        let user = user.as_ref().map(UserId::as_str);
        tracing::debug!(
            call = call.name(),
            status = answer.status.as_u16(),
            duration_us = took.as_micros() as u64,
            user,
            "request"
        );
        answer.into_response(head.method == Method::HEAD, hold)
    }

    async fn answer(
        &self,
        call: Call,
        head: &Parts,
        body: Incoming,
        from: IpAddr,
        hold: &mut Hold,
        user: &mut Option<UserId>,
    ) -> Result<Answer, Failure> {
        let refused = if call == Call::Unknown {
            Failure::not_found()
        } else if !call.takes(&head.method) {
            Failure::method_not_allowed(call.allow())
        } else if let Some(encoding) = body::encoding(&head.headers).filter(|_| call.shape().is_some()) {
            Failure::encoded_body(encoding)
        } else if let Some(shape) = call.shape() {
            if !self.refuses_unread(call, &body) {
                let body = body::read(self, &head.headers, body, hold).await?;
                hold.permit = Some(self.request_place(call)?);
                return self.carry_out(call, shape, head, body, from, user).await;
            }
            self.overloaded()
        } else {
            return self.probe(call, head.uri.query());
        };
        if !body.is_end_stream() {
            body::linger(&head.headers, body, hold);
        }
        Err(refused)
    }

    /// A large body is not even read when its request would be refused.
    fn refuses_unread(&self, call: Call, body: &Incoming) -> bool {
        body.size_hint().lower() > BODY_READ_BEFORE_REFUSAL_MAX && self.is_full(call)
    }

    fn is_full(&self, call: Call) -> bool {
        self.requests.available_permits() == 0 || self.admission(call).is_full(Instant::now)
    }

    /// Taken once the body has come: while it does not, a request is no more than its connection or stream, and its bytes are counted. The
    /// place at work is taken once it is known who asks.
    fn request_place(&self, call: Call) -> Result<OwnedSemaphorePermit, Failure> {
        if self.is_full(call) {
            return Err(self.overloaded());
        }
        self.requests.clone().try_acquire_owned().map_err(|_| self.overloaded())
    }

    fn admission(&self, call: Call) -> &Admission {
        match call {
            Call::GetValue | Call::ListKeys | Call::ClusterStatus => &self.reads,
            Call::AddValue | Call::ClearKey | Call::Batch => &self.writes,
            _ => &self.changes,
        }
    }

    pub(super) fn overloaded(&self) -> Failure {
        self.metrics.refused(Refusal::Requests);
        Failure::too_many("requests")
    }

    async fn carry_out(
        &self,
        call: Call,
        shape: &'static Shape,
        head: &Parts,
        body: body::Held,
        from: IpAddr,
        user: &mut Option<UserId>,
    ) -> Result<Answer, Failure> {
        let submitted = Submitted::new(self, self.admission(call), shape, body, &head.headers, from);
        // The rare calls are boxed, so that each connection has room only for the frequent ones.
        let result = match call {
            Call::AddValue => keys::add_value(&submitted).await,
            Call::GetValue => keys::get_value(&submitted).await,
            Call::ClearKey => keys::clear_key(&submitted).await,
            Call::ListKeys => Box::pin(keys::list_keys(&submitted)).await,
            Call::Batch => Box::pin(batch::run(&submitted)).await,
            Call::UsersList => Box::pin(users::list(&submitted)).await,
            Call::UsersAdd => Box::pin(users::add(&submitted)).await,
            Call::UsersRemove => Box::pin(users::remove(&submitted)).await,
            Call::UsersPasswd => Box::pin(users::passwd(&submitted)).await,
            Call::ClusterStatus => Box::pin(cluster::status(&submitted)).await,
            Call::ClusterRemove => Box::pin(cluster::remove(&submitted)).await,
            Call::ClusterReplace => Box::pin(cluster::replace(&submitted)).await,
            Call::Healthz | Call::Readyz | Call::Metrics | Call::OpenApi | Call::Unknown => Err(Failure::not_found()),
        };
        *user = submitted.into_user();
        self.covered(result?)
    }

    fn why_not_ready(&self, query: Option<&str>) -> Option<String> {
        let mut names = query.unwrap_or_default().split('&').map(|part| part.split('=').next());
        match names.any(|name| name == Some(COUNTS)) {
            true => self.backend.why_not_counting(),
            false => self.backend.why_not_ready(),
        }
    }

    /// The calls without a body. They take no permit for a request: an overloaded node must still be observable.
    fn probe(&self, call: Call, query: Option<&str>) -> Result<Answer, Failure> {
        match call {
            Call::Healthz => Ok(Answer::status_ok()),
            Call::Readyz if self.draining.load(Relaxed) => {
                let outage = OutageCode::ShuttingDown.unchanged();
                Err(Failure::passing(outage, RETRY_AFTER_S, "the node is shutting down"))
            }
            Call::Readyz => match self.why_not_ready(query) {
                Some(why) => Err(Failure::passing(OutageCode::NotReady.unchanged(), RETRY_AFTER_S, why)),
                None => Ok(Answer::status_ok()),
            },
            Call::Metrics => {
                let in_flight = self
                    .config
                    .requests_in_flight_max
                    .saturating_sub(self.requests.available_permits());
                let free = self.body_bytes.free() + self.short_body_bytes.free();
                let most = self.config.body_bytes_in_flight_max + self.config.short_body_bytes_in_flight_max;
                let held = most.saturating_sub(free);
                let (text, room) = self.metrics.text_within(&self.public_bytes, in_flight, held);
                Ok(Answer::text(metrics::CONTENT_TYPE, text).holding(room))
            }
            Call::OpenApi => Ok(Answer::json(self.openapi.clone())),
            _ => Err(Failure::not_found()),
        }
    }
}
