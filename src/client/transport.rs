//! One try of a request at one node, over pooled connections; [`Course`] decides about tries.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::connect::Connector;
use super::course::Course;
use super::decode::{DecodeError, ValueDecoder};
use super::error::{ClientError, unconnected, unreachable};
use super::nodes::Nodes;
use super::notice::Notice;
use super::repeat::{Again, Patience, Repeat};
use super::upload::{Progress, Upload};
use crate::api::path::HEALTHZ;
use crate::env::Net;

/// Longest wait for one connection: so that a host that is down does not hide the next one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A node that serves answers what asks for nothing within this, however much it has to do.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// Idle connections are given up before the usual proxies and servers close them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Largest answer that is read into memory: a full page of the longest keys, each byte escaped as six.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest body of an error that is read.
const ERROR_BYTES_MAX: usize = 1024 * 1024;
/// An answer to be streamed that is known to be this short is read whole before it counts as one.
const SHORT_BYTES_MAX: u64 = 1024 * 1024;
/// So much of an answer to be streamed is looked at before it counts as one.
const CHECKED_BYTES: usize = 16 * 1024;

/// An answer with status 200, and who gave it.
pub(super) struct Answer {
    pub url: String,
    /// What was read of it already.
    pub begun: Bytes,
    /// None: that was all.
    pub rest: Option<Incoming>,
}

/// Limits of the calls of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Longest silence of a node that has the request.
    pub timeout: Duration,
    pub patience: Patience,
    /// Longest text of one request.
    pub part_bytes: usize,
}

pub(super) struct Transport {
    http: HttpClient<Connector, Upload>,
    pub nodes: Nodes,
    notice: Option<Notice>,
}

impl Transport {
    pub fn new(urls: &[String], net: Option<Arc<dyn Net>>, notice: Option<Notice>) -> Result<Self, ClientError> {
        let nodes = Nodes::new(urls)?;
        let connector = Connector::new(net, CONNECT_TIMEOUT);
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self { http, nodes, notice })
    }

    /// Sends the request and reads the whole answer; `decode` is given who answered, and what.
    pub async fn call<T>(
        &self,
        path: &str,
        body: Bytes,
        repeat: Repeat<'_>,
        limits: Limits,
        decode: impl Fn(&str, &[u8]) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let decode = &decode;
        let course = self.course(repeat, limits, &body);
        course
            .run(|node, progress| {
                let attempt = self.attempt(node, path, body.clone(), progress, limits.timeout);
                async move {
                    let url = self.nodes.url(node);
                    if repeat.again == Again::InTurnUnlessSilent && self.nodes.count() > 1 {
                        self.check_is_heard(node, limits.timeout).await?;
                    }
                    let answer = collect(url, attempt.await?.into_body(), limits.timeout).await?;
                    decode(url, &answer)
                }
            })
            .await
    }

    fn course<'a>(&'a self, repeat: Repeat<'a>, limits: Limits, body: &Bytes) -> Course<'a> {
        Course::new(&self.nodes, repeat, limits.patience, body.len(), self.notice.as_ref())
    }

    /// Sends the request, which only reads; of a long answer, what comes after its beginning is left to be read.
    pub async fn open(&self, path: &str, body: Bytes, limits: Limits) -> Result<Answer, ClientError> {
        let course = self.course(Repeat::READ, limits, &body);
        course
            .run(|node, progress| {
                let attempt = self.attempt(node, path, body.clone(), progress, limits.timeout);
                async move { begin(self.nodes.url(node), attempt.await?.into_body(), limits.timeout).await }
            })
            .await
    }

    /// What must not be sent to a second node once the first is silent goes to none that is silent before: nothing was sent to it then.
    async fn check_is_heard(&self, node: usize, silence_max: Duration) -> Result<(), ClientError> {
        let url = self.nodes.url(node);
        let request = Request::builder().uri(format!("{url}{HEALTHZ}")).body(Upload::empty());
        let request = request.map_err(|error| ClientError::Setup(format!("{url}: {error}")))?;
        let limit = HEARD_WITHIN.min(silence_max);
        // Any answer will do, and of any other failure the request itself tells.
        if timeout(limit, self.http.request(request)).await.is_ok() {
            return Ok(());
        }
        Err(unreachable(url, format!("nothing came for {} s", limit.as_secs_f32())))
    }

    async fn attempt(
        &self,
        node: usize,
        path: &str,
        body: Bytes,
        progress: Progress,
        silence_max: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let url = self.nodes.url(node);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{url}{path}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Upload::new(body, &progress))
            .map_err(|error| ClientError::Setup(format!("{url}: {error}")))?;
        let response = match progress.or_silence(self.http.request(request), silence_max).await {
            // Before the connector's own limit, which does not hold while a name is looked up.
            None if !progress.is_begun() => return Err(unconnected(url, silence_max)),
            None => return Err(silent(url, silence_max)),
            // Or the connection ended before anything was sent.
            Some(Err(error)) if error.is_connect() || !progress.is_begun() => {
                return Err(unreachable(url, innermost(&error)));
            }
            Some(Err(error)) => return Err(broken(url, innermost(&error))),
            Some(Ok(response)) => response,
        };
        self.nodes.heard(node);
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        Err(refusal((url, path), response, silence_max).await)
    }
}

