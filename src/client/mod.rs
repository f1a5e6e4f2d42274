//! The typed async client.
//!
//! | file | what it is |
//! | --- | --- |
//! | `builder` | how a client is made |
//! | `batch`, `users`, `cluster` | calls of many operations, and those of admins; the others are here |
//! | `course`, `repeat`, `nodes` | the way of a request through the nodes: which one next, how often, which to leave alone |
//! | `transport`, `connect`, `upload` | one try at one node: its connections, and the body on its way |
//! | `decode`, `stream` | answers read piece by piece |
//! | `parts` | a long value in several requests |
//! | `notice` | what is said to whoever waits |
//! | `error`, `failures`, `entropy` | what can go wrong; what is said when it did; request ids and random pauses |
//!
//! Invariant: every add and clear carries a request id, so a call is tried again, at this node or the next one or at two at the
//! same time, and still counts once.
//!
//! ```no_run
//! use kv_storage::client::{Client, ClientError};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), ClientError> {
//!     let client = Client::builder()
//!         .url("http://127.0.0.1:8000")
//!         .user("demo")
//!         .password("secret")
//!         .build()?;
//!
//!     // Add a value
//!     client.add_value("key", "value").await?;
//!
//!     // Get the key's values
//!     let value = client.get_value("key").await?;
//!     println!("Value: {value:?}");
//!
//!     // Clear the key
//!     client.clear_key("key").await?;
//!     Ok(())
//! }
//! ```

mod batch;
mod builder;
mod cluster;
mod connect;
mod course;
mod decode;
pub mod entropy;
mod error;
mod failures;
#[cfg(test)]
pub(crate) mod fake_node;
mod nodes;
mod notice;
mod parts;
mod repeat;
mod stream;
#[cfg(test)]
mod tests;
mod transport;
mod upload;
mod users;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::api::{AddValue, ClearKey, Count, DEADLINE_MS_MAX, GetValue, KeyList, ListKeys, Status, User, path};
use crate::planted::{Bug, planted};

pub use crate::types::Consistency;
pub use batch::BatchResult;
pub use builder::{ClientBuilder, password_hash};
pub use decode::{DecodeError, ValueDecoder, ValuePiece};
pub use error::{ClientError, Failure};
pub use notice::Waiting;
use parts::split_parts;
pub use parts::{PART_BYTES_MAX, part_request_id};
use repeat::Repeat;
pub use stream::{BodyStream, ValueStream};
use transport::{Limits, Transport};

/// Which of a key's values to read; by default all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Page {
    /// Values to skip.
    pub offset: u64,
    /// Values to return at most.
    pub limit: Option<u64>,
}

/// Speaks to one store as one user. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// None: the node's default.
    consistency: Option<Consistency>,
    limits: Limits,
    /// What the nodes are told about the deadline; None: their own default.
    deadline_ms: Option<u64>,
}

struct Inner {
    transport: Transport,
    user_id: String,
    password_hash: String,
}

impl Client {
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The same client, whose calls ask for this consistency: `client.with_consistency(Consistency::One).get_value(key)`.
    pub fn with_consistency(&self, consistency: Consistency) -> Self {
        Self {
            consistency: Some(consistency),
            ..self.clone()
        }
    }

