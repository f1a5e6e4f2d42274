//! Two sides over an in-memory pipe, and someone in between.

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

#[tokio::test]
async fn the_memory_of_a_long_frame_is_given_back() {
    let (mut a, mut b) = channels().await;
    let lengths = [FRAME_BYTES_MAX, 100, 7];
    let sending = async {
        for length in lengths {
            a.writer.queue(&[&bytes(length)]).unwrap();
        }
        a.writer.flush().await.unwrap();
    };
    let receiving = async {
        for length in lengths {
            let frame = b.reader.recv().await.unwrap().unwrap();
            assert_eq!(frame, bytes(length));
        }
    };
    tokio::join!(sending, receiving);
    assert!(!b.reader.keeps(1 << 20));
}

#[tokio::test]
async fn frames_of_every_size_arrive_whole_in_order_and_in_both_directions() {
    let (mut a, mut b) = channels().await;
    let sizes = [
        0,
        1,
        100,
        PLAIN_BYTES_MAX - 4,
        PLAIN_BYTES_MAX - 3,
        PLAIN_BYTES_MAX,
        PLAIN_BYTES_MAX * 2 - 8,
        1 << 20,
        0,
        FRAME_BYTES_MAX,
        3,
    ];
    let send = async {
        for size in sizes {
            a.writer.send(&[&bytes(size)]).await.unwrap();
        }
        a.writer.close().await.unwrap();
    };
    let receive = async {
        for size in sizes {
            let frame = b.reader.recv().await.unwrap().unwrap();
            assert!(frame == bytes(size), "{size} bytes");
        }
        assert!(b.reader.recv().await.unwrap().is_none());
        assert!(b.reader.recv().await.unwrap().is_none());
    };
    tokio::join!(send, receive);
    b.writer.send(&[b"back"]).await.unwrap();
    assert_eq!(a.reader.recv().await.unwrap().unwrap(), "back");
}

#[tokio::test]
async fn a_queued_batch_goes_out_at_once_and_is_taken_without_waiting() {
    let (mut a, mut b) = channels().await;
    for at in 0..1000u32 {
        a.writer.queue(&[&at.to_le_bytes(), b" and ", &bytes(100)]).unwrap();
    }
    assert!(a.writer.queued_bytes() > 1000 * 100);
    a.writer.flush().await.unwrap();
    assert_eq!(a.writer.queued_bytes(), 0);
    let mut received = vec![b.reader.recv().await.unwrap().unwrap()];
    while received.len() < 1000 {
        match b.reader.try_recv().unwrap() {
            Some(frame) => received.push(frame),
            None => received.push(b.reader.recv().await.unwrap().unwrap()),
        }
    }
    for (at, frame) in received.iter().enumerate() {
        assert_eq!(
            frame[..],
            [&(at as u32).to_le_bytes()[..], b" and ", &bytes(100)].concat()
        );
    }
    assert!(b.reader.try_recv().unwrap().is_none());
}

