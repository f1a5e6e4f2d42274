//! A network in memory that loses, delays and parts.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use crate::env::{BoxFuture, Datagrams, Listener, Net, Stream};

/// A datagram and where it comes from.
type Packet = (Vec<u8>, SocketAddr);

/// The network between all nodes of a test.
pub(super) struct Wire {
    pub(super) sockets: BTreeMap<SocketAddr, mpsc::UnboundedSender<Packet>>,
    pub(super) rng: SmallRng,
    /// Of 100 datagrams, how many are lost.
    pub(super) loss_percent: u32,
    pub(super) delay_max: Duration,
    /// Addresses that nothing reaches or leaves.
    pub(super) cut_off: BTreeSet<SocketAddr>,
    /// Every datagram that was sent, with its destination, while this is on.
    pub(super) recorded: Option<Vec<(Vec<u8>, SocketAddr)>>,
    pub(super) sent_bytes: u64,
}

#[derive(Clone)]
pub(super) struct MemoryNet(pub(super) Arc<parking_lot::Mutex<Wire>>);

impl MemoryNet {
    pub(super) fn new(loss_percent: u32, delay_max: Duration) -> Self {
        Self(Arc::new(parking_lot::Mutex::new(Wire {
            sockets: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(7),
            loss_percent,
            delay_max,
            cut_off: BTreeSet::new(),
            recorded: None,
            sent_bytes: 0,
        })))
    }

    pub(super) fn send(&self, bytes: &[u8], from: SocketAddr, to: SocketAddr) {
        let mut wire = self.0.lock();
        wire.sent_bytes += bytes.len() as u64 + 28 /* IPv4 and UDP headers */;
        if let Some(recorded) = &mut wire.recorded {
            recorded.push((bytes.to_vec(), to));
        }
        let parted = wire.cut_off.contains(&from) || wire.cut_off.contains(&to);
        let (percent, delay_max) = (wire.loss_percent, wire.delay_max);
        if parted || wire.rng.random_range(0..100) < percent {
            return;
        }
        let Some(socket) = wire.sockets.get(&to).cloned() else {
            return;
        };
        let delay = delay_max.mul_f64(wire.rng.random());
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            sleep(delay).await;
            let _ = socket.send((bytes, from));
        });
    }
}

impl Net for MemoryNet {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn datagrams(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::unbounded_channel();
            let mut wire = self.0.lock();
            if wire.sockets.get(&addr).is_some_and(|socket| !socket.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            wire.sockets.insert(addr, sender);
            Ok(Box::new(MemorySocket {
                net: self.clone(),
                addr,
                received: tokio::sync::Mutex::new(receiver),
            }) as Box<dyn Datagrams>)
        })
    }
}

struct MemorySocket {
    net: MemoryNet,
    addr: SocketAddr,
    received: tokio::sync::Mutex<mpsc::UnboundedReceiver<Packet>>,
}

impl Datagrams for MemorySocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn send_to<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>> {
        self.net.send(bytes, self.addr, to);
        Box::pin(async { Ok(()) })
    }

    fn recv_from<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async move {
            let packet = self.received.lock().await.recv().await;
            let (bytes, from) = packet.ok_or(io::ErrorKind::BrokenPipe)?;
            let length = bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            Ok((length, from))
        })
    }
}
