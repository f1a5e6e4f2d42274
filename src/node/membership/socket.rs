//! Chitchat's transport: its messages, packed, in sealed datagrams over the node's network.
//!
//! A message is little but digests, and of the 52 bytes of a node in a digest half are zeroes: LZ4 halves them, which is what lets the digest
//! of a hundred nodes travel in two packets, and that of a thousand in one datagram.
//!
//! An exchange tells both sides what the other knows, so one of the two that meet begins it: whoever heard the other within half a round of
//! gossip leaves its own turn out. Of two that begin in turn, one always comes less than half a round after the other; and where its message was lost,
//! the other has heard nothing and begins after all.
//!
//! Invariant: no datagram, however bad, and no error of the network ends gossip: chitchat's server stops for good when `recv` fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::raise;
use crate::env::{Datagrams, Entropy};
use crate::net::datagram::PAYLOAD_BYTES_MAX;
use crate::net::{DATAGRAM_BYTES_MAX, KeyRing, Newest, Opener, Refused, RefusedCounts, Sealer};
use crate::node::log_limiter::LogLimiter;
use crate::types::NodeId;

/// The first byte of a payload.
/// A message of chitchat, packed.
const GOSSIP: u8 = 0;
/// Node 8, generation 8, number 8: the newest that this node is known by. Answers a datagram of it that is older. It says whom it is about, because
/// strangers decide whom it comes to: it goes to where the datagram seemed to come from, and can be sent on to anybody. An address would say no more.
/// Kind 1 was the same without the node; what names nobody proves nothing, and is refused.
const OUTDATED: u8 = 2;
const OUTDATED_BYTES: usize = 1 /* kind */ + 8 /* node */ + 8 /* generation */ + 8 /* number */;
/// An acknowledgement that brings nothing: magic 2, version 1, kind 1, end of its delta 1.
const EMPTY_ACK_BYTES: usize = 5;

/// The longest message of chitchat, which takes it for what fits into a datagram.
const MESSAGE_BYTES_MAX: usize = DATAGRAM_BYTES_MAX;

/// A node that was paused makes up for all rounds that it missed, at once. Of what it would send to one address, the first is enough. Less than
/// what lies between two looks: at each, who is silent may be asked.
const SYN_INTERVAL_MIN: Duration = Duration::from_millis(80);
/// Addresses that are remembered.
const CONTACTS_MAX: usize = 4096;
/// Between two notices to nodes whose generation is outdated: they need one, and a replayed datagram must not cause many.
const NOTICE_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// After an error of the socket, so that one that lasts does not keep a processor busy.
const RECEIVE_RETRY: Duration = Duration::from_millis(10);

/// What gossip sent, received and refused since the start.
#[derive(Debug, Default)]
pub struct GossipCounters {
    /// Received, but not taken.
    pub refused: RefusedCounts,
    pub received: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent: AtomicU64,
    pub sent_bytes: AtomicU64,
    /// Not sent: the network refused, or the message was longer than a datagram.
    pub send_failures: AtomicU64,
}

pub(super) struct SocketParts {
    pub datagrams: Box<dyn Datagrams>,
    pub keys: KeyRing,
    pub node: NodeId,
    pub cluster: String,
    pub generation: u64,
    pub entropy: Arc<dyn Entropy>,
    pub counters: Arc<GossipCounters>,
    pub outdated: watch::Sender<Option<u64>>,
    /// Between two rounds of gossip.
    pub round: Duration,
}

/// Gives its socket once.
pub(super) struct SealedTransport(Mutex<Option<SocketParts>>);

impl SealedTransport {
    pub fn new(parts: SocketParts) -> Self {
        Self(Mutex::new(Some(parts)))
    }
}

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, _listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        // Chitchat opens it once. Two sealers would number their datagrams alike.
        let parts = self.0.lock().take().ok_or_else(|| anyhow::anyhow!("opened twice"))?;
        Ok(Box::new(SealedSocket {
            node: parts.node,
            cluster: parts.cluster,
            complaints: LogLimiter::default(),
            sealer: Sealer::new(&parts.keys, parts.node, parts.generation, parts.entropy),
            opener: Opener::new(&parts.keys, parts.node),
            datagrams: parts.datagrams,
            counters: parts.counters,
            outdated: parts.outdated,
            recent: parts.round / 2,
            message: Vec::new(),
            payload: Vec::new(),
            sealed: Vec::new(),
            received: vec![0; DATAGRAM_BYTES_MAX].into(),
            unpacked: vec![0; MESSAGE_BYTES_MAX].into(),
            contacts: BTreeMap::new(),
            last_notice: None,
        }))
    }
}