#[tokio::test]
async fn a_frame_that_is_too_long_is_refused_by_both_sides() {
    let (mut a, mut b) = channels().await;
    let error = a.writer.queue(&[&bytes(FRAME_BYTES_MAX), &[0]]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(a.writer.queued_bytes(), 0);
    // A peer that does not keep to it sends such a length in a record that is authentic.
    let (c, d) = duplex(1 << 20);
    let (read, write) = tokio::io::split(Box::new(c) as Box<dyn Stream>);
    let (noise_a, noise_b) = noise_pair();
    drop(read);
    let mut forger = FrameWriter::new(write, RecordCipher::noise(noise_a));
    let (read, _write) = tokio::io::split(Box::new(d) as Box<dyn Stream>);
    let mut reader = FrameReader::new(read, RecordCipher::noise(noise_b));
    forger.queue_raw(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes()).unwrap();
    forger.flush().await.unwrap();
    match reader.recv().await {
        Err(FrameError::TooLong(length)) => assert_eq!(length, FRAME_BYTES_MAX + 1),
        other => panic!("{other:?}"),
    }
    // The honest one goes on.
    a.writer.send(&[b"short"]).await.unwrap();
    assert_eq!(b.reader.recv().await.unwrap().unwrap(), "short");
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

/// What each side sent, in a connection on which `a` sends two frames and closes, then `b` one.
struct Recording {
    from_a: Vec<u8>,
    from_b: Vec<u8>,
}

/// Passes on what comes, except that `change` may alter each byte, or end the direction there.
async fn relay(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    change: impl Fn(usize, u8) -> Option<u8>,
) -> Vec<u8> {
    let (mut passed, mut buffer) = (Vec::new(), vec![0; 4096]);
    'open: while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let start = passed.len();
        for byte in &buffer[..count] {
            let Some(byte) = change(passed.len(), *byte) else {
                let _ = to.write_all(&passed[start..]).await;
                break 'open;
            };
            passed.push(byte);
        }
        if to.write_all(&passed[start..]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
    // Keeps on taking what comes, as a network would.
    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
    passed
}

/// Both directions of a talk through a relay. Gives what got through, and whether both sides saw nothing wrong.
async fn talk(
    change_a: impl Fn(usize, u8) -> Option<u8>,
    change_b: impl Fn(usize, u8) -> Option<u8>,
) -> (Recording, bool) {
    let ((a, relay_a), (b, relay_b)) = (duplex(1 << 16), duplex(1 << 16));
    let (one, two) = (local(1, ring(1), ALL), local(2, ring(1), ALL));
    let side_a = async {
        let mut channel = connect(Box::new(a), &one).await.ok()?;
        channel.writer.send(&[b"first"]).await.ok()?;
        channel.writer.send(&[b"second"]).await.ok()?;
        channel.writer.close().await.ok()?;
        all_frames(&mut channel.reader).await
    };
    let side_b = async {
        let mut channel = accept(Box::new(b), &two).await.ok()?;
        let frames = all_frames(&mut channel.reader).await?;
        channel.writer.send(&[b"answer"]).await.ok()?;
        channel.writer.close().await.ok()?;
        Some(frames)
    };
    let (read_a, write_a) = tokio::io::split(relay_a);
    let (read_b, write_b) = tokio::io::split(relay_b);
    let (from_a, from_b, got_a, got_b) = tokio::join!(
        relay(read_a, write_b, change_a),
        relay(read_b, write_a, change_b),
        side_a,
        side_b
    );
    // Whatever happens: what is given out is what was sent.
    for (frames, sent) in [(&got_a, &["answer"][..]), (&got_b, &["first", "second"])] {
        assert!(frames.as_ref().is_none_or(|frames| frames == sent), "{frames:?}");
    }
    (Recording { from_a, from_b }, got_a.is_some() && got_b.is_some())
}

async fn all_frames(reader: &mut FrameReader) -> Option<Vec<Bytes>> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.recv().await.ok()? {
        frames.push(frame);
    }
    Some(frames)
}

#[tokio::test(start_paused = true)]
async fn a_byte_changed_or_cut_off_anywhere_is_noticed() {
    let as_it_is = |_, byte| Some(byte);
    let (recording, fine) = talk(as_it_is, as_it_is).await;
    assert!(fine);
    for at in 0..recording.from_a.len() {
        let flip = |place, byte: u8| Some(if place == at { byte ^ (1 << (at % 8)) } else { byte });
        let cut = |place, byte| (place < at).then_some(byte);
        assert!(!talk(flip, as_it_is).await.1, "flipped {at} of a");
        assert!(!talk(cut, as_it_is).await.1, "cut {at} of a");
    }
    for at in 0..recording.from_b.len() {
        // The versions of who answers stand there for a message only, and only when it refuses.
        if (5..9).contains(&at) {
            continue;
        }
        let flip = |place, byte: u8| Some(if place == at { byte ^ (1 << (at % 8)) } else { byte });
        let cut = |place, byte| (place < at).then_some(byte);
        assert!(!talk(as_it_is, flip).await.1, "flipped {at} of b");
        assert!(!talk(as_it_is, cut).await.1, "cut {at} of b");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorded_connection_cannot_be_played_again() {
    let as_it_is = |_, byte| Some(byte);
    let (recording, _) = talk(as_it_is, as_it_is).await;
    // To who accepted it: the answer has a new key, which the recording does not know.
    let (mut a, b) = duplex(1 << 16);
    a.write_all(&recording.from_a).await.unwrap();
    let outcome = accept(Box::new(b), &local(2, ring(1), ALL)).await;
    assert!(matches!(outcome, Err(HandshakeError::NotAuthentic)), "{outcome:?}");
    // To who connected.
    let (a, mut b) = duplex(1 << 16);
    b.write_all(&recording.from_b).await.unwrap();
    let outcome = connect(Box::new(a), &local(1, ring(1), ALL)).await;
    assert!(matches!(outcome, Err(HandshakeError::NotAuthentic)), "{outcome:?}");
    // Back to its own sender.
    let (a, mut b) = duplex(1 << 16);
    b.write_all(&recording.from_a).await.unwrap();
    let outcome = connect(Box::new(a), &local(1, ring(1), ALL)).await;
    assert!(matches!(outcome, Err(HandshakeError::OtherProtocol)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_repeated_or_left_out_is_noticed() {
    for repeat in [true, false] {
        let (noise_a, noise_b) = noise_pair();
        let mut cipher = RecordCipher::noise(noise_a);
        let mut records = vec![Vec::new(); 3];
        for (record, frame) in records.iter_mut().zip([b"\x01\0\0\0a", b"\x01\0\0\0b", b"\x01\0\0\0c"]) {
            cipher.seal(frame, record).unwrap();
        }
        let (mut a, b) = duplex(1 << 16);
        a.write_all(&records[0]).await.unwrap();
        a.write_all(&records[if repeat { 0 } else { 2 }]).await.unwrap();
        let (read, _write) = tokio::io::split(Box::new(b) as Box<dyn Stream>);
        let mut reader = FrameReader::new(read, RecordCipher::noise(noise_b));
        assert_eq!(reader.recv().await.unwrap().unwrap(), "a");
        assert!(matches!(reader.recv().await, Err(FrameError::NotAuthentic)));
    }
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

#[tokio::test]
async fn a_flush_that_was_dropped_goes_on_where_it_was() {
    let (a, b) = duplex(100);
    let (one, two) = (local(1, ring(1), ALL), local(2, ring(1), ALL));
    let (a, b) = tokio::join!(connect(Box::new(a), &one), accept(Box::new(b), &two));
    let (mut a, mut b) = (a.unwrap(), b.unwrap());
    let sent = bytes(5000);
    a.writer.queue(&[&sent]).unwrap();
    let receive = async { b.reader.recv().await.unwrap().unwrap() };
    let send = async {
        loop {
            tokio::select! {
                biased;
                flushed = a.writer.flush() => return flushed.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
    };
    let ((), received) = tokio::join!(send, receive);
    assert!(received == sent);
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
