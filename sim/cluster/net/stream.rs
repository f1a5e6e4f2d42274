//! Streams: their ends, what is on its way between them, and how they begin and end.
//!
//! Each end keeps what it has sent in order, with the moment at which each packet is there; one event per direction waits for the
//! first of them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use super::{BACKLOG, EndId, Event, HostId, RESEND_US, RESEND_US_MAX, SYN_RESEND_US, State};
use crate::cluster::os;

/// The sender hears of what was read in steps of this part of the window.
const CREDIT_PART: usize = 4;
/// What a packet weighs beside its data.
const HEADER_BYTES: usize = 52;

enum Packet {
    Data(Vec<u8>),
    /// Nothing more will come.
    Fin,
}

pub(super) struct End {
    host: HostId,
    peer_host: HostId,
    peer: EndId,
    /// On its way, with when it is there.
    sent: VecDeque<(u64, Packet)>,
    /// Sent and, as far as this end knows, unread.
    unread_bytes: usize,
    /// When the first of `sent` was first refused by the link.
    stuck_since_us: Option<u64>,
    fin_sent: bool,
    /// The program has let go of it; it only lasts until what it sent has arrived.
    orphan: bool,
    /// Its machine is gone: nothing is sent again.
    dead: bool,
    broken: Option<ErrorKind>,
    received: VecDeque<u8>,
    /// Read by the program, and the peer not told yet.
    read_bytes: usize,
    fin_received: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A connection that is being made.
pub(super) struct Connector {
    pub from: HostId,
    local: SocketAddr,
    to: SocketAddr,
    pub outcome: Option<io::Result<EndId>>,
    pub waker: Option<Waker>,
    /// What the server made for it.
    ends: Option<EndId>,
}

/// Until a packet is sent again that was first lost so long ago: each time twice as long as the time before.
fn resend_us(stuck_us: u64) -> u64 {
    (stuck_us + RESEND_US).min(RESEND_US_MAX)
}

impl State {
    pub(super) fn ends_of(&self, host: HostId) -> Vec<EndId> {
        let of_host = self.ends.iter().filter(|(_, end)| end.host == host);
        of_host.map(|(id, _)| *id).collect()
    }

    pub(super) fn connect(&mut self, from: HostId, to: SocketAddr) -> u64 {
        let local = SocketAddr::new(from.ip(), self.free_port(from));
        let id = self.new_id();
        let connector = Connector {
            from,
            local,
            to,
            outcome: None,
            waker: None,
            ends: None,
        };
        self.connectors.insert(id, connector);
        self.send_syn(id);
        id
    }

    fn send_syn(&mut self, id: u64) {
        let Some(connector) = self.connectors.get(&id) else {
            return;
        };
        let (from, to) = (connector.from, HostId::of(connector.to.ip()));
        // An address that no host has swallows everything.
        let Some(to) = to else { return };
        let (arrival_us, lost) = self.journey(from, to, HEADER_BYTES);
        let at_us = if lost { arrival_us + SYN_RESEND_US } else { arrival_us };
        self.schedule(at_us, Event::Syn(id));
    }

    pub(super) fn ask_to_connect(&mut self, id: u64) {
        let Some(connector) = self.connectors.get(&id) else {
            return;
        };
        let (from, address, local) = (connector.from, connector.to, connector.local);
        let Some(to) = HostId::of(address.ip()) else { return };
        if !self.is_open(from, to) {
            return self.schedule(os::now_us() + SYN_RESEND_US, Event::Syn(id));
        }
        let listening = self
            .machines
            .get_mut(&to)
            .and_then(|machine| machine.listeners.get_mut(&address.port()));
        let end = match listening {
            Some(listening) if listening.backlog.len() >= BACKLOG => {
                return self.schedule(os::now_us() + SYN_RESEND_US, Event::Syn(id));
            }
            None => None,
            Some(listening) => {
                let (client, server) = (self.next_id, self.next_id + 1);
                self.next_id += 2;
                listening.backlog.push_back((server, local));
                let waker = listening.waker.take();
                self.ends.insert(client, End::new(from, to, server));
                self.ends.insert(server, End::new(to, from, client));
                self.wake(to, waker);
                Some(client)
            }
        };
        self.trace
            .note("connect", &[from.0.into(), to.0.into(), id, end.unwrap_or(0)], || {
                address.to_string()
            });
        let (arrival_us, lost) = self.journey(to, from, HEADER_BYTES);
        let at_us = if lost { arrival_us + SYN_RESEND_US } else { arrival_us };
        self.schedule(at_us, Event::SynAnswer { connector: id, end });
    }

