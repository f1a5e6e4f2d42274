//! A node for tests: it keeps lists in memory, speaks the API, and fails when told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Client, ClientBuilder, password_hash};
use crate::api::path::{self, HEALTHZ};
use crate::env::Stream;
use memory::MemoryNet;

pub mod memory;

pub const USER: &str = "demo";
pub const PASSWORD: &str = "secret";

/// What happens to one request instead of the usual.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The usual.
    None,
    /// Nothing is done; this is the answer.
    Answer(u16, Value),
    /// Nothing is done, and 503 asks to come back at once.
    Overloaded,
    /// It is done, and the connection breaks before the answer.
    BreakAfter,
    /// It is done, and the connection breaks after so many bytes of the answer.
    CutAnswer(usize),
    /// No answer ever comes.
    Silence,
    /// It is done, and the answer comes when this is notified.
    Held(Arc<Notify>),
    /// The usual, so much later.
    Late(Duration),
    /// The operation of this number in a batch is refused with 503; the others are done.
    RefuseInBatch(usize),
}

#[derive(Default)]
pub struct State {
    /// Finished values.
    pub lists: BTreeMap<String, Vec<String>>,
    /// Unfinished parts.
    pub parts: BTreeMap<String, String>,
    seen: BTreeSet<(String, String)>,
    /// Users beside the usual one, and what their password's hash is.
    pub users: BTreeMap<String, String>,
    /// Of the cluster, and their states.
    pub members: Vec<(String, &'static str)>,
    /// Every request, in order, with the path under "path".
    pub requests: Vec<Value>,
    pub faults: VecDeque<Fault>,
    /// What happens when `faults` has nothing more.
    pub always: Option<Fault>,
}

#[derive(Clone)]
pub struct FakeNode {
    pub url: String,
    /// None: the system's.
    net: Option<MemoryNet>,
    state: Arc<Mutex<State>>,
}

impl FakeNode {
    /// Over real sockets.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = Self::new(url, None);
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let serving = node.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                serving.serve(socket);
            }
        });
        node
    }

    /// Over a network inside the process, for tests whose clock is paused: all that happens there is work of the test's own runtime.
    pub fn in_memory() -> Self {
        let (address, mut accepted) = MemoryNet::bind();
        let node = Self::new(format!("http://{address}"), Some(MemoryNet));
        let serving = node.clone();
        tokio::spawn(async move {
            while let Some(stream) = accepted.recv().await {
                serving.serve(stream);
            }
        });
        node
    }

    fn new(url: String, net: Option<MemoryNet>) -> Self {
        let state = Arc::default();
        Self { url, net, state }
    }

    fn serve(&self, stream: impl Stream) {
        let node = self.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| node.clone().answer(request));
            let http = hyper::server::conn::http1::Builder::new();
            // It fails where a fault breaks the connection.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }

    pub fn builder(&self) -> ClientBuilder {
        let builder = Client::builder().url(&self.url).user(USER).password(PASSWORD);
        match self.net {
            None => builder,
            Some(net) => builder.net(Arc::new(net)),
        }
    }

    pub fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    pub fn fail_next(&self, fault: Fault) {
        self.with(|state| state.faults.push_back(fault));
    }

    /// From now on, every request.
    pub fn fail_always(&self, fault: Fault) {
        self.with(|state| state.always = Some(fault));
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// As a store that was made anew.
    pub fn empty(&self) {
        self.with(|state| {
            state.lists.clear();
            state.parts.clear();
            state.seen.clear();
        });
    }

    pub fn list(&self, key: &str) -> Vec<String> {
        self.with(|state| state.lists.get(key).cloned().unwrap_or_default())
    }

    /// Of all requests so far, this field.
    pub fn sent(&self, field: &str) -> Vec<Value> {
        self.with(|state| state.requests.iter().map(|request| request[field].clone()).collect())
    }

    async fn answer(self, request: Request<Incoming>) -> io::Result<Response<BoxBody<Bytes, io::Error>>> {
        let path = request.uri().path().to_owned();
        if path == HEALTHZ {
            // One that never answers does not answer this either; other faults are of what is asked for.
            if let Some(Fault::Silence) = self.with(|state| state.always.clone()) {
                std::future::pending::<()>().await;
            }
            return Ok(response(200, &json!({"status": "OK"})));
        }
        let body = request
            .into_body()
            .collect()
            .await
            .map_err(io::Error::other)?
            .to_bytes();
        let mut body: Value = serde_json::from_slice(&body)?;
        body["path"] = json!(path);
        let fault = self.with(|state| {
            state.requests.push(body.clone());
            state.faults.pop_front().or_else(|| state.always.clone())
        });
        match fault {
            Some(Fault::Answer(status, answer)) => Ok(response(status, &answer)),
            Some(Fault::Overloaded) => Ok(response(503, &json!({"detail": "the mailbox is full"}))),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::BreakAfter) => {
                self.with(|state| state.carry_out(&body));
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Some(Fault::CutAnswer(bytes)) => {
                let (status, answer) = self.with(|state| state.carry_out(&body));
                let head = Bytes::from(answer.to_string()).slice(..bytes);
                let frames = [Ok(Frame::data(head)), Err(io::ErrorKind::ConnectionReset.into())];
                let frames = stream::unfold(frames.into_iter(), |mut frames| async {
                    // Its own turn for each, so that the first is on its way when the second breaks the connection.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    frames.next().map(|frame| (frame, frames))
                });
                Ok(builder(status)
                    .body(BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(frames)))))
                    .unwrap())
            }
            Some(Fault::RefuseInBatch(refused)) => {
                let operations = body["operations"].as_array().unwrap().iter().enumerate();
                let results: Vec<Value> = operations
                    .map(|(index, operation)| match index == refused {
                        true => json!({"status_code": 503, "detail": "the mailbox is full"}),
                        false => self.with(|state| state.operation(operation)),
                    })
                    .collect();
                Ok(response(200, &json!({ "results": results })))
            }
            Some(Fault::Held(let_go)) => {
                let (status, answer) = self.with(|state| state.carry_out(&body));
                let_go.notified().await;
                Ok(response(status, &answer))
            }
            Some(Fault::Late(by)) => {
                tokio::time::sleep(by).await;
                let (status, answer) = self.with(|state| state.carry_out(&body));
                Ok(response(status, &answer))
            }
            None | Some(Fault::None) => {
                let (status, answer) = self.with(|state| state.carry_out(&body));
                Ok(response(status, &answer))
            }
        }
    }
}

