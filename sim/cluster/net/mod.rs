//! The network between the hosts of one simulation: streams and datagrams over links that delay, lose, repeat, reorder and part.
//!
//! Model:
//! - every ordered pair of hosts is a *link* with its own delay, jitter, loss, bandwidth, and whether it is blocked;
//! - a *stream* is TCP as programs see it: bytes in order or not at all, at most a window of them unread by the peer; a lost or blocked
//!   packet is sent again until the link lets it through or the sender gives up and its end breaks, which the other end does not
//!   learn. Data for an end that is gone is answered by a reset. Connecting to a host that is down or out of reach hangs; to one that is up
//!   and does not listen, it is refused;
//! - a *datagram* goes once: it may be lost, come twice, and overtake others.
//!
//! Invariants: nothing passes between hosts but by an event at a later moment, and events come in the order of their times, then of
//! their making. So what one host does in its turn never touches another in the same moment.

mod datagram;
mod handles;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::os;
use super::trace::Trace;
use crate::rng::Rng;

use datagram::Socket;
pub use handles::HostNet;
use stream::{Connector, End};

/// Until a lost packet of a stream is sent again; each time it is lost, twice as long, up to the second of these.
const RESEND_US: u64 = 200_000;
const RESEND_US_MAX: u64 = 3_200_000;
/// Until a connection attempt without an answer is repeated.
const SYN_RESEND_US: u64 = 1_000_000;
/// Connections that a listener holds before they are accepted.
const BACKLOG: usize = 128;
/// The first port that a host gives to its own connections.
const EPHEMERAL_PORT: u16 = 40_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub u8);

impl HostId {
    pub fn ip(self) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, self.0 + 1).into()
    }

    fn of(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) if ip.octets()[..3] == [10, 0, 0] => ip.octets()[3].checked_sub(1).map(Self),
            _ => None,
        }
    }
}

/// One direction between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub delay_us: u64,
    pub jitter_us: u64,
    /// Of a hundred packets, so many are lost, and as many datagrams come twice.
    pub loss_percent: u64,
    pub repeat_percent: u64,
    pub bytes_per_ms: u64,
    pub blocked: bool,
}

/// What all streams share.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    /// Bytes on their way or unread at most.
    pub window_bytes: usize,
    /// Bytes that one call writes at most; each call draws how many.
    pub segment_bytes: usize,
    /// How long one packet is sent again and again before the end breaks.
    pub give_up_us: u64,
}

/// What has passed between two hosts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
    /// Of these, those of datagrams.
    pub datagrams: u64,
    pub datagram_bytes: u64,
}

#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
}

type EndId = u64;

enum Event {
    /// The first packet of what this end sends is due at its peer.
    Arrival(EndId),
    /// The peer has read so many of this end's bytes.
    Credit {
        to: EndId,
        bytes: usize,
    },
    Reset {
        to: EndId,
    },
    /// What this end sent has come to a machine that does not know the connection.
    Astray {
        from: HostId,
        to: HostId,
        end: EndId,
    },
    /// A connection is asked for.
    Syn(u64),
    /// And made, or refused.
    SynAnswer {
        connector: u64,
        end: Option<EndId>,
    },
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
}

struct Listening {
    backlog: VecDeque<(EndId, SocketAddr)>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Machine {
    up: bool,
    listeners: BTreeMap<u16, Listening>,
    sockets: BTreeMap<u16, Socket>,
    next_port: u16,
}

struct State {
    rng: Rng,
    trace: Trace,
    streams: Streams,
    usual: Link,
    links: BTreeMap<(HostId, HostId), Link>,
    busy_until_us: BTreeMap<(HostId, HostId), u64>,
    machines: BTreeMap<HostId, Machine>,
    ends: BTreeMap<EndId, End>,
    connectors: BTreeMap<u64, Connector>,
    next_id: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    /// Hosts with something to do since they were last asked for.
    ready: BTreeSet<HostId>,
    traffic: BTreeMap<(HostId, HostId), Traffic>,
    longest_datagram: u64,
}

impl Network {
    pub fn new(rng: Rng, trace: Trace, usual: Link, streams: Streams) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                rng,
                trace,
                streams,
                usual,
                links: BTreeMap::new(),
                busy_until_us: BTreeMap::new(),
                machines: BTreeMap::new(),
                ends: BTreeMap::new(),
                connectors: BTreeMap::new(),
                next_id: 1,
                events: BTreeMap::new(),
                next_event: 0,
                ready: BTreeSet::new(),
                traffic: BTreeMap::new(),
                longest_datagram: 0,
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network as programs on `host` see it.
    pub fn on(&self, host: HostId) -> HostNet {
        HostNet::new(self.clone(), host)
    }

    pub fn set_up(&self, host: HostId) {
        self.state().machine(host).up = true;
    }

    /// The power of `host` goes: what it sent and is on its way may still arrive, and nobody is told.
    pub fn power_off(&self, host: HostId) {
        let mut state = self.state();
        state.machine(host).up = false;
        state.forget_programs(host);
        for id in state.ends_of(host) {
            state.abandon(id, false);
        }
    }

