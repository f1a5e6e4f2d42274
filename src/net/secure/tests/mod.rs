//! Two sides over an in-memory pipe, and someone in between.

mod frames;
mod in_between;

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use snow::StatelessTransportState;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::over_noise::{MESSAGE_1_BYTES, transport};
use super::*;
use crate::net::frame_reader::FrameError;
use crate::net::key::ClusterKey;
use crate::net::noise::{self, HANDSHAKE_BYTES};
use crate::net::preamble::First;
use crate::net::record::{FRAME_BYTES_MAX, PLAIN_BYTES_MAX};
use crate::os::entropy::OsEntropy;

const ALL: Versions = Versions { lowest: 1, highest: 3 };

fn ring(byte: u8) -> KeyRing {
    KeyRing::of(&ClusterKey::from_bytes([byte; 32]))
}

fn local(node: u64, keys: KeyRing, versions: Versions) -> Local {
    Local {
        keys,
        tls: None,
        versions,
        hello: Hello {
            node: NodeId(node),
            generation: node * 10,
            cluster: 77,
        },
        entropy: Arc::new(OsEntropy),
    }
}

type Outcome = Result<Channel, HandshakeError>;

async fn handshake(one: &Local, two: &Local) -> (Outcome, Outcome) {
    let (a, b) = duplex(1 << 20);
    tokio::join!(connect(Box::new(a), one), accept(Box::new(b), two))
}

async fn channels() -> (Channel, Channel) {
    let (a, b) = handshake(&local(1, ring(1), ALL), &local(2, ring(1), ALL)).await;
    (a.unwrap(), b.unwrap())
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 256) as u8).collect()
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let (one, two) = (local(1, ring(1), ALL), local(2, ring(1), ALL));
    let (a, b) = handshake(&one, &two).await;
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.peer, b.peer), (two.hello, one.hello));
    assert_eq!((a.version, b.version), (3, 3));
}

fn noise_pair() -> (Arc<StatelessTransportState>, Arc<StatelessTransportState>) {
    let (keys, entropy): (_, Arc<dyn Entropy>) = (ring(1), Arc::new(OsEntropy));
    let mut one = noise::initiator(keys.first(), b"", &entropy).unwrap();
    let mut two = noise::responder(keys.first(), b"", &entropy).unwrap();
    let mut message = [0; HANDSHAKE_BYTES];
    one.write_message(&[], &mut message).unwrap();
    two.read_message(&message, &mut []).unwrap();
    two.write_message(&[], &mut message).unwrap();
    one.read_message(&message, &mut []).unwrap();
    (transport(one).unwrap(), transport(two).unwrap())
}

#[tokio::test]
async fn the_highest_common_version_is_spoken_also_with_an_older_peer() {
    let versions = |lowest, highest| Versions { lowest, highest };
    for (one, two, agreed) in [
        (versions(1, 3), versions(1, 1), 1),
        (versions(1, 1), versions(1, 3), 1),
        (versions(2, 5), versions(1, 3), 3),
    ] {
        let (a, b) = handshake(&local(1, ring(1), one), &local(2, ring(1), two)).await;
        let (mut a, mut b) = (a.unwrap(), b.unwrap());
        assert_eq!((a.version, b.version), (agreed, agreed));
        a.writer.send(&[b"hello"]).await.unwrap();
        assert_eq!(b.reader.recv().await.unwrap().unwrap(), "hello");
    }
    let (new, old) = (versions(2, 3), versions(1, 1));
    let (a, b) = handshake(&local(1, ring(1), new), &local(2, ring(1), old)).await;
    let told = "no common version of the protocol: this node speaks 2 to 3, the other one 1 to 1";
    assert_eq!(a.unwrap_err().to_string(), told);
    assert_eq!(b.unwrap_err().label(), "version");
}