/// What is boxed must be Sync; this one is only ever polled by one task.
struct SyncStream<T>(T);

impl<T: futures_util::Stream + Unpin> futures_util::Stream for SyncStream<T> {
    type Item = T::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T::Item>> {
        std::pin::Pin::new(&mut self.0).poll_next(context)
    }
}

fn builder(status: u16) -> hyper::http::response::Builder {
    Response::builder().status(status).header("retry-after", "0")
}

fn response(status: u16, answer: &Value) -> Response<BoxBody<Bytes, io::Error>> {
    let body = Full::new(Bytes::from(answer.to_string())).map_err(|never: Infallible| match never {});
    builder(status).body(body.boxed()).unwrap()
}

fn member(node: &str, state: &str) -> Value {
    json!({
        "node": node, "peer": "10.0.0.1:8100", "http": "10.0.0.1:8000", "zone": "z", "weight": 100, "state": state,
        "alive": true, "slots": 1024, "quarantined_segments": 0,
    })
}

fn number(body: &Value, field: &str, default: usize) -> usize {
    body[field].as_u64().map_or(default, |number| number as usize)
}

impl State {
    fn carry_out(&mut self, body: &Value) -> (u16, Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (user, hash) = (text(&body["user"]["user_id"]), text(&body["user"]["password_hash"]));
        let changed = (user == USER).then(|| password_hash(PASSWORD));
        if self.users.get(&user).cloned().or(changed) != Some(hash) {
            return (401, json!({"detail": "Invalid user_id or password"}));
        }
        let answer = match body["path"].as_str().unwrap() {
            path::ADD_VALUE => self.add(body),
            path::GET_VALUE => self.get(body),
            path::CLEAR_KEY => self.clear(body),
            path::LIST_KEYS => self.list_keys(body),
            path::BATCH => {
                let operations = body["operations"].as_array().unwrap();
                let results: Vec<Value> = operations.iter().map(|operation| self.operation(operation)).collect();
                json!({ "results": results })
            }
            path::CLUSTER_STATUS => {
                let members: Vec<Value> = self.members.iter().map(|(node, state)| member(node, state)).collect();
                json!({"cluster": "kv", "node": "01", "replication": 3, "members": members})
            }
            path::USERS_LIST => {
                let others = self.users.keys().map(|name| json!({"user_id": name, "admin": false}));
                let all: Vec<Value> = [json!({"user_id": USER, "admin": true})]
                    .into_iter()
                    .chain(others)
                    .collect();
                json!({ "users": all })
            }
            path::USERS_ADD | path::USERS_PASSWD | path::USERS_REMOVE => return self.change_user(body),
            _ => json!({"status": "OK"}),
        };
        (200, answer)
    }

