//! The network as a node sees it through `Env`.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use kv_storage::env::{BoxFuture, Datagrams, Listener, Net, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::datagram::Socket;
use super::{EndId, HostId, Listening, Network, State};

pub struct HostNet {
    network: Network,
    host: HostId,
}

impl HostNet {
    pub(super) fn new(network: Network, host: HostId) -> Self {
        Self { network, host }
    }

    /// Where a program that asks for `addr` is bound.
    fn bind<T>(
        &self,
        addr: SocketAddr,
        is_taken: impl FnOnce(&State, u16) -> bool,
        make: impl FnOnce(&mut State, u16) -> T,
    ) -> io::Result<(SocketAddr, T)> {
        let mut state = self.network.state();
        if !state.is_up(self.host) {
            return Err(ErrorKind::NetworkDown.into());
        }
        if !addr.ip().is_unspecified() && addr.ip() != self.host.ip() {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        let port = match addr.port() {
            0 => state.free_port(self.host),
            port => port,
        };
        if is_taken(&state, port) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let made = make(&mut state, port);
        Ok((SocketAddr::new(self.host.ip(), port), made))
    }
}

impl Net for HostNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let host = self.host;
        let listening = Listening {
            backlog: Default::default(),
            waker: None,
        };
        let bound = self.bind(
            addr,
            |state, port| {
                state
                    .machines
                    .get(&host)
                    .is_some_and(|machine| machine.listeners.contains_key(&port))
            },
            |state, port| state.machine(host).listeners.insert(port, listening),
        );
        let network = self.network.clone();
        Box::pin(async move {
            let (address, _) = bound?;
            Ok(Box::new(SimListener { network, host, address }) as Box<dyn Listener>)
        })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let (network, host) = (self.network.clone(), self.host);
        Box::pin(async move {
            let stream = connect(network, host, addr).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn datagrams(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        let host = self.host;
        let bound = self.bind(
            addr,
            |state, port| {
                state
                    .machines
                    .get(&host)
                    .is_some_and(|machine| machine.sockets.contains_key(&port))
            },
            |state, port| state.machine(host).sockets.insert(port, Socket::default()),
        );
        let network = self.network.clone();
        Box::pin(async move {
            let (address, _) = bound?;
            Ok(Box::new(SimDatagrams { network, host, address }) as Box<dyn Datagrams>)
        })
    }
}

/// Held while a connection is being made; dropped before that, the attempt is given up.
struct Attempt {
    network: Network,
    id: u64,
    taken: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.network.state().drop_connector(self.id, self.taken);
    }
}

async fn connect(network: Network, host: HostId, addr: SocketAddr) -> io::Result<SimStream> {
    let id = {
        let mut state = network.state();
        if !state.is_up(host) {
            return Err(ErrorKind::NetworkDown.into());
        }
        state.connect(host, addr)
    };
    let mut attempt = Attempt {
        network: network.clone(),
        id,
        taken: false,
    };
    let end = poll_fn(|context| {
        let mut state = network.state();
        let Some(connector) = state.connectors.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::NetworkDown.into()));
        };
        match connector.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                connector.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    })
    .await?;
    attempt.taken = true;
    Ok(SimStream { network, end })
}

struct SimListener {
    network: Network,
    host: HostId,
    address: SocketAddr,
}

impl Listener for SimListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(poll_fn(|context| {
            let mut state = self.network.state();
            let Some(listening) = state.machine(self.host).listeners.get_mut(&self.address.port()) else {
                return Poll::Ready(Err(ErrorKind::NetworkDown.into()));
            };
            match listening.backlog.pop_front() {
                Some((end, from)) => {
                    let network = self.network.clone();
                    Poll::Ready(Ok((Box::new(SimStream { network, end }) as Box<dyn Stream>, from)))
                }
                None => {
                    listening.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = self.network.state();
        let listening = state.machine(self.host).listeners.remove(&self.address.port());
        for (end, _) in listening.into_iter().flat_map(|listening| listening.backlog) {
            state.abandon(end, true);
        }
    }
}

struct SimDatagrams {
    network: Network,
    host: HostId,
    address: SocketAddr,
}

impl Datagrams for SimDatagrams {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn send_to<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>> {
        let sent = self.network.state().send_datagram(self.address, to, bytes);
        Box::pin(async move { sent })
    }

    fn recv_from<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(poll_fn(move |context| {
            self.network.state().poll_receive(self.address, buffer, context)
        }))
    }
}

impl Drop for SimDatagrams {
    fn drop(&mut self) {
        self.network
            .state()
            .machine(self.host)
            .sockets
            .remove(&self.address.port());
    }
}

pub struct SimStream {
    network: Network,
    end: EndId,
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = self.network.state().read(self.end, buffer.remaining(), context);
        read.map_ok(|bytes| buffer.put_slice(&bytes))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.network.state().write(self.end, bytes, context)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.state().finish(self.end);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.network.state().abandon(self.end, true);
    }
}