    pub(super) fn answer_connect(&mut self, id: u64, end: Option<EndId>) {
        let Some(connector) = self.connectors.get_mut(&id) else {
            // Nobody waits any more: the server's end finds out by the reset that its data gets.
            if let Some(end) = end {
                self.ends.remove(&end);
            }
            return;
        };
        let (from, to) = (connector.from, connector.to);
        if let Some(to) = HostId::of(to.ip())
            && !self.is_open(to, from)
        {
            return self.schedule(os::now_us() + SYN_RESEND_US, Event::SynAnswer { connector: id, end });
        }
        let Some(connector) = self.connectors.get_mut(&id) else {
            return;
        };
        connector.ends = end;
        connector.outcome = Some(end.ok_or_else(|| ErrorKind::ConnectionRefused.into()));
        let waker = connector.waker.take();
        self.wake(from, waker);
    }

    /// Whoever waited for a connection does so no more.
    pub(super) fn drop_connector(&mut self, id: u64, taken: bool) {
        let connector = self.connectors.remove(&id);
        if let Some(end) = connector.and_then(|connector| connector.ends)
            && !taken
        {
            self.abandon(end, true);
        }
    }

    pub(super) fn write(&mut self, id: EndId, bytes: &[u8], context: &Context<'_>) -> Poll<io::Result<usize>> {
        let streams = self.streams;
        let Some(end) = self.ends.get_mut(&id).filter(|end| !end.orphan) else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        };
        if let Some(kind) = end.broken {
            return Poll::Ready(Err(kind.into()));
        }
        if end.fin_sent {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = streams.window_bytes.saturating_sub(end.unread_bytes);
        if room == 0 {
            end.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let most = bytes.len().min(room).min(streams.segment_bytes);
        // Now and then only a part is taken: programs must live with any.
        let count = match self.rng.below(8) {
            0 if most > 1 => self.rng.between(1, most as u64) as usize,
            _ => most,
        };
        self.send(id, Packet::Data(bytes[..count].to_vec()));
        Poll::Ready(Ok(count))
    }

    fn send(&mut self, id: EndId, packet: Packet) {
        let Some(end) = self.ends.get(&id) else { return };
        let (from, to) = (end.host, end.peer_host);
        let data_bytes = match &packet {
            Packet::Data(bytes) => bytes.len(),
            Packet::Fin => 0,
        };
        let (mut arrival_us, lost) = self.journey(from, to, HEADER_BYTES + data_bytes);
        if lost {
            arrival_us += RESEND_US;
        }
        let Some(end) = self.ends.get_mut(&id) else { return };
        end.unread_bytes += data_bytes;
        end.fin_sent |= matches!(packet, Packet::Fin);
        if let Some((last_us, _)) = end.sent.back() {
            // In order, whatever the jitter.
            end.sent.push_back((arrival_us.max(*last_us), packet));
        } else {
            end.sent.push_back((arrival_us, packet));
            self.schedule(arrival_us, Event::Arrival(id));
        }
    }

    /// The first packet that `id` sent is due.
    pub(super) fn arrive(&mut self, id: EndId) {
        let give_up_us = self.streams.give_up_us;
        let Some(end) = self.ends.get(&id) else { return };
        let (from, to, peer) = (end.host, end.peer_host, end.peer);
        let open = self.is_open(from, to);
        let now_us = os::now_us();
        let Some(end) = self.ends.get_mut(&id) else { return };
        if !open {
            let since_us = *end.stuck_since_us.get_or_insert(now_us);
            if end.dead || now_us - since_us > give_up_us {
                return self.break_end(id, ErrorKind::TimedOut);
            }
            return self.schedule(now_us + resend_us(now_us - since_us), Event::Arrival(id));
        }
        end.stuck_since_us = None;
        let Some((_, packet)) = end.sent.pop_front() else {
            return;
        };
        let next_us = end.sent.front().map(|(next_us, _)| *next_us);
        if let Some(next_us) = next_us {
            self.schedule(next_us, Event::Arrival(id));
        }
        self.take_in(id, peer, from, to, packet);
        if let Some(end) = self.ends.get(&id)
            && end.orphan
            && end.sent.is_empty()
        {
            self.ends.remove(&id);
        }
    }

    fn take_in(&mut self, id: EndId, peer: EndId, from: HostId, to: HostId, packet: Packet) {
        let trace = self.trace.clone();
        let Some(end) = self
            .ends
            .get_mut(&peer)
            .filter(|end| !end.orphan && end.broken.is_none())
        else {
            trace.note("astray", &[from.0.into(), to.0.into(), id], String::new);
            return self.answer_with_reset(to, from, id);
        };
        match packet {
            Packet::Data(bytes) => {
                let crc = crc32c::crc32c(&bytes);
                trace.note(
                    "bytes",
                    &[from.0.into(), to.0.into(), id, bytes.len() as u64, crc.into()],
                    String::new,
                );
                end.received.extend(bytes);
            }
            Packet::Fin => {
                trace.note("fin", &[from.0.into(), to.0.into(), id], String::new);
                end.fin_received = true;
            }
        }
        let waker = end.reader.take();
        self.wake(to, waker);
    }

    /// What the end sent is not acknowledged, so it goes again and again and draws a reset each time, until one comes through.
    pub(super) fn answer_with_reset(&mut self, from: HostId, to: HostId, end: EndId) {
        if self.send_reset(from, to, end) {
            return;
        }
        let now_us = os::now_us();
        let Some(sender) = self.ends.get_mut(&end).filter(|sender| sender.broken.is_none()) else {
            return;
        };
        let since_us = *sender.stuck_since_us.get_or_insert(now_us);
        if now_us - since_us > self.streams.give_up_us {
            return self.break_end(end, ErrorKind::TimedOut);
        }
        self.schedule(now_us + resend_us(now_us - since_us), Event::Astray { from, to, end });
    }

    /// A reset goes once. Gives whether it will arrive.
    fn send_reset(&mut self, from: HostId, to: HostId, end: EndId) -> bool {
        let (arrival_us, lost) = self.journey(from, to, HEADER_BYTES);
        let arrives = !lost && (from == to || !self.link(from, to).blocked);
        if arrives {
            self.schedule(arrival_us, Event::Reset { to: end });
        }
        arrives
    }

    pub(super) fn reset(&mut self, id: EndId) {
        if let Some(host) = self.ends.get(&id).map(|end| end.host) {
            self.trace.note("reset", &[host.0.into(), id], String::new);
            self.break_end(id, ErrorKind::ConnectionReset);
        }
    }

    fn break_end(&mut self, id: EndId, kind: ErrorKind) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        let host = end.host;
        end.sent.clear();
        end.broken.get_or_insert(kind);
        let wakers = [end.reader.take(), end.writer.take()];
        if end.orphan {
            self.ends.remove(&id);
        }
        for waker in wakers {
            self.wake(host, waker);
        }
    }

