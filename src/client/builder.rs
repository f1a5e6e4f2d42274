//! How a client is made.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::entropy::to_hex;
use super::error::ClientError;
use super::notice::{Notice, Waiting};
use super::repeat::Patience;
use super::transport::{Limits, Transport};
use super::{Client, Consistency, Inner, PART_BYTES_MAX, deadline_ms};
use crate::env::Net;

/// Longest silence of a node before a call is given up or sent again.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Rounds through all addresses after the first: about a second when nothing listens.
const RETRIES_DEFAULT: u32 = 4;
/// Longest time of a call.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(60);

/// What stands for a password in the API: the lower-case hexadecimal SHA-256 of its text.
pub fn password_hash(password: &str) -> String {
    to_hex(&Sha256::digest(password.as_bytes()))
}

/// Made by [`Client::builder`].
#[derive(Clone)]
pub struct ClientBuilder {
    urls: Vec<String>,
    user_id: Option<String>,
    password_hash: Option<String>,
    consistency: Option<Consistency>,
    timeout: Duration,
    retries: u32,
    retries_to_connect: u32,
    deadline: Option<Duration>,
    part_bytes: usize,
    notice: Option<Notice>,
    net: Option<Arc<dyn Net>>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            user_id: None,
            password_hash: None,
            consistency: None,
            timeout: TIMEOUT_DEFAULT,
            retries: RETRIES_DEFAULT,
            retries_to_connect: u32::MAX,
            deadline: None,
            part_bytes: PART_BYTES_MAX,
            notice: None,
            net: None,
        }
    }
}

impl ClientBuilder {
    /// The address of a node, `http://HOST:PORT`. Given several times, the client goes on with the next when one fails,
    /// and asks the next one too when one is silent.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    pub fn urls<T: Into<String>>(mut self, urls: impl IntoIterator<Item = T>) -> Self {
        self.urls.extend(urls.into_iter().map(Into::into));
        self
    }

    pub fn user(mut self, user_id: impl Into<String>) -> Self {
        self.user_id = Some(user_id.into());
        self
    }

    /// The password; only its hash is kept and sent.
    pub fn password(self, password: &str) -> Self {
        self.password_hash(password_hash(password))
    }

    /// What the store knows as the user's `password_hash`, sent as it is.
    pub fn password_hash(mut self, password_hash: impl Into<String>) -> Self {
        self.password_hash = Some(password_hash.into());
        self
    }

    /// How many replicas each call must reach; left to the node, which takes a quorum, by default.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = Some(consistency);
        self
    }

    /// Longest silence of a node before a call is given up or sent again; 30 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Rounds through all addresses after the first one, with growing pauses between; 4 by default.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// The same while this client has not reached any node yet, which may be because the addresses are wrong; as many as
    /// [`retries`](Self::retries) by default.
    pub fn retries_to_connect(mut self, retries: u32) -> Self {
        self.retries_to_connect = retries;
        self
    }

    /// Longest time of a call, all tries and pauses included; of a list that streams, until its first byte. 60 s by default, of
    /// which a node takes 10 to reach the other replicas; a deadline that is set here is told to the nodes too.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Longest text that is sent in one request, [`PART_BYTES_MAX`] at most, and by default; longer values go in parts.
    pub fn part_bytes(mut self, part_bytes: usize) -> Self {
        self.part_bytes = part_bytes;
        self
    }

    /// Calls `say` once for each call that is still being tried `after` so long, with what it waits for.
    pub fn on_wait(mut self, after: Duration, say: impl Fn(&Waiting) + Send + Sync + 'static) -> Self {
        let say = Arc::new(say);
        self.notice = Some(Notice { after, say });
        self
    }

    /// Connections are made over this network, not over the system's TCP; the nodes' addresses are numbers then, as nobody looks names up.
    pub fn net(mut self, net: Arc<dyn Net>) -> Self {
        self.net = Some(net);
        self
    }

    /// Nothing is sent yet.
    pub fn build(self) -> Result<Client, ClientError> {
        let missing = |what: &str| ClientError::Setup(format!("no {what} was given"));
        let patience = Patience {
            rounds_max: self.retries.saturating_add(1),
            rounds_unconnected_max: self.retries_to_connect.saturating_add(1),
            deadline: self.deadline.unwrap_or(DEADLINE_DEFAULT),
        };
        Ok(Client {
            consistency: self.consistency,
            limits: Limits {
                timeout: self.timeout,
                patience,
                part_bytes: self.part_bytes,
            },
            deadline_ms: self.deadline.map(deadline_ms),
            inner: Arc::new(Inner {
                transport: Transport::new(&self.urls, self.net, self.notice)?,
                user_id: self.user_id.ok_or_else(|| missing("user"))?,
                password_hash: self.password_hash.ok_or_else(|| missing("password"))?,
            }),
        })
    }
}
