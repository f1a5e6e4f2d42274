//! A front that serves, and clients for it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::fake::Fake;
use crate::env::{BoxFuture, Listener, Stream};
use crate::http::{Front, FrontConfig, serve};

/// Bytes that an in-memory connection holds each way.
pub const PIPE_BYTES: usize = 16 * 1024;

struct Tcp(TcpListener);

impl Listener for Tcp {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Stream>, from))
        })
    }
}

struct Memory(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Memory {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(stream) => Ok((Box::new(stream) as Box<dyn Stream>, (Ipv4Addr::LOCALHOST, 2).into())),
                None => std::future::pending().await,
            }
        })
    }
}

enum Way {
    Tcp(SocketAddr),
    Memory(mpsc::UnboundedSender<DuplexStream>),
}

pub struct Rig {
    way: Way,
    pub store: Arc<Fake>,
    pub front: Arc<Front<Arc<Fake>>>,
    pub stop: watch::Sender<bool>,
    pub served: JoinHandle<()>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// `body` with the credentials of user 123.
pub fn with_user(mut body: Value) -> Value {
    body["user"] = json!({"user_id": "123", "password_hash": "abc123"});
    body
}

pub fn with_admin(mut body: Value) -> Value {
    body["user"] = json!({"user_id": "root", "password_hash": "secret"});
    body
}

impl Rig {
    /// Over loopback TCP.
    pub fn start() -> Self {
        Self::with(FrontConfig::default())
    }

    pub fn with(config: FrontConfig) -> Self {
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = Tcp(TcpListener::from_std(socket).unwrap());
        let addr = listener.local_addr().unwrap();
        Self::run(config, Box::new(listener), Way::Tcp(addr))
    }

    /// Over connections that hold exactly [`PIPE_BYTES`].
    pub fn in_memory(config: FrontConfig) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self::run(config, Box::new(Memory(receiver)), Way::Memory(sender))
    }

    fn run(config: FrontConfig, listener: Box<dyn Listener>, way: Way) -> Self {
        let store = Arc::new(Fake::default());
        let front = Front::new(config, store.clone(), &[]);
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(listener, front.clone(), stopped));
        Self {
            way,
            store,
            front,
            stop,
            served,
        }
    }

    pub async fn connect(&self) -> Box<dyn Stream> {
        match &self.way {
            Way::Tcp(addr) => Box::new(TcpStream::connect(addr).await.unwrap()),
            Way::Memory(sender) => {
                let (ours, theirs) = duplex(PIPE_BYTES);
                sender.send(theirs).unwrap();
                Box::new(ours)
            }
        }
    }

    pub async fn respond(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let io = TokioIo::new(self.connect().await);
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        client.send_request(request).await.unwrap()
    }

    pub async fn respond_http2(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let io = TokioIo::new(self.connect().await);
        let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tokio::spawn(connection);
        client.send_request(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        whole(self.respond(request).await).await
    }

    pub async fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(request(Method::POST, path, body.into())).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(request(Method::GET, path, Bytes::new())).await
    }

    /// Sends `bytes`, closes this side, and gives all that comes back.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream.shutdown().await.unwrap();
        read_all(stream).await
    }

    pub async fn metric(&self, line_start: &str) -> u64 {
        let text = self.get("/metrics").await;
        let line = text
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(line_start).map(str::trim));
        line.map_or(0, |number| number.parse().unwrap())
    }
}

pub fn request(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let uri = format!("http://localhost{path}");
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "localhost")
        .body(Full::new(body))
        .unwrap()
}

pub async fn whole(response: Response<Incoming>) -> Reply {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    }
}

/// Until the other side closes, or breaks off.
pub async fn read_all(mut stream: Box<dyn Stream>) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Lets every other task go as far as it can, on a runtime of one thread without real sockets.
pub async fn settle() {
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
}
