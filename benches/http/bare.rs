//! The ceiling: hyper alone, which parses the same JSON with serde and answers 200. It keeps nothing.
//!
//! A process of its own, so that its CPU can be told from the load generator's.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kv_storage::api::{AddValue, GetValue, path};
use tokio::net::TcpListener;

pub const ARGUMENT: &str = "--serve-bare";
/// Before the address on standard output.
pub const READY: &str = "bare server on ";

pub fn serve() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{READY}{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                // Ends when the load generator closes it.
                let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let get = request.uri().path() == path::GET_VALUE;
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(refuse()),
    };
    let answer = if get {
        serde_json::from_slice::<GetValue<'_>>(&body).ok().map(list)
    } else {
        let add = serde_json::from_slice::<AddValue<'_>>(&body);
        add.ok().map(|_| Bytes::from_static(b"{\"status\":\"OK\"}"))
    };
    let Some(answer) = answer else {
        return Ok(refuse());
    };
    let mut response = Response::new(Full::new(answer));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// As long an answer as that of a node which holds the list.
fn list(get: GetValue<'_>) -> Bytes {
    static VALUE: [u8; super::VALUE_BYTES] = [b'v'; super::VALUE_BYTES];
    let mut answer = Vec::with_capacity(64 + get.key.len() + 4 * (VALUE.len() + 3));
    answer.extend_from_slice(b"{\"key\":\"");
    answer.extend_from_slice(get.key.as_bytes());
    answer.extend_from_slice(b"\",\"value\":[");
    for index in 0..super::LIST_LENGTH {
        answer.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        answer.extend_from_slice(&VALUE);
        answer.push(b'"');
    }
    answer.extend_from_slice(b"]}");
    answer.into()
}

fn refuse() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
