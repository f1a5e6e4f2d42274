//! The handshake with the cluster key.
//!
//! ```text
//! who connects                                            who accepts
//! first preamble, Noise message 1               ->
//!                                               <-        answer preamble, Noise message 2 (agreed version, hello)
//! record 0 (hello)                              ->
//! ```
//!
//! A recording of message 1 gets an answer, but nobody who cannot read that answer can make the record that follows: who accepts trusts
//! nothing before it. Every length up to there is fixed, so a stranger costs a few hundred bytes and one key agreement.

use std::sync::Arc;

use bytes::BytesMut;
use snow::{HandshakeState, StatelessTransportState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Channel, HELLO_BYTES, HandshakeError, Local, answer, channel, decode_hello, encode_hello, read_version, refuse,
};
use crate::env::Stream;
use crate::net::noise::{self, HANDSHAKE_BYTES, TAG_BYTES};
use crate::net::preamble::{ANSWER_BYTES, FIRST_BYTES, First, Verdict};
use crate::net::record::{LENGTH_BYTES, RecordCipher};

const VERSION_BYTES: usize = 2;
pub(super) const MESSAGE_1_BYTES: usize = HANDSHAKE_BYTES;
const MESSAGE_2_BYTES: usize = HANDSHAKE_BYTES + VERSION_BYTES + HELLO_BYTES;
const HELLO_RECORD_BYTES: usize = LENGTH_BYTES + HELLO_BYTES + TAG_BYTES;

pub async fn connect(mut stream: Box<dyn Stream>, local: &Local) -> Result<Channel, HandshakeError> {
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

    let version = read_version(&mut stream, local).await?;
    let mut message = [0; MESSAGE_2_BYTES];
    stream.read_exact(&mut message).await?;
    let mut payload = [0; VERSION_BYTES + HELLO_BYTES];
    open(&mut noise, &message, &mut payload)?;
    let (said_inside, hello) = payload.split_at(VERSION_BYTES);
    // What stood in the clear may have been changed on the way, this not.
    if said_inside != version.to_le_bytes() {
        return Err(HandshakeError::NotAuthentic);
    }
    let peer = decode_hello(hello);

    let noise = transport(noise)?;
    let mut sending = RecordCipher::noise(noise.clone());
    let mut record = Vec::with_capacity(HELLO_RECORD_BYTES);
    sending
        .seal(&encode_hello(&local.hello), &mut record)
        .map_err(HandshakeError::Internal)?;
    stream.write_all(&record).await?;
    stream.flush().await?;
    Ok(channel(stream, RecordCipher::noise(noise), sending, peer, version))
}

pub async fn accept(mut stream: Box<dyn Stream>, local: &Local) -> Result<Channel, HandshakeError> {
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
    let mut receiving = RecordCipher::noise(noise.clone());
    let mut record = [0; HELLO_RECORD_BYTES];
    stream.read_exact(&mut record).await?;
    let mut hello = BytesMut::with_capacity(HELLO_BYTES + TAG_BYTES);
    let (length, sealed) = record.split_at(LENGTH_BYTES);
    let length_is_right = length == ((HELLO_BYTES + TAG_BYTES) as u16).to_be_bytes();
    if !length_is_right || receiving.open(sealed, &mut hello) != Ok(HELLO_BYTES) {
        return Err(HandshakeError::NotAuthentic);
    }
    let peer = decode_hello(&hello);
    Ok(channel(stream, receiving, RecordCipher::noise(noise), peer, version))
}

/// Reads a message of the handshake whose payload must be as long as `payload`.
fn open(noise: &mut HandshakeState, message: &[u8], payload: &mut [u8]) -> Result<(), HandshakeError> {
    match noise.read_message(message, payload) {
        Ok(length) if length == payload.len() => Ok(()),
        _ => Err(HandshakeError::NotAuthentic),
    }
}

pub(super) fn transport(noise: HandshakeState) -> Result<Arc<StatelessTransportState>, HandshakeError> {
    let noise = noise.into_stateless_transport_mode();
    noise.map(Arc::new).map_err(HandshakeError::Internal)
}
