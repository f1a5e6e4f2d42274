//! A network inside the process: what goes over it takes no time, and waits for nothing that a paused clock does not know of.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};

use parking_lot::Mutex;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::env::{BoxFuture, Datagrams, Listener, Net, Stream};

/// Bytes on their way at most.
const WINDOW_BYTES: usize = 64 * 1024;
/// Here nobody listens, and nothing says so.
pub const SILENT: &str = "10.0.0.0:1";

/// Who listens where. One for all tests: no address is given twice.
static LISTENERS: Mutex<BTreeMap<SocketAddr, UnboundedSender<DuplexStream>>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Clone, Copy)]
pub struct MemoryNet;

impl MemoryNet {
    /// At an address of its own.
    pub fn bind() -> (SocketAddr, UnboundedReceiver<DuplexStream>) {
        let (made, accepted) = unbounded_channel();
        let mut listeners = LISTENERS.lock();
        let number = u32::try_from(listeners.len() + 1).unwrap();
        let address = SocketAddr::from((Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number), 8000));
        listeners.insert(address, made);
        (address, accepted)
    }
}

fn connect(address: SocketAddr) -> io::Result<DuplexStream> {
    let (ours, theirs) = duplex(WINDOW_BYTES);
    let made = LISTENERS.lock().get(&address).cloned();
    let made = made.ok_or(ErrorKind::ConnectionRefused)?;
    // A node that is gone listens no more.
    made.send(theirs).map_err(|_| ErrorKind::ConnectionRefused)?;
    Ok(ours)
}

impl Net for MemoryNet {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            if address.to_string() == SILENT {
                std::future::pending::<()>().await;
            }
            Ok(Box::new(connect(address)?) as Box<dyn Stream>)
        })
    }

    fn datagrams(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }
}
