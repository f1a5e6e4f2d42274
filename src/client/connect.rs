//! How connections to nodes are made: over the system's TCP, or over a network that the caller brings.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tower_service::Service;

use super::upload::SEND_BUFFER_BYTES;
use crate::env::{BoxFuture, Net, Stream};

const PORT_DEFAULT: u16 = 80;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
pub(super) enum Connector {
    Tcp(HttpConnector),
    /// And the longest wait for one connection.
    Over(Arc<dyn Net>, Duration),
}

impl Connector {
    /// Over TCP, if there is no other network.
    pub fn new(net: Option<Arc<dyn Net>>, longest_wait: Duration) -> Self {
        match net {
            None => Self::Tcp(tcp(longest_wait)),
            Some(net) => Self::Over(net, longest_wait),
        }
    }
}

fn tcp(longest_wait: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(longest_wait));
    connector.set_send_buffer_size(Some(SEND_BUFFER_BYTES));
    connector
}

/// Nobody looks names up there.
fn address(uri: &Uri) -> io::Result<SocketAddr> {
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(PORT_DEFAULT);
    let refused = |error| io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is not a number: {error}"));
    format!("{host}:{port}").parse().map_err(refused)
}

async fn connect(net: Arc<dyn Net>, uri: Uri, longest_wait: Duration) -> io::Result<Box<dyn Stream>> {
    let address = address(&uri)?;
    let connected = timeout(longest_wait, net.connect(address)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Connection for Box<dyn Stream> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = AnyError;
    type Future = BoxFuture<'static, Result<Self::Response, AnyError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), AnyError>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Self::Over(..) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self {
            Self::Tcp(tcp) => {
                let connecting = tcp.call(uri);
                Box::pin(async move {
                    let stream: Box<dyn Stream> = Box::new(connecting.await?.into_inner());
                    Ok(TokioIo::new(stream))
                })
            }
            Self::Over(net, longest_wait) => {
                let connecting = connect(net.clone(), uri, *longest_wait);
                Box::pin(async move { Ok(TokioIo::new(connecting.await?)) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::net::TcpSocket;
    use tokio::time::Instant;

    use super::*;
    use crate::client::fake_node::memory::{MemoryNet, SILENT};

    const LONGEST_WAIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn over_tcp_small_requests_go_at_once_and_the_system_holds_little_of_a_body() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let stream = tcp(LONGEST_WAIT).call(uri).await.unwrap().into_inner();
        assert!(stream.nodelay().unwrap());
        let socket = TcpSocket::from_std_stream(stream.into_std().unwrap());
        // Linux gives twice as much, for its own bookkeeping.
        let held = socket.send_buffer_size().unwrap() as usize;
        assert!((SEND_BUFFER_BYTES..=2 * SEND_BUFFER_BYTES).contains(&held), "{held}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_even_refuse_a_connection_is_not_waited_for_longer_than_that() {
        let began = Instant::now();
        let mut connector = Connector::new(Some(Arc::new(MemoryNet)), LONGEST_WAIT);
        let uri = format!("http://{SILENT}").parse().unwrap();
        let Err(error) = connector.call(uri).await else {
            panic!("nobody is there");
        };
        assert_eq!(error.to_string(), "timed out");
        assert_eq!(began.elapsed(), LONGEST_WAIT);
    }

    #[test]
    fn an_address_is_a_number() {
        let of = |uri: &str| address(&uri.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(of("http://10.0.0.1:8000/x").unwrap(), "10.0.0.1:8000");
        assert_eq!(of("http://[::1]").unwrap(), "[::1]:80");
        assert!(of("http://localhost:1").unwrap_err().to_string().contains("localhost"));
    }
}
