//! What a node takes from outside: disk, sockets, wall clock, entropy, and threads for blocking work.
//!
//! Invariant: nothing below this border asks the operating system by itself, so that the same node runs on a real machine
//! (`os`) and inside a deterministic simulation. Monotonic time is tokio's, which a simulation drives too.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::store::disk::Disk;
use crate::types::WallMs;

/// The wall clock. It may be wrong, jump and run backwards: nothing that must be right depends on it.
pub trait WallClock: Send + Sync + 'static {
    fn now(&self) -> WallMs;
}

/// Random bytes, fit for keys and salts.
pub trait Entropy: Send + Sync + 'static {
    fn fill(&self, bytes: &mut [u8]);

    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The one seam through which blocking work (disk, Argon2) leaves the async world.
pub trait Blocking: Send + Sync + 'static {
    /// Runs `job` somewhere it may block; perhaps before this returns.
    fn submit(&self, job: Box<dyn FnOnce() + Send>);

    /// Runs a short `job` that the caller has nothing else to do than to wait for: on the caller's own thread, where no time is
    /// lost between threads. Others go on meanwhile.
    fn run_here<'a>(&'a self, job: Box<dyn FnOnce() + Send + 'a>) -> BoxFuture<'a, ()> {
        Box::pin(async move { job() })
    }
}

/// The job did not finish: it panicked, or the process is going down.
#[derive(Debug, thiserror::Error)]
#[error("blocking work was abandoned")]
pub struct Abandoned;

/// A byte stream to a peer or client.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A listening socket.
pub trait Listener: Send + 'static {
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The next connection. An error concerns that one connection or a passing lack of resources; calling again is right.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
}

/// A socket for datagrams. They may be lost, repeated, reordered and forged.
pub trait Datagrams: Send + Sync + 'static {
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// One datagram, whole or not at all.
    fn send_to<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>>;
    /// The next datagram and where it claims to come from; what does not fit into `buffer` is cut off. An error concerns one datagram;
    /// calling again is right.
    fn recv_from<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>>;
}

/// The network.
pub trait Net: Send + Sync + 'static {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
    /// May take very long to fail: the caller sets a deadline.
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;
    fn datagrams(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>>;
}

/// Everything above, in one bundle that is cheap to clone.
#[derive(Clone)]
pub struct Env {
    pub disk: Arc<dyn Disk>,
    pub net: Arc<dyn Net>,
    pub wall: Arc<dyn WallClock>,
    pub entropy: Arc<dyn Entropy>,
    pub blocking: Arc<dyn Blocking>,
}

impl Env {
    /// Runs `work` where it may block and gives its result.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Abandoned> {
        let (done, result) = oneshot::channel();
        self.blocking.submit(Box::new(move || {
            // The caller may have gone away; then nobody wants the result.
            let _ = done.send(work());
        }));
        result.await.map_err(|_| Abandoned)
    }

    /// The same on the caller's own thread, for short work that comes often.
    pub async fn run_here<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Abandoned> {
        let mut result = None;
        self.blocking.run_here(Box::new(|| result = Some(work()))).await;
        result.ok_or(Abandoned)
    }
}