    pub(super) fn read(&mut self, id: EndId, room: usize, context: &Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let window = self.streams.window_bytes;
        let Some(end) = self.ends.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        };
        if end.received.is_empty() {
            return match end.broken {
                Some(kind) => Poll::Ready(Err(kind.into())),
                None if end.fin_received => Poll::Ready(Ok(Vec::new())),
                None => {
                    end.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        }
        let count = room.min(end.received.len());
        let bytes: Vec<u8> = end.received.drain(..count).collect();
        end.read_bytes += count;
        if end.read_bytes >= window / CREDIT_PART {
            let (told, peer) = (std::mem::take(&mut end.read_bytes), end.peer);
            let (from, to) = (end.host, end.peer_host);
            let (arrival_us, lost) = self.journey(from, to, HEADER_BYTES);
            let at_us = if lost { arrival_us + RESEND_US } else { arrival_us };
            self.schedule(at_us, Event::Credit { to: peer, bytes: told });
        }
        Poll::Ready(Ok(bytes))
    }

    pub(super) fn credit(&mut self, to: EndId, bytes: usize) {
        let Some(end) = self.ends.get(&to) else { return };
        let (from, host) = (end.peer_host, end.host);
        if !self.is_open(from, host) {
            return self.schedule(os::now_us() + RESEND_US, Event::Credit { to, bytes });
        }
        let Some(end) = self.ends.get_mut(&to) else { return };
        end.unread_bytes = end.unread_bytes.saturating_sub(bytes);
        let waker = end.writer.take();
        self.wake(host, waker);
    }

    /// The program will write no more.
    pub(super) fn finish(&mut self, id: EndId) {
        if let Some(end) = self.ends.get(&id)
            && !end.fin_sent
            && !end.orphan
            && end.broken.is_none()
        {
            self.send(id, Packet::Fin);
        }
    }

    /// The program, or its whole machine (not `told`), has let go of this end.
    pub(super) fn abandon(&mut self, id: EndId, told: bool) {
        let Some(end) = self.ends.get_mut(&id).filter(|end| !end.orphan) else {
            return;
        };
        let (host, peer_host, peer) = (end.host, end.peer_host, end.peer);
        let unread = !end.received.is_empty();
        end.reader = None;
        end.writer = None;
        if end.broken.is_some() {
            self.ends.remove(&id);
            return;
        }
        if told && unread {
            // Closed with something unread: TCP resets at once, and what was sent may be lost.
            self.ends.remove(&id);
            self.send_reset(host, peer_host, peer);
            return;
        }
        if told {
            self.finish(id);
        }
        let Some(end) = self.ends.get_mut(&id) else { return };
        end.orphan = true;
        end.dead = !told;
        if end.sent.is_empty() {
            self.ends.remove(&id);
        }
    }

    pub(super) fn cut_one(&mut self, among: impl Fn(HostId, HostId) -> bool) -> Option<(HostId, HostId)> {
        let whole = |end: &End| !end.orphan && end.broken.is_none() && end.host != end.peer_host;
        let open: Vec<EndId> = self
            .ends
            .iter()
            .filter(|(id, end)| whole(end) && **id < end.peer && among(end.host, end.peer_host))
            .map(|(id, _)| *id)
            .collect();
        let id = *open.get(self.rng.below(open.len() as u64) as usize)?;
        let end = self.ends.get(&id)?;
        let (peer, hosts) = (end.peer, (end.host, end.peer_host));
        self.trace
            .note("cut", &[hosts.0.0.into(), hosts.1.0.into(), id], String::new);
        for (from, to) in [(id, peer), (peer, id)] {
            self.deliver_a_part(from, to);
        }
        self.break_end(id, ErrorKind::ConnectionReset);
        self.break_end(peer, ErrorKind::ConnectionReset);
        Some(hosts)
    }

    /// Of the first packet on its way, some bytes still arrive.
    fn deliver_a_part(&mut self, from: EndId, to: EndId) {
        let first = self.ends.get_mut(&from).and_then(|end| end.sent.pop_front());
        if let Some((_, Packet::Data(mut bytes))) = first {
            bytes.truncate(self.rng.below(bytes.len() as u64 + 1) as usize);
            if let Some(end) = self.ends.get_mut(&to) {
                end.received.extend(bytes);
            }
        }
    }
}

impl End {
    fn new(host: HostId, peer_host: HostId, peer: EndId) -> Self {
        Self {
            host,
            peer_host,
            peer,
            sent: VecDeque::new(),
            unread_bytes: 0,
            stuck_since_us: None,
            fin_sent: false,
            orphan: false,
            dead: false,
            broken: None,
            received: VecDeque::new(),
            read_bytes: 0,
            fin_received: false,
            reader: None,
            writer: None,
        }
    }
}
