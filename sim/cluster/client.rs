//! A client of the real HTTP API: connections that are kept and lost, calls with a deadline, and what became of each.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kv_storage::env::Net;
use serde_json::Value as Json;
use tokio::time::timeout;

use super::net::{HostId, HostNet};
use super::node::CLIENT_PORT;

/// Why a call ended that the client waited for as long as it waits for anything.
pub const NO_ANSWER: &str = "no answer in time";

/// How a call ended.
#[derive(Debug)]
pub enum Reply {
    Status(u16, Json),
    /// No connection could be had: nothing was sent.
    NotSent(String),
    /// Sent, at least in part, and then silence or a broken connection.
    NoAnswer(String),
}

pub struct HttpClient {
    net: HostNet,
    deadline: Duration,
    open: BTreeMap<u8, SendRequest<Full<Bytes>>>,
}

impl HttpClient {
    pub fn new(net: HostNet, deadline: Duration) -> Self {
        Self {
            net,
            deadline,
            open: BTreeMap::new(),
        }
    }

    pub async fn call(&mut self, node: u8, path: &str, body: &Json) -> Reply {
        let mut sent = false;
        let called = timeout(self.deadline, self.exchange(node, path, body, &mut sent)).await;
        match called {
            Ok(Ok((status, body))) => Reply::Status(status, body),
            Ok(Err(why)) => self.failed(node, sent, why),
            Err(_) => self.failed(node, sent, NO_ANSWER.to_owned()),
        }
    }

    /// A page that is for everybody; none if it does not come in time.
    pub async fn page(&mut self, node: u8, path: &str) -> Option<String> {
        let deadline = self.deadline;
        let request = Request::get(path).header("host", "node").body(Full::default()).ok()?;
        let fetched = async {
            let response = self.sender(node).await.ok()?.send_request(request).await.ok()?;
            let body = response.into_body().collect().await.ok()?;
            String::from_utf8(body.to_bytes().into()).ok()
        };
        let page = timeout(deadline, fetched).await.ok().flatten();
        if page.is_none() {
            self.open.remove(&node);
        }
        page
    }

    /// A connection that failed is not used again.
    fn failed(&mut self, node: u8, sent: bool, why: String) -> Reply {
        self.open.remove(&node);
        match sent {
            true => Reply::NoAnswer(why),
            false => Reply::NotSent(why),
        }
    }

    async fn exchange(&mut self, node: u8, path: &str, body: &Json, sent: &mut bool) -> Result<(u16, Json), String> {
        let sender = self.sender(node).await?;
        let request = Request::post(path)
            .header("host", "node")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| error.to_string())?;
        *sent = true;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        let body = serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())?;
        Ok((status, body))
    }

    async fn sender(&mut self, node: u8) -> Result<&mut SendRequest<Full<Bytes>>, String> {
        let is_open = match self.open.get_mut(&node) {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            let stream = self.net.connect((HostId(node).ip(), CLIENT_PORT).into()).await;
            let stream = stream.map_err(|error| error.to_string())?;
            let (sender, connection) = handshake(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            tokio::spawn(async move {
                // How it ended, the call in flight hears too.
                let _ = connection.await;
            });
            self.open.insert(node, sender);
        }
        self.open.get_mut(&node).ok_or_else(|| "no connection".to_owned())
    }
}
