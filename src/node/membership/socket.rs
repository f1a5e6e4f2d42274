//! Chitchat's transport: its messages in sealed datagrams over the node's network.
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
use crate::types::NodeId;

/// The first byte of a payload.
const GOSSIP: u8 = 0;
/// Generation 8, number 8: the newest that the receiver of this is known by. Answers a datagram that is older.
const OUTDATED: u8 = 1;
const OUTDATED_BYTES: usize = 1 /* kind */ + 8 /* generation */ + 8 /* number */;
/// An acknowledgement that brings nothing: magic 2, version 1, kind 1, end of its delta 1.
const EMPTY_ACK_BYTES: usize = 5;

/// A node that was paused makes up for all rounds that it missed, at once. Of what it would send to one address, the first is enough.
const SYN_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Addresses for which that is remembered.
const SYN_ADDRS_MAX: usize = 4096;
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
    pub generation: u64,
    pub entropy: Arc<dyn Entropy>,
    pub counters: Arc<GossipCounters>,
    pub outdated: watch::Sender<Option<u64>>,
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
            sealer: Sealer::new(&parts.keys, parts.node, parts.generation, parts.entropy),
            opener: Opener::new(&parts.keys, parts.node),
            datagrams: parts.datagrams,
            counters: parts.counters,
            outdated: parts.outdated,
            payload: Vec::new(),
            sealed: Vec::new(),
            received: vec![0; DATAGRAM_BYTES_MAX].into(),
            syns: BTreeMap::new(),
            last_notice: None,
        }))
    }
}

struct SealedSocket {
    datagrams: Box<dyn Datagrams>,
    sealer: Sealer,
    opener: Opener,
    counters: Arc<GossipCounters>,
    outdated: watch::Sender<Option<u64>>,
    /// Buffers, kept for their memory.
    payload: Vec<u8>,
    sealed: Vec<u8>,
    received: Box<[u8]>,
    /// When a round of gossip was begun last, by address.
    syns: BTreeMap<SocketAddr, Instant>,
    last_notice: Option<Instant>,
}

#[async_trait]
impl Socket for SealedSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        if matches!(message, ChitchatMessage::Syn { .. }) && self.too_soon(to) {
            return Ok(());
        }
        self.payload.clear();
        self.payload.push(GOSSIP);
        message.serialize(&mut self.payload);
        let says_nothing = self.payload.len() == 1 + EMPTY_ACK_BYTES;
        if !(says_nothing && matches!(message, ChitchatMessage::Ack { .. })) {
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
                Ok(Some(message)) => return Ok((from, message)),
                Ok(None) => {}
                Err(refused) => {
                    self.counters.refused.count(refused);
                    tracing::debug!(%from, %refused, "a datagram is refused");
                    if let Refused::OldGeneration { newest, .. } | Refused::Replayed { newest, .. } = refused {
                        self.tell_outdated(from, newest).await;
                    }
                }
            }
        }
    }
}

impl SealedSocket {
    fn too_soon(&mut self, to: SocketAddr) -> bool {
        let now = Instant::now();
        if self.syns.get(&to).is_some_and(|last| now - *last < SYN_INTERVAL_MIN) {
            return true;
        }
        if self.syns.len() >= SYN_ADDRS_MAX {
            self.syns.clear();
        }
        self.syns.insert(to, now);
        false
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
            [GOSSIP, message @ ..] => {
                let mut rest = message;
                let message = ChitchatMessage::deserialize(&mut rest);
                message.map(Some).map_err(|_| Refused::Malformed)
            }
            [OUTDATED, newest @ ..] => {
                let newest = decode_newest(newest).ok_or(Refused::Malformed)?;
                // Only what this process did not send itself proves anything: whoever replays its datagrams causes notices too.
                if newest > self.sealer.newest() {
                    raise(&self.outdated, newest.generation);
                }
                Ok(None)
            }
            _ => Err(Refused::Malformed),
        }
    }

    /// A node whose counter was set back, by a disk restored from an old copy, would otherwise never learn why nobody listens.
    async fn tell_outdated(&mut self, to: SocketAddr, newest: Newest) {
        let now = Instant::now();
        let too_soon = |last: Instant| now - last < NOTICE_INTERVAL_MIN;
        if self.last_notice.is_some_and(too_soon) {
            return;
        }
        self.last_notice = Some(now);
        self.payload.clear();
        self.payload.push(OUTDATED);
        self.payload.extend_from_slice(&newest.generation.to_le_bytes());
        self.payload.extend_from_slice(&newest.number.to_le_bytes());
        self.send_payload(to).await;
    }
}

/// What follows the kind in a notice.
fn decode_newest(bytes: &[u8]) -> Option<Newest> {
    let bytes: &[u8; OUTDATED_BYTES - 1] = bytes.try_into().ok()?;
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|offset| bytes[at + offset]));
    Some(Newest {
        generation: u64_at(0),
        number: u64_at(8),
    })
}
