//! The handshake with certificates. TLS does all of the protection; inside it, both sides agree on a version and say who they are.
//!
//! ```text
//! who connects                                            who accepts
//! first preamble (its key id 0), hello          ->
//!                                               <-        answer preamble, hello
//! ```

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use rustls::pki_types::ServerName;

use super::{
    Channel, HELLO_BYTES, HandshakeError, Hello, Local, answer, channel, decode_hello, encode_hello, read_version,
    refuse,
};
use crate::env::Stream;
use crate::net::key::KeyId;
use crate::net::preamble::{ANSWER_BYTES, FIRST_BYTES, First, Verdict};
use crate::net::record::RecordCipher;
use crate::net::tls::Tls;

/// Asked for by nobody and checked by nobody, but TLS wants one.
const NAME: &str = "kv-storage.invalid";

pub async fn connect(stream: Box<dyn Stream>, tls: &Tls, local: &Local) -> Result<Channel, HandshakeError> {
    let name = ServerName::try_from(NAME).map_err(|_| HandshakeError::OtherProtocol)?;
    let stream = TlsConnector::from(tls.client.clone()).connect(name, stream).await?;
    let mut stream: Box<dyn Stream> = Box::new(stream);
    let first = First {
        versions: local.versions,
        key: KeyId([0; 8]),
    };
    let mut opening = [0; FIRST_BYTES + HELLO_BYTES];
    opening[..FIRST_BYTES].copy_from_slice(&first.encode());
    opening[FIRST_BYTES..].copy_from_slice(&encode_hello(&local.hello));
    stream.write_all(&opening).await?;
    stream.flush().await?;
    let version = read_version(&mut stream, local).await?;
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).await?;
    let peer = decode_hello(&hello);
    Ok(over_tls_channel(stream, peer, version))
}

/// TLS seals the records, and nothing does so above it.
fn over_tls_channel(stream: Box<dyn Stream>, peer: Hello, version: u16) -> Channel {
    channel(stream, RecordCipher::Beneath, RecordCipher::Beneath, peer, version)
}

pub async fn accept(stream: Box<dyn Stream>, tls: &Tls, local: &Local) -> Result<Channel, HandshakeError> {
    let stream = TlsAcceptor::from(tls.server.clone()).accept(stream).await?;
    let mut stream: Box<dyn Stream> = Box::new(stream);
    let mut first = [0; FIRST_BYTES];
    stream.read_exact(&mut first).await?;
    let first = First::decode(&first).ok_or(HandshakeError::OtherProtocol)?;
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).await?;
    let peer = decode_hello(&hello);
    let Some(version) = local.versions.agree(first.versions) else {
        refuse(&mut stream, local, Verdict::NoCommonVersion).await?;
        return Err(HandshakeError::NoCommonVersion {
            ours: local.versions,
            theirs: first.versions,
        });
    };
    let mut reply = [0; ANSWER_BYTES + HELLO_BYTES];
    reply[..ANSWER_BYTES].copy_from_slice(&answer(local, Verdict::Agreed(version)));
    reply[ANSWER_BYTES..].copy_from_slice(&encode_hello(&local.hello));
    stream.write_all(&reply).await?;
    stream.flush().await?;
    Ok(over_tls_channel(stream, peer, version))
}