async fn refusal(asked: (&str, &str), response: Response<Incoming>, silence_max: Duration) -> ClientError {
    let status = response.status();
    let header = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let retry_after = header.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let body = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect();
    // The status says the most; an explanation that does not arrive is done without.
    let body = match timeout(silence_max, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    ClientError::from_answer(asked, status, retry_after, &body)
}

/// What an answer comes in.
pub(super) trait Answering: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin {}

impl<B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin> Answering for B {}

/// The whole answer, however long it takes while it comes.
async fn collect(url: &str, mut body: impl Answering, silence_max: Duration) -> Result<Bytes, ClientError> {
    let mut whole = BytesMut::new();
    while let Some(bytes) = next_bytes(url, &mut body, silence_max).await? {
        if whole.len() + bytes.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::BadAnswer {
                url: url.to_owned(),
                what: format!("it is longer than {ANSWER_BYTES_MAX} bytes; ask for less at once"),
            });
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}

async fn begin(url: &str, mut body: Incoming, silence_max: Duration) -> Result<Answer, ClientError> {
    let (begun, rest) = if body.size_hint().upper().is_some_and(|bytes| bytes <= SHORT_BYTES_MAX) {
        (collect(url, body, silence_max).await?, None)
    } else {
        let begun = next_bytes(url, &mut body, silence_max).await?;
        let rest = begun.is_some().then_some(body);
        (begun.unwrap_or_default(), rest)
    };
    check_beginning(&begun, rest.is_none()).map_err(|error| ClientError::BadAnswer {
        url: url.to_owned(),
        what: error.to_string(),
    })?;
    let url = url.to_owned();
    Ok(Answer { url, begun, rest })
}

/// Enough to tell an answer from a page of something else, while another node can still be asked.
fn check_beginning(begun: &[u8], is_all: bool) -> Result<(), DecodeError> {
    let checked = begun.get(..CHECKED_BYTES).unwrap_or(begun);
    let mut decoder = ValueDecoder::new();
    decoder.feed(checked, &mut Vec::new())?;
    match is_all && checked.len() == begun.len() {
        true => decoder.finish(),
        false => Ok(()),
    }
}

/// The next bytes of an answer; None at its end.
pub(super) async fn next_bytes(
    url: &str,
    body: &mut impl Answering,
    silence_max: Duration,
) -> Result<Option<Bytes>, ClientError> {
    loop {
        let frame = match timeout(silence_max, body.frame()).await {
            Err(_) => return Err(silent(url, silence_max)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                return Err(broken(url, format!("the answer broke off: {}", innermost(&error))));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers say nothing here.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

fn broken(url: &str, reason: String) -> ClientError {
    ClientError::Broken {
        url: url.to_owned(),
        reason,
        silent: false,
    }
}

fn silent(url: &str, silence_max: Duration) -> ClientError {
    ClientError::Broken {
        url: url.to_owned(),
        reason: format!("nothing came for {} s", silence_max.as_secs_f32()),
        silent: true,
    }
}

/// The cause at the bottom, which is what a person can do something about.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio::time::sleep;

    use super::*;

    /// So many bytes a second, for so many seconds.
    fn dripping(bytes: usize, seconds: usize) -> impl Answering {
        let piece = move |_| async move {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, io::Error>(Frame::data(Bytes::from(vec![b'x'; bytes])))
        };
        StreamBody::new(stream::iter(0..seconds).then(piece).boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_slowly_is_no_silence_and_one_that_is_too_long_is_none() {
        let limit = Duration::from_secs(2);
        let whole = collect("url", dripping(10, 60), limit).await.unwrap();
        assert_eq!(whole.len(), 600);
        let stuck = StreamBody::new(stream::pending::<Result<Frame<Bytes>, io::Error>>());
        let error = collect("url", stuck, limit).await.unwrap_err();
        assert!(matches!(error, ClientError::Broken { silent: true, .. }), "{error}");
        let long = collect("url", dripping(ANSWER_BYTES_MAX / 2, 3), limit).await;
        assert!(matches!(long, Err(ClientError::BadAnswer { .. })));
    }
}