    fn change_user(&mut self, body: &Value) -> (u16, Value) {
        let name = body["name"].as_str().unwrap().to_owned();
        let exists = name == USER || self.users.contains_key(&name);
        let hash = body["password_hash"].as_str().map(str::to_owned);
        match (body["path"].as_str().unwrap(), exists, hash) {
            (path::USERS_ADD, true, _) => (409, json!({"detail": "the user exists already"})),
            (path::USERS_ADD, false, Some(hash)) | (path::USERS_PASSWD, true, Some(hash)) => {
                self.users.insert(name, hash);
                (200, json!({"status": "OK"}))
            }
            (path::USERS_REMOVE, true, _) => {
                self.users.remove(&name);
                (200, json!({"status": "OK"}))
            }
            _ => (404, json!({"detail": "there is no such user"})),
        }
    }

    fn operation(&mut self, operation: &Value) -> Value {
        let mut result = match operation["op"].as_str().unwrap() {
            "add_value" => self.add(operation),
            "get_value" => self.get(operation),
            _ => self.clear(operation),
        };
        result["status_code"] = json!(200);
        result
    }

    fn add(&mut self, body: &Value) -> Value {
        let key = body["key"].as_str().unwrap().to_owned();
        let request_id = body["request_id"]
            .as_str()
            .expect("every add carries a request id")
            .to_owned();
        let finish = body["finish_value"] != json!(false);
        if self.seen.insert((key.clone(), request_id)) {
            let part = self.parts.entry(key.clone()).or_default();
            part.push_str(body["value"].as_str().unwrap());
            if finish {
                let value = self.parts.remove(&key).unwrap();
                self.lists.entry(key).or_default().push(value);
            }
        }
        json!({"status": if finish { "OK" } else { "IN_PROGRESS" }})
    }

    fn get(&self, body: &Value) -> Value {
        let key = body["key"].as_str().unwrap();
        let values = self.lists.get(key).map(Vec::as_slice).unwrap_or_default();
        if body["count_only"] == json!(true) {
            return json!({"key": key, "count": values.len()});
        }
        let skipped = values.iter().skip(number(body, "offset", 0));
        let page: Vec<&String> = skipped.take(number(body, "limit", usize::MAX)).collect();
        json!({"key": key, "value": page})
    }

    fn clear(&mut self, body: &Value) -> Value {
        let key = body["key"].as_str().unwrap();
        let request_id = body["request_id"].as_str();
        if request_id.is_none_or(|id| self.seen.insert((key.to_owned(), id.to_owned()))) {
            self.lists.remove(key);
            self.parts.remove(key);
        }
        json!({"status": "OK"})
    }

    fn list_keys(&self, body: &Value) -> Value {
        let prefix = body["prefix"].as_str().unwrap_or_default();
        let after = body["after"].as_str().unwrap_or_default();
        // Small pages, so that there are several.
        let limit = number(body, "limit", usize::MAX).min(2);
        let wanted = |key: &&String| key.starts_with(prefix) && key.as_str() > after;
        let mut keys: Vec<&String> = self.lists.keys().filter(wanted).collect();
        let more = keys.len() > limit;
        keys.truncate(limit);
        let mut answer = json!({ "keys": keys });
        if more {
            answer["after"] = json!(keys.last());
        }
        answer
    }
}
