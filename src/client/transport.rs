//! Sends one request until it is answered: the next address when a node fails, a bounded number of rounds with growing pauses.
//!
//! Invariant: a request that may have taken effect is sent again only when its sender said that this is safe.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::entropy;
use super::error::{ClientError, Failure};

/// First pause between two rounds; it doubles from round to round.
const BACKOFF_MS: u64 = 100;
/// Longest pause between two rounds.
const BACKOFF_MS_MAX: u64 = 5_000;
/// A `Retry-After` beyond this is cut: the node is asked again after at most this long.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// Longest wait for one TCP connection: so that a host that is down does not hide the next one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are given up before the usual proxies and servers close them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Largest answer that is read into memory: a full page of the longest keys, each byte escaped as six.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest body of an error that is read.
const ERROR_BYTES_MAX: usize = 1024 * 1024;

/// Whether a request may be sent again after it may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Safe,
    Unsafe,
}

/// An answer with status 200, and who gave it.
pub(super) struct Answer {
    pub url: String,
    pub response: Response<Incoming>,
}

pub(super) struct Transport {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    /// Without a slash at the end; never empty.
    urls: Vec<String>,
    /// Index of the address that answered last.
    preferred: AtomicUsize,
    pub timeout: Duration,
    pub rounds_max: u32,
}

impl Transport {
    pub fn new(urls: &[String], timeout: Duration, retries: u32) -> Result<Self, ClientError> {
        let urls = urls.iter().map(|url| normal_url(url)).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(ClientError::Setup("no address of a node was given".to_owned()));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT.min(timeout)));
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self {
            http,
            urls,
            preferred: AtomicUsize::new(0),
            timeout,
            rounds_max: retries.saturating_add(1),
        })
    }

    /// Sends the request and reads the whole answer.
    pub async fn call(&self, path: &str, body: Bytes, repeat: Repeat) -> Result<(String, Bytes), ClientError> {
        let mut course = Course::new(self, repeat);
        loop {
            let outcome = match self.attempt(course.url(), path, body.clone()).await {
                Ok(answer) => self.collect(answer).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(answer) => return course.arrive(answer),
                Err(error) => course.go_on_after(error).await?,
            }
        }
    }

    /// Sends the request; the body of the answer is left to be read.
    pub async fn open(&self, path: &str, body: Bytes) -> Result<Answer, ClientError> {
        let mut course = Course::new(self, Repeat::Safe);
        loop {
            match self.attempt(course.url(), path, body.clone()).await {
                Ok(answer) => return course.arrive(answer),
                Err(error) => course.go_on_after(error).await?,
            }
        }
    }

    async fn attempt(&self, url: &str, path: &str, body: Bytes) -> Result<Answer, ClientError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{url}{path}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Setup(format!("{url}: {error}")))?;
        let response = match timeout(self.timeout, self.http.request(request)).await {
            Err(_) => return Err(broken(url, self.no_answer())),
            Ok(Err(error)) if error.is_connect() => {
                let reason = innermost(&error);
                let url = url.to_owned();
                return Err(ClientError::Unreachable {
                    tried: vec![Failure { url, reason }],
                });
            }
            Ok(Err(error)) => return Err(broken(url, innermost(&error))),
            Ok(Ok(response)) => response,
        };
        if response.status() == StatusCode::OK {
            let url = url.to_owned();
            return Ok(Answer { url, response });
        }
        Err(self.refusal(response).await)
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        let header = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let retry_after = header.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let body = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect();
        // The status says the most; an explanation that does not arrive is done without.
        let body = match timeout(self.timeout, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            _ => Bytes::new(),
        };
        ClientError::from_answer(status, retry_after, &body)
    }

    async fn collect(&self, answer: Answer) -> Result<(String, Bytes), ClientError> {
        let body = Limited::new(answer.response.into_body(), ANSWER_BYTES_MAX).collect();
        match timeout(self.timeout, body).await {
            Ok(Ok(body)) => Ok((answer.url, body.to_bytes())),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(ClientError::BadAnswer {
                url: answer.url,
                what: format!("it is longer than {ANSWER_BYTES_MAX} bytes; ask for less at once"),
            }),
            Ok(Err(error)) => Err(broken(&answer.url, innermost(error.as_ref()))),
            Err(_) => Err(broken(&answer.url, self.no_answer())),
        }
    }

    #[cfg(test)]
    pub fn preferred_index(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    pub fn no_answer(&self) -> String {
        format!("nothing came for {} s", self.timeout.as_secs_f32())
    }
}

pub(super) fn broken(url: &str, reason: String) -> ClientError {
    ClientError::Broken {
        url: url.to_owned(),
        reason,
    }
}

