//! From a bare connection to an authenticated, encrypted channel for frames.
//!
//! ```text
//! who connects                                            who accepts
//! first preamble, Noise message 1               ->
//!                                               <-        answer preamble, Noise message 2 (agreed version, hello)
//! record 0 (hello)                              ->
//! ```
//!
//! A recording of message 1 gets an answer, but nobody who cannot read that answer can make the record that follows: who accepts trusts
//! nothing before it. Every length up to there is fixed, so a stranger costs a few hundred bytes and one key agreement, and is gone
//! after [`HANDSHAKE_TIMEOUT`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use snow::{HandshakeState, StatelessTransportState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::frame_reader::FrameReader;
use super::frame_writer::FrameWriter;
use super::key::KeyRing;
use super::noise::{self, HANDSHAKE_BYTES, TAG_BYTES};
use super::preamble::{ANSWER_BYTES, Answer, FIRST_BYTES, First, Verdict, Versions};
use super::record::{LENGTH_BYTES, RecordCipher};
use crate::env::{Entropy, Stream};
use crate::types::NodeId;

/// A handshake is one round trip and two key agreements. Whoever takes longer is no peer, or no use.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

const HELLO_BYTES: usize = 8 /* node */ + 8 /* generation */ + 8 /* cluster */;
const VERSION_BYTES: usize = 2;
const MESSAGE_1_BYTES: usize = HANDSHAKE_BYTES;
const MESSAGE_2_BYTES: usize = HANDSHAKE_BYTES + VERSION_BYTES + HELLO_BYTES;
const HELLO_RECORD_BYTES: usize = LENGTH_BYTES + HELLO_BYTES + TAG_BYTES;

/// Who one is, as told to the other side inside the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    pub node: NodeId,
    /// Grows with each start of the node.
    pub generation: u64,
    /// Which cluster it belongs to; 0 while to none. The caller compares.
    pub cluster: u64,
}

/// What this side brings to a handshake.
#[derive(Clone)]
pub struct Local {
    pub keys: KeyRing,
    pub versions: Versions,
    pub hello: Hello,
    pub entropy: Arc<dyn Entropy>,
}

/// A connection whose other side has proved the cluster key.
pub struct Channel {
    pub reader: FrameReader,
    pub writer: FrameWriter,
    pub peer: Hello,
    /// The agreed version of the protocol.
    pub version: u16,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (peer, version) = (&self.peer, &self.version);
        write!(f, "Channel({peer:?}, version {version})")
    }
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the connection broke during the handshake: {0}")]
    Io(#[from] io::Error),
    #[error("the handshake took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the other side does not speak the protocol of this cluster")]
    OtherProtocol,
    #[error("no common version of the protocol: this node speaks {ours}, the other one {theirs}")]
    NoCommonVersion { ours: Versions, theirs: Versions },
    #[error("the other side's cluster key is unknown here")]
    UnknownKey,
    #[error("the other side does not know this node's cluster key")]
    KeyNotKnownThere,
    #[error("the other side does not hold the cluster key that it names")]
    NotAuthentic,
    #[error("the handshake could not be prepared: {0}")]
    Internal(snow::Error),
}

impl HandshakeError {
    /// For metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::TimedOut => "timed_out",
            Self::OtherProtocol => "other_protocol",
            Self::NoCommonVersion { .. } => "version",
            Self::UnknownKey => "unknown_key",
            Self::KeyNotKnownThere => "key_not_known_there",
            Self::NotAuthentic => "not_authentic",
            Self::Internal(_) => "internal",
        }
    }
}

/// The side that made the connection.
pub async fn connect(stream: Box<dyn Stream>, local: &Local) -> Result<Channel, HandshakeError> {
    timeout(HANDSHAKE_TIMEOUT, initiate(stream, local))
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
}

/// The side that accepted the connection. The caller bounds how many of these run at once.
pub async fn accept(stream: Box<dyn Stream>, local: &Local) -> Result<Channel, HandshakeError> {
    timeout(HANDSHAKE_TIMEOUT, respond(stream, local))
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
}

async fn initiate(mut stream: Box<dyn Stream>, local: &Local) -> Result<Channel, HandshakeError> {
    let key = local.keys.first();
    let first = First {
        versions: local.versions,
        key: key.id,
    };
    let first = first.encode();
    let mut noise = noise::initiator(key, &first, &local.entropy).map_err(HandshakeError::Internal)?;
    let mut opening = [0; FIRST_BYTES + MESSAGE_1_BYTES];
    opening[..FIRST_BYTES].copy_from_slice(&first);
    noise
        .write_message(&[], &mut opening[FIRST_BYTES..])
        .map_err(HandshakeError::Internal)?;
    stream.write_all(&opening).await?;
    stream.flush().await?;

    let mut answer = [0; ANSWER_BYTES];
    stream.read_exact(&mut answer).await?;
    let answer = Answer::decode(&answer).ok_or(HandshakeError::OtherProtocol)?;
    let version = match answer.verdict {
        Verdict::Agreed(version) => version,
        Verdict::NoCommonVersion => {
            return Err(HandshakeError::NoCommonVersion {
                ours: local.versions,
                theirs: answer.versions,
            });
        }
        Verdict::UnknownKey => return Err(HandshakeError::KeyNotKnownThere),
        Verdict::NotAuthentic => return Err(HandshakeError::NotAuthentic),
    };
    let mut message = [0; MESSAGE_2_BYTES];
    stream.read_exact(&mut message).await?;
    let mut payload = [0; VERSION_BYTES + HELLO_BYTES];
    open(&mut noise, &message, &mut payload)?;
    let (said_inside, hello) = payload.split_at(VERSION_BYTES);
    // What stood in the clear may have been changed on the way, this not.
    if said_inside != version.to_le_bytes() || local.versions.agree(only(version)).is_none() {
        return Err(HandshakeError::NotAuthentic);
    }
    let peer = decode_hello(hello);

    let noise = transport(noise)?;
    let mut sending = RecordCipher::new(noise.clone(), 0);
    let mut record = Vec::with_capacity(HELLO_RECORD_BYTES);
    sending
        .seal(&encode_hello(&local.hello), &mut record)
        .map_err(HandshakeError::Internal)?;
    stream.write_all(&record).await?;
    stream.flush().await?;
    Ok(channel(stream, RecordCipher::new(noise, 0), sending, peer, version))
}