#[tokio::test]
async fn another_key_and_no_key_get_nowhere() {
    let (a, b) = handshake(&local(1, ring(1), ALL), &local(2, ring(2), ALL)).await;
    assert!(matches!(a, Err(HandshakeError::KeyNotKnownThere)), "{a:?}");
    assert!(matches!(b, Err(HandshakeError::UnknownKey)), "{b:?}");

    // The right id in front of the wrong key.
    let (mut a, b) = duplex(1 << 20);
    let stranger = async {
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let first = First {
            versions: ALL,
            key: ring(2).first().id,
        };
        let mut noise = noise::initiator(ring(1).first(), &first.encode(), &entropy).unwrap();
        let mut message = [0; MESSAGE_1_BYTES];
        noise.write_message(&[], &mut message).unwrap();
        a.write_all(&first.encode()).await.unwrap();
        a.write_all(&message).await.unwrap();
        let mut all = Vec::new();
        a.read_to_end(&mut all).await.unwrap();
        all
    };
    let two = local(2, ring(2), ALL);
    let (heard, refused) = tokio::join!(stranger, accept(Box::new(b), &two));
    assert!(matches!(refused, Err(HandshakeError::NotAuthentic)), "{refused:?}");
    let answer = Answer::decode(heard[..].try_into().unwrap()).unwrap();
    assert_eq!(answer.verdict, Verdict::NotAuthentic);
}

#[tokio::test]
async fn keys_can_be_changed_one_node_at_a_time() {
    let text = |first: u8, second: u8| {
        let hex = |byte| ClusterKey::from_bytes([byte; 32]).to_hex();
        KeyRing::parse(&format!("{}\n{}", hex(first), hex(second))).unwrap()
    };
    for (one, two) in [
        (ring(1), text(1, 2)),
        (text(1, 2), ring(1)),
        (text(2, 1), text(1, 2)),
        (text(2, 1), ring(2)),
    ] {
        let (a, b) = handshake(&local(1, one, ALL), &local(2, two, ALL)).await;
        assert!(a.is_ok() && b.is_ok());
    }
}

#[tokio::test]
async fn other_protocols_are_refused_by_both_sides() {
    let (mut a, b) = duplex(1 << 20);
    a.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let refused = accept(Box::new(b), &local(2, ring(1), ALL)).await;
    assert!(matches!(refused, Err(HandshakeError::OtherProtocol)), "{refused:?}");
    let (a, mut b) = duplex(1 << 20);
    b.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let refused = connect(Box::new(a), &local(1, ring(1), ALL)).await;
    assert!(matches!(refused, Err(HandshakeError::OtherProtocol)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_ends_after_its_deadline() {
    let started = Instant::now();
    // Says nothing; says a little.
    for said in [
        &b""[..],
        b"kvp>",
        &[b"kvp>\x01\0\x01\0".as_slice(), &ring(1).first().id.0].concat(),
    ] {
        let (mut a, b) = duplex(1 << 16);
        a.write_all(said).await.unwrap();
        let outcome = accept(Box::new(b), &local(2, ring(1), ALL)).await;
        assert!(matches!(outcome, Err(HandshakeError::TimedOut)), "{outcome:?}");
        let (a, _b) = duplex(1 << 16);
        let outcome = connect(Box::new(a), &local(1, ring(1), ALL)).await;
        assert!(matches!(outcome, Err(HandshakeError::TimedOut)), "{outcome:?}");
    }
    assert_eq!(started.elapsed(), HANDSHAKE_TIMEOUT * 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_stranger_sends_is_refused(said in prop::collection::vec(any::<u8>(), 0..400), polite in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut a, b) = duplex(1 << 16);
            let first = First { versions: ALL, key: ring(1).first().id };
            if polite {
                a.write_all(&first.encode()).await.unwrap();
            }
            a.write_all(&said).await.unwrap();
            a.shutdown().await.unwrap();
            assert!(accept(Box::new(b), &local(2, ring(1), ALL)).await.is_err());
        });
    }
}