/// The cause at the bottom, which is what a person can do something about.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The way of one request through addresses and rounds.
struct Course<'a> {
    transport: &'a Transport,
    repeat: Repeat,
    start: usize,
    /// Attempts made so far.
    attempts: usize,
    /// Failures to connect in this round.
    unreachable: Vec<Failure>,
}

impl<'a> Course<'a> {
    fn new(transport: &'a Transport, repeat: Repeat) -> Self {
        Self {
            transport,
            repeat,
            start: transport.preferred.load(Ordering::Relaxed),
            attempts: 0,
            unreachable: Vec::new(),
        }
    }

    fn index(&self) -> usize {
        (self.start + self.attempts) % self.transport.urls.len()
    }

    fn url(&self) -> &'a str {
        self.transport.urls.get(self.index()).map_or("", String::as_str)
    }

    fn arrive<T>(&self, answer: T) -> Result<T, ClientError> {
        self.transport.preferred.store(self.index(), Ordering::Relaxed);
        Ok(answer)
    }

    /// Ok when another attempt is due, after the pause that is due before it.
    async fn go_on_after(&mut self, error: ClientError) -> Result<(), ClientError> {
        let unsent = matches!(error, ClientError::Unreachable { .. });
        if !error.is_passing() || !(unsent || self.repeat == Repeat::Safe) {
            return Err(error);
        }
        let error = self.with_earlier_failures(error);
        self.attempts += 1;
        if !self.attempts.is_multiple_of(self.transport.urls.len()) {
            return Ok(());
        }
        let round = (self.attempts / self.transport.urls.len()) as u32;
        if round >= self.transport.rounds_max {
            return Err(error);
        }
        self.unreachable.clear();
        tokio::time::sleep(pause(round, &error)).await;
        Ok(())
    }

    /// When no address can be reached, the error names them all.
    fn with_earlier_failures(&mut self, error: ClientError) -> ClientError {
        let ClientError::Unreachable { tried } = error else {
            return error;
        };
        self.unreachable.extend(tried);
        ClientError::Unreachable {
            tried: self.unreachable.clone(),
        }
    }
}

/// Half of the pause is random, so that clients that failed together do not come back together.
fn pause(round: u32, error: &ClientError) -> Duration {
    let full_ms = BACKOFF_MS
        .saturating_mul(1 << round.saturating_sub(1).min(16))
        .min(BACKOFF_MS_MAX);
    let pause = Duration::from_millis(full_ms / 2 + entropy::u64() % (full_ms / 2 + 1));
    match error {
        ClientError::Overloaded {
            retry_after: Some(asked),
            ..
        } => pause.max((*asked).min(RETRY_AFTER_MAX)),
        _ => pause,
    }
}

/// `http://host:port`, perhaps with a path before those of the API, and without a slash at the end.
fn normal_url(text: &str) -> Result<String, ClientError> {
    let refuse = |why: &str| {
        Err(ClientError::Setup(format!(
            "{text:?} is not the address of a node: {why}"
        )))
    };
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: Uri = match with_scheme.parse() {
        Ok(uri) => uri,
        Err(_) => return refuse("write it as http://HOST:PORT"),
    };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return refuse("nodes speak plain http; put a proxy that ends TLS beside the client, or a tunnel");
        }
        _ => return refuse("it must begin with http://"),
    }
    let host = uri.host().unwrap_or_default();
    if host.is_empty() {
        return refuse("there is no host in it");
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return refuse("user and password do not belong into it");
    }
    if uri.query().is_some() {
        return refuse("there is a ? in it");
    }
    Ok(with_scheme.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_the_scheme_and_end_in_a_slash() {
        assert_eq!(normal_url("127.0.0.1:8000").unwrap(), "http://127.0.0.1:8000");
        assert_eq!(normal_url("http://[::1]:8000/").unwrap(), "http://[::1]:8000");
        assert_eq!(normal_url("http://host/kv/").unwrap(), "http://host/kv");
    }

    #[test]
    fn an_unusable_address_is_refused_by_name() {
        for text in [
            "https://host:1",
            "ftp://host",
            "http://",
            "",
            "http://a:b@host",
            "http://h/?x",
        ] {
            let error = normal_url(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn pauses_grow_and_keep_to_what_the_node_asked_for() {
        let broken = broken("u", "r".to_owned());
        assert!(pause(1, &broken) <= Duration::from_millis(BACKOFF_MS));
        assert!(pause(60, &broken) <= Duration::from_millis(BACKOFF_MS_MAX));
        assert!(pause(60, &broken) >= Duration::from_millis(BACKOFF_MS_MAX / 2));
        let asked = |seconds| ClientError::Overloaded {
            detail: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(pause(1, &asked(3)), Duration::from_secs(3));
        assert_eq!(pause(1, &asked(3600)), RETRY_AFTER_MAX);
    }
}