async fn respond(mut stream: Box<dyn Stream>, local: &Local) -> Result<Channel, HandshakeError> {
    let mut prologue = [0; FIRST_BYTES];
    stream.read_exact(&mut prologue).await?;
    // Whoever speaks something else gets no answer: it could not read it.
    let first = First::decode(&prologue).ok_or(HandshakeError::OtherProtocol)?;
    // Read before any refusal: closing a socket with something unread in it may take back the answer that was just sent.
    let mut message = [0; MESSAGE_1_BYTES];
    stream.read_exact(&mut message).await?;
    let Some(version) = local.versions.agree(first.versions) else {
        refuse(&mut stream, local, Verdict::NoCommonVersion).await?;
        return Err(HandshakeError::NoCommonVersion {
            ours: local.versions,
            theirs: first.versions,
        });
    };
    let Some(key) = local.keys.find(first.key) else {
        refuse(&mut stream, local, Verdict::UnknownKey).await?;
        return Err(HandshakeError::UnknownKey);
    };
    let mut noise = noise::responder(key, &prologue, &local.entropy).map_err(HandshakeError::Internal)?;
    if let Err(error) = open(&mut noise, &message, &mut []) {
        refuse(&mut stream, local, Verdict::NotAuthentic).await?;
        return Err(error);
    }

    let mut payload = [0; VERSION_BYTES + HELLO_BYTES];
    payload[..VERSION_BYTES].copy_from_slice(&version.to_le_bytes());
    payload[VERSION_BYTES..].copy_from_slice(&encode_hello(&local.hello));
    let mut reply = [0; ANSWER_BYTES + MESSAGE_2_BYTES];
    reply[..ANSWER_BYTES].copy_from_slice(&answer(local, Verdict::Agreed(version)));
    noise
        .write_message(&payload, &mut reply[ANSWER_BYTES..])
        .map_err(HandshakeError::Internal)?;
    stream.write_all(&reply).await?;
    stream.flush().await?;

    let noise = transport(noise)?;
    let mut receiving = RecordCipher::new(noise.clone(), 0);
    let mut record = [0; HELLO_RECORD_BYTES];
    stream.read_exact(&mut record).await?;
    let mut hello = [0; HELLO_BYTES + TAG_BYTES];
    let (length, sealed) = record.split_at(LENGTH_BYTES);
    let length_is_right = length == ((HELLO_BYTES + TAG_BYTES) as u16).to_be_bytes();
    if !length_is_right || receiving.open(sealed, &mut hello) != Ok(HELLO_BYTES) {
        return Err(HandshakeError::NotAuthentic);
    }
    let peer = decode_hello(&hello[..HELLO_BYTES]);
    Ok(channel(stream, receiving, RecordCipher::new(noise, 0), peer, version))
}

/// Reads a message of the handshake whose payload must be as long as `payload`.
fn open(noise: &mut HandshakeState, message: &[u8], payload: &mut [u8]) -> Result<(), HandshakeError> {
    match noise.read_message(message, payload) {
        Ok(length) if length == payload.len() => Ok(()),
        _ => Err(HandshakeError::NotAuthentic),
    }
}

fn transport(noise: HandshakeState) -> Result<Arc<StatelessTransportState>, HandshakeError> {
    let noise = noise.into_stateless_transport_mode();
    noise.map(Arc::new).map_err(HandshakeError::Internal)
}

fn channel(
    stream: Box<dyn Stream>,
    receiving: RecordCipher,
    sending: RecordCipher,
    peer: Hello,
    version: u16,
) -> Channel {
    let (read, write) = tokio::io::split(stream);
    Channel {
        reader: FrameReader::new(read, receiving),
        writer: FrameWriter::new(write, sending),
        peer,
        version,
    }
}

fn answer(local: &Local, verdict: Verdict) -> [u8; ANSWER_BYTES] {
    Answer {
        verdict,
        versions: local.versions,
    }
    .encode()
}

async fn refuse(stream: &mut Box<dyn Stream>, local: &Local, verdict: Verdict) -> io::Result<()> {
    stream.write_all(&answer(local, verdict)).await?;
    stream.shutdown().await
}

fn only(version: u16) -> Versions {
    Versions {
        lowest: version,
        highest: version,
    }
}

fn encode_hello(hello: &Hello) -> [u8; HELLO_BYTES] {
    let mut bytes = [0; HELLO_BYTES];
    bytes[..8].copy_from_slice(&hello.node.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&hello.generation.to_le_bytes());
    bytes[16..].copy_from_slice(&hello.cluster.to_le_bytes());
    bytes
}

/// Of exactly [`HELLO_BYTES`].
fn decode_hello(bytes: &[u8]) -> Hello {
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|offset| bytes[at + offset]));
    Hello {
        node: NodeId(u64_at(0)),
        generation: u64_at(8),
        cluster: u64_at(16),
    }
}

#[cfg(test)]
mod tests;