struct SealedSocket {
    node: NodeId,
    /// The name of the cluster.
    cluster: String,
    complaints: LogLimiter,
    datagrams: Box<dyn Datagrams>,
    sealer: Sealer,
    opener: Opener,
    counters: Arc<GossipCounters>,
    outdated: watch::Sender<Option<u64>>,
    /// Who was heard so recently needs not be asked.
    recent: Duration,
    /// Buffers, kept for their memory.
    message: Vec<u8>,
    payload: Vec<u8>,
    sealed: Vec<u8>,
    received: Box<[u8]>,
    unpacked: Box<[u8]>,
    contacts: BTreeMap<SocketAddr, Contact>,
    last_notice: Option<Instant>,
}

/// What passed between this node and an address.
#[derive(Default)]
struct Contact {
    /// When an exchange was begun here last.
    asked: Option<Instant>,
    /// When the other told last what it knows.
    heard: Option<Instant>,
}

#[async_trait]
impl Socket for SealedSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        if matches!(message, ChitchatMessage::Syn { .. }) && self.too_soon(to) {
            return Ok(());
        }
        self.message.clear();
        message.serialize(&mut self.message);
        let says_nothing = self.message.len() == EMPTY_ACK_BYTES;
        if !(says_nothing && matches!(message, ChitchatMessage::Ack { .. })) {
            self.payload.clear();
            self.payload.push(GOSSIP);
            pack(&self.message, &mut self.payload);
            self.send_payload(to).await;
        }
        // Gossip is repeated; chitchat would only warn of each failure.
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Ok((length, from)) = self.datagrams.recv_from(&mut self.received).await else {
                sleep(RECEIVE_RETRY).await;
                continue;
            };
            self.counters.received.fetch_add(1, Relaxed);
            self.counters.received_bytes.fetch_add(length as u64, Relaxed);
            match self.understand(length) {
                Ok(Some(message)) if self.is_of_another_cluster(from, &message) => {}
                Ok(Some(message)) => {
                    self.note_heard(from, &message);
                    return Ok((from, message));
                }
                Ok(None) => {}
                Err(refused) => {
                    self.counters.refused.count(refused);
                    tracing::debug!(%from, %refused, "a datagram is refused");
                    if let Refused::OldGeneration { sender, newest } | Refused::Replayed { sender, newest } = refused {
                        self.tell_outdated(from, sender, newest).await;
                    }
                }
            }
        }
    }
}

impl SealedSocket {
    /// Whether an exchange with this address would tell nothing new. If not, it counts as begun.
    fn too_soon(&mut self, to: SocketAddr) -> bool {
        let (now, recent) = (Instant::now(), self.recent);
        let contact = self.contact(to);
        let within = |last: Option<Instant>, time| last.is_some_and(|last| now - last < time);
        if within(contact.asked, SYN_INTERVAL_MIN) || within(contact.heard, recent) {
            return true;
        }
        contact.asked = Some(now);
        false
    }

    /// Chitchat would warn of each, on both sides, for as long as both run. Who sent it is told why by the first connection that it makes.
    fn is_of_another_cluster(&self, from: SocketAddr, message: &ChitchatMessage) -> bool {
        let ChitchatMessage::Syn { cluster_id: theirs, .. } = message else {
            return matches!(message, ChitchatMessage::BadCluster);
        };
        if *theirs == self.cluster {
            return false;
        }
        if self.complaints.is_due() {
            let ours = &self.cluster;
            tracing::warn!(%from, ?theirs, ?ours, "a node with this cluster's key has another --cluster-name: it is not spoken to");
        }
        true
    }