    /// The same client, whose calls end within this time, all tries and pauses included; a list that streams, until its first byte.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        let mut client = self.clone();
        client.limits.patience.deadline = deadline;
        client.deadline_ms = Some(deadline_ms(deadline));
        client
    }

    /// Appends `value` to the key's list. A value longer than [`PART_BYTES_MAX`] goes in parts; if that fails in the middle,
    /// its parts wait as unfinished parts of the key.
    pub async fn add_value(&self, key: &str, value: &str) -> Result<(), ClientError> {
        self.add(key, value, true, &entropy::hex::<16>()).await
    }

    /// Appends `part` to the value that the next [`add_value`](Self::add_value) of the key finishes.
    pub async fn add_value_part(&self, key: &str, part: &str) -> Result<(), ClientError> {
        self.add(key, part, false, &entropy::hex::<16>()).await
    }

    /// [`add_value`](Self::add_value) or, unless `finish`, [`add_value_part`](Self::add_value_part), with a request id of the
    /// caller's: however often it is called with the same one, it counts once.
    pub async fn add(&self, key: &str, text: &str, finish: bool, request_id: &str) -> Result<(), ClientError> {
        let mut parts = split_parts(text, self.limits.part_bytes).enumerate().peekable();
        while let Some((index, part)) = parts.next() {
            let finish = finish && parts.peek().is_none();
            self.add_one(key, part, finish, &part_request_id(request_id, index as u64))
                .await?;
        }
        Ok(())
    }

    /// One request with at most [`PART_BYTES_MAX`] of text.
    pub async fn add_one(&self, key: &str, text: &str, finish: bool, request_id: &str) -> Result<(), ClientError> {
        self.add_one_told(key, text, finish, request_id, &AtomicBool::new(false))
            .await
    }

    /// The same; `in_doubt` is set when it may have taken effect although it fails, whatever the error is.
    pub(crate) async fn add_one_told(
        &self,
        key: &str,
        text: &str,
        finish: bool,
        request_id: &str,
        in_doubt: &AtomicBool,
    ) -> Result<(), ClientError> {
        let body = AddValue {
            key: key.into(),
            value: text.into(),
            finish_value: finish,
            request_id: (!planted(Bug::AddUnnamed)).then(|| request_id.into()),
            consistency: self.consistency,
            deadline_ms: self.deadline_ms,
            user: Some(self.user()),
        };
        let repeat = Repeat {
            in_doubt: Some(in_doubt),
            ..Repeat::SAFE
        };
        let _: Status = self.post(path::ADD_VALUE, &body, repeat).await?;
        Ok(())
    }

    /// All finished values of the key; none for an unknown key.
    pub async fn get_value(&self, key: &str) -> Result<Vec<String>, ClientError> {
        self.get_value_page(key, Page::default()).await
    }

    pub async fn get_value_page(&self, key: &str, page: Page) -> Result<Vec<String>, ClientError> {
        let mut rounds_left = self.limits.patience.rounds_max;
        let deadline = Instant::now() + self.limits.patience.deadline;
        loop {
            rounds_left = rounds_left.saturating_sub(1);
            match self.read_page(key, page).await {
                Err(ClientError::Broken { .. }) if rounds_left > 0 && Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }

    async fn read_page(&self, key: &str, page: Page) -> Result<Vec<String>, ClientError> {
        let mut values = Vec::new();
        let mut stream = self.get_value_stream(key, page).await?;
        while let Some(value) = stream.next_value().await? {
            values.push(value);
        }
        Ok(values)
    }

    /// The key's values as they arrive. An answer that breaks off is an error: what came before it is still right.
    pub async fn get_value_stream(&self, key: &str, page: Page) -> Result<ValueStream, ClientError> {
        Ok(ValueStream::new(self.get_value_body(key, page).await?))
    }

    /// The answer of `get_value` in the words of the API, byte for byte.
    pub async fn get_value_body(&self, key: &str, page: Page) -> Result<BodyStream, ClientError> {
        let body = encode(&self.get_request(key, page, false))?;
        let answer = self.inner.transport.open(path::GET_VALUE, body, self.limits).await?;
        Ok(BodyStream::new(answer, self.limits.timeout))
    }

    /// How many values the key has.
    pub async fn count(&self, key: &str) -> Result<u64, ClientError> {
        let request = self.get_request(key, Page::default(), true);
        let answer: Count = self.post(path::GET_VALUE, &request, Repeat::READ).await?;
        Ok(answer.count)
    }

    /// Removes all values and unfinished parts of the key.
    pub async fn clear_key(&self, key: &str) -> Result<(), ClientError> {
        self.clear(key, &entropy::hex::<16>()).await
    }

    /// The same with a request id of the caller's: called again with the same one, it removes nothing that was added since it was done.
    pub async fn clear(&self, key: &str, request_id: &str) -> Result<(), ClientError> {
        let body = ClearKey {
            key: key.into(),
            request_id: Some(request_id.into()),
            consistency: self.consistency,
            deadline_ms: self.deadline_ms,
            user: Some(self.user()),
        };
        let _: Status = self.post(path::CLEAR_KEY, &body, Repeat::SAFE).await?;
        Ok(())
    }

    /// One page of the user's keys, in byte order; `after` is the `after` of the page before.
    pub async fn list_keys(
        &self,
        prefix: Option<&str>,
        after: Option<&str>,
        limit: Option<u64>,
    ) -> Result<KeyList, ClientError> {
        let body = ListKeys {
            prefix: prefix.map(Cow::from),
            limit,
            after: after.map(Cow::from),
            consistency: self.consistency,
            deadline_ms: self.deadline_ms,
            user: Some(self.user()),
        };
        self.post(path::LIST_KEYS, &body, Repeat::READ).await
    }

    pub fn user_id(&self) -> &str {
        &self.inner.user_id
    }

    fn user(&self) -> User<'_> {
        User {
            user_id: self.inner.user_id.as_str().into(),
            password_hash: self.inner.password_hash.as_str().into(),
        }
    }

    fn get_request<'a>(&'a self, key: &'a str, page: Page, count_only: bool) -> GetValue<'a> {
        GetValue {
            key: key.into(),
            offset: Some(page.offset).filter(|offset| *offset > 0),
            limit: page.limit,
            count_only,
            consistency: self.consistency,
            deadline_ms: self.deadline_ms,
            user: Some(self.user()),
        }
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        repeat: Repeat<'_>,
    ) -> Result<T, ClientError> {
        self.call(path, encode(body)?, repeat, decode_answer).await
    }

    async fn call<T>(
        &self,
        path: &str,
        body: Bytes,
        repeat: Repeat<'_>,
        decode: impl Fn(&str, &[u8]) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.inner.transport.call(path, body, repeat, self.limits, decode).await
    }
}

/// As the API takes it.
fn deadline_ms(deadline: Duration) -> u64 {
    u64::try_from(deadline.as_millis()).map_or(DEADLINE_MS_MAX, |ms| ms.clamp(1, DEADLINE_MS_MAX))
}

fn encode(body: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| ClientError::Setup(format!("the request cannot be written as JSON: {error}")))
}

fn decode_answer<T: DeserializeOwned>(url: &str, answer: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(answer).map_err(|error| ClientError::BadAnswer {
        url: url.to_owned(),
        what: error.to_string(),
    })
}
