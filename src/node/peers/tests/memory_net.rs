//! A network in memory, whose nodes can be frozen: their sockets stay open, and nothing is read or written. And its lines can be slow.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex,
};
use tokio::sync::mpsc;

use crate::env::{BoxFuture, Datagrams, Listener, Net, Stream};

/// What the systems on both sides hold of what nobody reads.
const BUFFER_BYTES: usize = 64 << 10;

type Accepted = (Box<dyn Stream>, SocketAddr);

#[derive(Default)]
pub struct MemoryNet {
    listening: Mutex<BTreeMap<SocketAddr, mpsc::UnboundedSender<Accepted>>>,
    frozen: Arc<Mutex<Frozen>>,
    /// Of each connection, each way; unlimited if it is none.
    bytes_per_s: Option<u32>,
}

#[derive(Default)]
struct Frozen {
    addresses: BTreeSet<SocketAddr>,
    sleepers: Vec<Waker>,
}

impl MemoryNet {
    pub fn freeze(&self, address: SocketAddr) {
        self.frozen.lock().addresses.insert(address);
    }

    pub fn slow(bytes_per_s: u32) -> Self {
        Self {
            bytes_per_s: Some(bytes_per_s),
            ..Self::default()
        }
    }

    pub fn thaw(&self, address: SocketAddr) {
        let mut frozen = self.frozen.lock();
        frozen.addresses.remove(&address);
        frozen.sleepers.drain(..).for_each(Waker::wake);
    }
}

impl Net for MemoryNet {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let (sender, accepted) = mpsc::unbounded_channel();
        let mut listening = self.listening.lock();
        if listening.get(&address).is_some_and(|sender| !sender.is_closed()) {
            return Box::pin(async { Err(io::ErrorKind::AddrInUse.into()) });
        }
        listening.insert(address, sender);
        Box::pin(async move { Ok(Box::new(MemoryListener { address, accepted }) as Box<dyn Listener>) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        self.connect_from(address, address)
    }

    fn datagrams(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

impl MemoryNet {
    /// From where the other side sees it come.
    pub fn connect_from(&self, from: SocketAddr, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let (near, far) = duplex(BUFFER_BYTES);
        let far = Freezable {
            stream: match self.bytes_per_s {
                Some(bytes_per_s) => slow_line(far, bytes_per_s),
                None => far,
            },
            address,
            frozen: self.frozen.clone(),
        };
        let listening = self.listening.lock();
        let sender = listening.get(&address);
        let reached = sender.is_some_and(|sender| sender.send((Box::new(far), from)).is_ok());
        Box::pin(async move {
            match reached {
                true => Ok(Box::new(near) as Box<dyn Stream>),
                false => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

/// The other end of a line of this speed, each way, that ends here.
fn slow_line(stream: DuplexStream, bytes_per_s: u32) -> DuplexStream {
    let (near, far) = duplex(BUFFER_BYTES);
    let (from_near, to_near) = tokio::io::split(near);
    let (from_stream, to_stream) = tokio::io::split(stream);
    tokio::spawn(carry(from_near, to_stream, bytes_per_s));
    tokio::spawn(carry(from_stream, to_near, bytes_per_s));
    far
}

async fn carry(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, bytes_per_s: u32) {
    const PACKET_BYTES: usize = 1400;
    let mut packet = [0; PACKET_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut packet).await {
        tokio::time::sleep(Duration::from_secs(1) * bytes as u32 / bytes_per_s).await;
        if to.write_all(&packet[..bytes]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

struct MemoryListener {
    address: SocketAddr,
    accepted: mpsc::UnboundedReceiver<Accepted>,
}

impl Listener for MemoryListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async { self.accepted.recv().await.ok_or(io::ErrorKind::NotConnected.into()) })
    }
}

struct Freezable {
    stream: DuplexStream,
    address: SocketAddr,
    frozen: Arc<Mutex<Frozen>>,
}

impl Freezable {
    fn is_frozen(&self, context: &Context<'_>) -> bool {
        let mut frozen = self.frozen.lock();
        let is_frozen = frozen.addresses.contains(&self.address);
        if is_frozen {
            frozen.sleepers.push(context.waker().clone());
        }
        is_frozen
    }
}

impl AsyncRead for Freezable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.is_frozen(context) {
            true => Poll::Pending,
            false => Pin::new(&mut self.stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Freezable {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.is_frozen(context) {
            true => Poll::Pending,
            false => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