    fn note_heard(&mut self, from: SocketAddr, message: &ChitchatMessage) {
        // Only these say what the sender knows of all the others.
        if let ChitchatMessage::Syn { .. } | ChitchatMessage::SynAck { .. } = message {
            self.contact(from).heard = Some(Instant::now());
        }
    }

    fn contact(&mut self, addr: SocketAddr) -> &mut Contact {
        if self.contacts.len() >= CONTACTS_MAX && !self.contacts.contains_key(&addr) {
            self.contacts.clear();
        }
        self.contacts.entry(addr).or_default()
    }

    async fn send_payload(&mut self, to: SocketAddr) {
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            self.counters.send_failures.fetch_add(1, Relaxed);
            tracing::error!(bytes = self.payload.len(), "gossip is longer than a datagram");
            return;
        }
        self.sealer.seal(&self.payload, &mut self.sealed);
        match self.datagrams.send_to(&self.sealed, to).await {
            Ok(()) => {
                self.counters.sent.fetch_add(1, Relaxed);
                self.counters.sent_bytes.fetch_add(self.sealed.len() as u64, Relaxed);
            }
            Err(error) => {
                self.counters.send_failures.fetch_add(1, Relaxed);
                tracing::debug!(%to, %error, "a datagram could not be sent");
            }
        }
    }

    /// What the datagram in the buffer says; nothing, if it was meant for this socket only.
    fn understand(&mut self, length: usize) -> Result<Option<ChitchatMessage>, Refused> {
        let datagram = self.received.get_mut(..length).ok_or(Refused::Malformed)?;
        let opened = self.opener.open(datagram)?;
        match opened.payload {
            [GOSSIP, packed @ ..] => {
                let mut rest = unpack(packed, &mut self.unpacked).ok_or(Refused::Malformed)?;
                let message = ChitchatMessage::deserialize(&mut rest);
                message.map(Some).map_err(|_| Refused::Malformed)
            }
            [OUTDATED, notice @ ..] => {
                let (node, newest) = decode_notice(notice).ok_or(Refused::Malformed)?;
                // Only what this process did not send itself proves anything: whoever replays its datagrams causes notices too.
                if node == self.node && newest > self.sealer.newest() {
                    raise(&self.outdated, newest.generation);
                }
                Ok(None)
            }
            _ => Err(Refused::Malformed),
        }
    }

    /// A node whose counter was set back, by a disk restored from an old copy, would otherwise never learn why nobody listens.
    async fn tell_outdated(&mut self, to: SocketAddr, node: NodeId, newest: Newest) {
        let now = Instant::now();
        let too_soon = |last: Instant| now - last < NOTICE_INTERVAL_MIN;
        if self.last_notice.is_some_and(too_soon) {
            return;
        }
        self.last_notice = Some(now);
        self.payload.clear();
        self.payload.push(OUTDATED);
        self.payload.extend_from_slice(&node.0.to_le_bytes());
        self.payload.extend_from_slice(&newest.generation.to_le_bytes());
        self.payload.extend_from_slice(&newest.number.to_le_bytes());
        self.send_payload(to).await;
    }
}

/// Appends the message to `packed`.
fn pack(message: &[u8], packed: &mut Vec<u8>) {
    let start = packed.len();
    packed.resize(start + lz4_flex::block::get_maximum_output_size(message.len()), 0);
    // Fails only where there is less room than that.
    let length = lz4_flex::block::compress_into(message, &mut packed[start..]).unwrap_or(0);
    packed.truncate(start + length);
}

/// Nothing, if that is not packed, or more than there is room for.
fn unpack<'a>(packed: &[u8], room: &'a mut [u8]) -> Option<&'a [u8]> {
    let length = lz4_flex::block::decompress_into(packed, room).ok()?;
    room.get(..length)
}

/// What follows the kind in a notice: whom it is about, and the newest of it.
fn decode_notice(bytes: &[u8]) -> Option<(NodeId, Newest)> {
    let bytes: &[u8; OUTDATED_BYTES - 1] = bytes.try_into().ok()?;
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|offset| bytes[at + offset]));
    let newest = Newest {
        generation: u64_at(8),
        number: u64_at(16),
    };
    Some((NodeId(u64_at(0)), newest))
}
