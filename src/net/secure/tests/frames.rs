//! Frames, once two sides know each other.

use super::*;

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
