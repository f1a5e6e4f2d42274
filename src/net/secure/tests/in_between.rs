//! Somebody between the two sides, who changes, cuts off, repeats or leaves out what they send.

use super::*;

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