    /// The programs of `host` end, its kernel goes on: peers are told, and new connections are refused.
    pub fn kill(&self, host: HostId) {
        let mut state = self.state();
        state.forget_programs(host);
        for id in state.ends_of(host) {
            state.abandon(id, true);
        }
    }

    /// Changes the link from `from` to `to`.
    pub fn change_link(&self, from: HostId, to: HostId, change: impl FnOnce(&mut Link)) {
        let mut state = self.state();
        let usual = state.usual;
        change(state.links.entry((from, to)).or_insert(usual));
    }

    /// Whether no link between two such hosts is other than it was at first.
    pub fn is_as_usual(&self, among: impl Fn(HostId) -> bool) -> bool {
        let state = self.state();
        let concerned = state.links.iter().filter(|((from, to), _)| among(*from) && among(*to));
        concerned.map(|(_, link)| link).all(|link| *link == state.usual)
    }

    /// All links are as they were.
    pub fn heal(&self) {
        self.state().links.clear();
    }

    /// Cuts one connection between the hosts that `among` admits, perhaps in the middle of what is on its way: both ends break.
    pub fn cut_one(&self, among: impl Fn(HostId, HostId) -> bool) -> Option<(HostId, HostId)> {
        self.state().cut_one(among)
    }

    pub fn next_event_us(&self) -> Option<u64> {
        self.state().events.keys().next().map(|(at_us, _)| *at_us)
    }

    /// Lets everything happen that is due, and gives the hosts that it concerns.
    pub fn deliver(&self) -> BTreeSet<HostId> {
        let mut state = self.state();
        let now_us = os::now_us();
        while let Some(entry) = state.events.first_entry().filter(|entry| entry.key().0 <= now_us) {
            let event = entry.remove();
            state.happen(event);
        }
        std::mem::take(&mut state.ready)
    }

    /// In bytes, without headers.
    pub fn longest_datagram(&self) -> u64 {
        self.state().longest_datagram
    }

    /// What has passed from each host to each other.
    pub fn traffic(&self) -> BTreeMap<(HostId, HostId), Traffic> {
        self.state().traffic.clone()
    }
}

impl State {
    fn machine(&mut self, host: HostId) -> &mut Machine {
        self.machines.entry(host).or_default()
    }

    fn is_up(&self, host: HostId) -> bool {
        self.machines.get(&host).is_some_and(|machine| machine.up)
    }

    fn forget_programs(&mut self, host: HostId) {
        let machine = self.machine(host);
        machine.listeners.clear();
        machine.sockets.clear();
        self.connectors.retain(|_, connector| connector.from != host);
    }

    fn link(&self, from: HostId, to: HostId) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or(self.usual)
    }

    /// Whether a packet that is due now gets through.
    fn is_open(&self, from: HostId, to: HostId) -> bool {
        self.is_up(to) && (from == to || !self.link(from, to).blocked)
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        let number = self.next_event;
        self.next_event += 1;
        // Nothing happens in the moment that made it.
        self.events.insert((at_us.max(os::now_us() + 1), number), event);
    }

    /// When `bytes` sent now are there, and whether they are lost on the way.
    fn journey(&mut self, from: HostId, to: HostId, bytes: usize) -> (u64, bool) {
        let link = self.link(from, to);
        let now_us = os::now_us();
        let traffic = self.traffic.entry((from, to)).or_default();
        traffic.packets += 1;
        traffic.bytes += bytes as u64;
        if from == to {
            return (now_us + 10, false);
        }
        let busy = self.busy_until_us.entry((from, to)).or_default();
        let sent_us = (*busy).max(now_us) + bytes as u64 * 1000 / link.bytes_per_ms.max(1);
        *busy = sent_us;
        let arrival_us = sent_us + link.delay_us + self.rng.below(link.jitter_us + 1);
        let lost = self.rng.percent(link.loss_percent);
        (arrival_us, lost)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(from) => self.arrive(from),
            Event::Credit { to, bytes } => self.credit(to, bytes),
            Event::Reset { to } => self.reset(to),
            Event::Astray { from, to, end } => self.answer_with_reset(from, to, end),
            Event::Syn(connector) => self.ask_to_connect(connector),
            Event::SynAnswer { connector, end } => self.answer_connect(connector, end),
            Event::Datagram { from, to, bytes } => self.receive(from, to, bytes),
        }
    }

    fn wake(&mut self, host: HostId, waker: Option<Waker>) {
        if let Some(waker) = waker {
            waker.wake();
            self.ready.insert(host);
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn free_port(&mut self, host: HostId) -> u16 {
        let machine = self.machine(host);
        loop {
            machine.next_port = machine.next_port.checked_add(1).unwrap_or(0).max(EPHEMERAL_PORT);
            let port = machine.next_port;
            if !machine.listeners.contains_key(&port) && !machine.sockets.contains_key(&port) {
                return port;
            }
        }
    }
}
