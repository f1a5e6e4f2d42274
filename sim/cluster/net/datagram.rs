//! Datagrams: each goes once, by itself.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use super::{Event, HostId, State};

/// What IPv4 can carry.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Datagrams that wait to be received; beyond it, new ones are dropped.
const WAITING_MAX: usize = 256;
const HEADER_BYTES: usize = 28;

#[derive(Default)]
pub(super) struct Socket {
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    receiver: Option<Waker>,
}

impl State {
    pub(super) fn send_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidInput, "simulated: message too long"));
        }
        let (Some(source), Some(target)) = (HostId::of(from.ip()), HostId::of(to.ip())) else {
            return Ok(());
        };
        if !self.is_up(source) {
            return Err(ErrorKind::NetworkDown.into());
        }
        let copies = if self.rng.percent(self.link(source, target).repeat_percent) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let (arrival_us, lost) = self.journey(source, target, HEADER_BYTES + bytes.len());
            let traffic = self.traffic.entry((source, target)).or_default();
            traffic.datagrams += 1;
            traffic.datagram_bytes += (HEADER_BYTES + bytes.len()) as u64;
            self.longest_datagram = self.longest_datagram.max(bytes.len() as u64);
            if !lost && (source == target || !self.link(source, target).blocked) {
                let bytes = bytes.to_vec();
                self.schedule(arrival_us, Event::Datagram { from, to, bytes });
            }
        }
        Ok(())
    }

    pub(super) fn receive(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let (Some(source), Some(host)) = (HostId::of(from.ip()), HostId::of(to.ip())) else {
            return;
        };
        if !self.is_open(source, host) {
            return;
        }
        let crc = crc32c::crc32c(&bytes);
        let trace = self.trace.clone();
        let Some(socket) = self.machine(host).sockets.get_mut(&to.port()) else {
            return;
        };
        if socket.waiting.len() < WAITING_MAX {
            let numbers = [source.0.into(), host.0.into(), bytes.len() as u64, crc.into()];
            trace.note("datagram", &numbers, String::new);
            socket.waiting.push_back((from, bytes));
        }
        let waker = socket.receiver.take();
        self.wake(host, waker);
    }

    pub(super) fn poll_receive(
        &mut self,
        at: SocketAddr,
        buffer: &mut [u8],
        context: &Context<'_>,
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let socket = HostId::of(at.ip()).and_then(|host| self.machine(host).sockets.get_mut(&at.port()));
        let Some(socket) = socket else {
            return Poll::Ready(Err(ErrorKind::NetworkDown.into()));
        };
        match socket.waiting.pop_front() {
            None => {
                socket.receiver = Some(context.waker().clone());
                Poll::Pending
            }
            Some((from, bytes)) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                Poll::Ready(Ok((count, from)))
            }
        }
    }
}
