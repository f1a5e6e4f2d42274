//! From a bare connection to an authenticated, encrypted channel for frames.
//!
//! Both sides prove the cluster key (`over_noise`) or, where certificates are given, one from the cluster's authority (`over_tls`); all nodes
//! of a cluster do the same. Who proves it is believed which node it is.

mod over_noise;
mod over_tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::frame_reader::FrameReader;
use super::frame_writer::FrameWriter;
use super::key::KeyRing;
use super::preamble::{ANSWER_BYTES, ANSWER_MAGIC, Answer, Verdict, Versions};
use super::record::RecordCipher;
use super::tls::Tls;
use crate::env::{Entropy, Stream};
use crate::types::NodeId;

/// A handshake is one round trip and two key agreements. Whoever takes longer is no peer, or no use.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

const HELLO_BYTES: usize = 8 /* node */ + 8 /* generation */ + 8 /* cluster */;

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
    /// Instead of the keys, if given.
    pub tls: Option<Tls>,
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
    Io(io::Error),
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
    #[error("TLS: {0}")]
    Tls(rustls::Error),
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
            Self::Tls(_) => "tls",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Tls(error),
            Err(error) => Self::Io(error),
        }
    }
}

/// The side that made the connection.
pub async fn connect(stream: Box<dyn Stream>, local: &Local) -> Result<Channel, HandshakeError> {
    let handshake = async {
        match &local.tls {
            None => over_noise::connect(stream, local).await,
            Some(tls) => over_tls::connect(stream, tls, local).await,
        }
    };
    timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
}

/// The side that accepted the connection. The caller bounds how many of these run at once.
pub async fn accept(stream: Box<dyn Stream>, local: &Local) -> Result<Channel, HandshakeError> {
    let handshake = async {
        match &local.tls {
            None => over_noise::accept(stream, local).await,
            Some(tls) => over_tls::accept(stream, tls, local).await,
        }
    };
    timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .unwrap_or(Err(HandshakeError::TimedOut))
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

/// What who accepted says of the versions: the agreed one, or why there is none.
async fn read_version(stream: &mut Box<dyn Stream>, local: &Local) -> Result<u16, HandshakeError> {
    let mut bytes = [0; ANSWER_BYTES];
    // First that this is an answer at all: what another protocol says may be shorter.
    let (magic, rest) = bytes.split_at_mut(ANSWER_MAGIC.len());
    stream.read_exact(magic).await?;
    if magic != ANSWER_MAGIC {
        return Err(HandshakeError::OtherProtocol);
    }
    stream.read_exact(rest).await?;
    let answer = Answer::decode(&bytes).ok_or(HandshakeError::OtherProtocol)?;
    match answer.verdict {
        // It may not answer with a version that it was not offered.
        Verdict::Agreed(version) if local.versions.agree(Versions::only(version)).is_some() => Ok(version),
        Verdict::Agreed(_) => Err(HandshakeError::NotAuthentic),
        Verdict::NoCommonVersion => Err(HandshakeError::NoCommonVersion {
            ours: local.versions,
            theirs: answer.versions,
        }),
        Verdict::UnknownKey => Err(HandshakeError::KeyNotKnownThere),
        Verdict::NotAuthentic => Err(HandshakeError::NotAuthentic),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
