//! What a connection carries.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::memory_net::MemoryNet;
use super::rig::{
    Rig, address, bytes, compare, config, count, digest, of_key, page, panic_apart, panic_here, read, seconds, start,
};
use crate::node::peers::batch::SOON;
use crate::node::peers::link::LONG_CALLS_MAX;
use crate::node::peers::{CALLS_MAX, Call, CallError, Hurry};
use crate::os::net::RealNet;
use crate::types::NodeId;
use crate::wire::{MESSAGE_BYTES_MAX, Request, Response, WireError};

pub(super) fn is_count(response: Result<Response, CallError>, expected: u64) -> bool {
    matches!(response, Ok(Response::Count(got)) if got == expected)
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_on_the_spot_at_once_and_later() {
    let rig = Rig::new().await;
    let peer = rig.peer();
    assert!(matches!(peer.call(Request::Ping).unwrap().await, Ok(Response::Done)));
    let answer = peer.call(digest(17)).unwrap().await;
    assert!(matches!(answer, Ok(Response::Digest { digest: 17, .. })));
    assert!(is_count(peer.call(compare(9)).unwrap().await, 9));
    let later = peer.call(count(3, Duration::from_millis(700))).unwrap();
    assert!(is_count(peer.call(bytes(5)).unwrap().await, 5));
    assert!(is_count(later.await, 3));
    assert_eq!(peer.figures().waiting, 0);
}

async fn call_often(peer: &crate::node::peers::Peer, calls: u64) {
    let mut waiting: VecDeque<(u64, Call)> = VecDeque::new();
    for number in 0..calls {
        loop {
            let request = match number % 3 {
                0 => digest(number as u16),
                1 => compare(number % 50),
                _ => count(number, Duration::from_millis(number * 7919 % 50)),
            };
            match peer.call(request) {
                Ok(call) => break waiting.push_back((number, call)),
                Err(error) => {
                    assert_eq!(error, CallError::Busy);
                    let (number, call) = waiting.pop_front().unwrap();
                    check(number, call.await);
                }
            }
        }
    }
    for (number, call) in waiting {
        check(number, call.await);
    }
}

fn check(number: u64, answer: Result<Response, CallError>) {
    match answer.unwrap() {
        Response::Digest { digest, .. } => assert_eq!((digest, number % 3), (number, 0)),
        Response::Count(got) if number % 3 == 1 => assert_eq!(got, number % 50),
        Response::Count(got) => assert_eq!((got, number % 3), (number, 2)),
        other => panic!("{number} was answered with {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_at_once_get_their_own_answers() {
    let rig = Rig::new().await;
    call_often(&rig.peer(), 10_000).await;
    assert!(rig.peer().figures().busy > 0);
    assert_eq!(rig.peer().figures().connects, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_sockets_carry_calls_both_ways() {
    let net = Arc::new(RealNet);
    let mut configs = [config(1), config(2)];
    configs
        .iter_mut()
        .for_each(|config| config.listen = ([127, 0, 0, 1], 0).into());
    let [one, two] = configs;
    let (one, two) = (start(net.clone(), one).await, start(net, two).await);
    one.know(&[(1, one.peers.local_addr()), (2, two.peers.local_addr())]);
    two.know(&[(1, one.peers.local_addr()), (2, two.peers.local_addr())]);
    let (there, back) = (one.peer(2), two.peer(1));
    assert!(one.peers.get(NodeId(1)).is_none());
    for peer in [&there, &back] {
        peer.connections().wait_for(|count| *count == 1).await.unwrap();
    }
    tokio::join!(call_often(&there, 10_000), call_often(&back, 10_000));
    one.peers.stop().await;
    two.peers.stop().await;
    assert_eq!((one.service.ended.lock().len(), two.service.ended.lock().len()), (1, 1));
    assert!(matches!(there.call(Request::Ping), Err(CallError::NotConnected)));
}

#[tokio::test(start_paused = true)]
async fn calls_made_at_once_share_frames() {
    let rig = Rig::new().await;
    seconds(1).await;
    let before = rig.peer().figures();
    let calls: Vec<_> = (0..1000).map(|slot| rig.peer().call(digest(slot)).unwrap()).collect();
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let after = rig.peer().figures();
    assert!(after.frames_sent - before.frames_sent <= 2, "{after:?}");
    assert!(after.requests - before.requests >= 1000);
}

#[tokio::test(start_paused = true)]
async fn what_can_wait_goes_out_together_or_with_what_cannot() {
    let rig = Rig::new().await;
    let peer = rig.peer();
    seconds(1).await;
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let send = |hurry| {
        let answered = answered.clone();
        peer.call_then(&digest(1), hurry, move |answer| {
            answered.send(answer.is_some()).unwrap()
        });
    };
    let before = peer.figures().frames_sent;
    let sent = tokio::time::Instant::now();
    send(Hurry::Soon);
    tokio::time::sleep(SOON / 2).await;
    send(Hurry::Soon);
    assert_eq!(peer.figures().frames_sent, before);
    assert_eq!([answers.recv().await, answers.recv().await], [Some(true); 2]);
    assert!(sent.elapsed() >= SOON && sent.elapsed() < 2 * SOON);
    assert_eq!(peer.figures().frames_sent, before + 1);
    let sent = tokio::time::Instant::now();
    send(Hurry::Soon);
    send(Hurry::Now);
    assert_eq!([answers.recv().await, answers.recv().await], [Some(true); 2]);
    assert!(sent.elapsed() < SOON);
    assert_eq!(peer.figures().frames_sent, before + 2);
    // A connection that ends tells those that waited.
    send(Hurry::Soon);
    rig.two.peers.stop().await;
    assert_eq!(answers.recv().await, Some(false));
}

#[tokio::test(start_paused = true)]
async fn much_that_can_wait_does_not() {
    let rig = Rig::new().await;
    seconds(1).await;
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let sent = tokio::time::Instant::now();
    rig.peer().call_then(&bytes(200 << 10), Hurry::Soon, move |answer| {
        answered.send(answer.is_some()).unwrap();
    });
    assert_eq!(answers.recv().await, Some(true));
    assert!(sent.elapsed() < SOON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tasks_that_ask_one_thing_after_the_other_share_frames_both_ways() {
    let rig = Rig::new().await;
    let before = rig.peer().figures();
    let tasks = (0..64).map(|_| {
        let peer = rig.peer();
        tokio::spawn(async move {
            for _ in 0..50 {
                peer.call(count(1, Duration::ZERO)).unwrap().await.unwrap();
            }
        })
    });
    join_all(tasks).await;
    let after = rig.peer().figures();
    let (frames, calls) = (after.frames_sent - before.frames_sent, after.requests - before.requests);
    assert!(frames * 5 < calls, "{calls} calls in {frames} frames");
    // A frame of its own would make each answer much longer.
    let answer_bytes = (after.bytes_received - before.bytes_received) / calls;
    assert!(answer_bytes < 40, "{answer_bytes}");
}

#[tokio::test(start_paused = true)]
async fn the_largest_message_travels_and_a_larger_one_is_refused() {
    let rig = Rig::new().await;
    let text = MESSAGE_BYTES_MAX - 100;
    let calls: Vec<_> = (0..3).map(|_| rig.peer().call(bytes(text)).unwrap()).collect();
    assert!(matches!(
        rig.peer().call(bytes(text * 2)),
        Err(CallError::TooLarge { .. })
    ));
    for call in calls {
        assert!(is_count(call.await, text as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_the_answer_any_more_takes_no_place_for_ever() {
    let rig = Rig::new().await;
    for _ in 0..3 {
        for _ in 0..CALLS_MAX - 1 {
            drop(rig.peer().call(count(1, Duration::from_millis(100))).unwrap());
        }
        seconds(1).await;
        assert_eq!(rig.peer().figures().waiting, 0);
    }
    assert_eq!(rig.two.service.begun.load(Relaxed), 3 * (CALLS_MAX as u64 - 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_its_time_is_not_silence() {
    let rig = Rig::new().await;
    let call = rig.peer().call(count(1, Duration::from_secs(20))).unwrap();
    seconds(19).await;
    assert!(rig.peer().waiting() >= Duration::from_secs(19));
    assert!(rig.peer().silence() <= Duration::from_millis(500));
    assert!(is_count(call.await, 1));
    assert_eq!(
        (rig.peer().figures().connects, rig.peer().waiting()),
        (1, Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn only_so_many_pages_are_made_at_once_and_nothing_else_waits_for_them() {
    let rig = Rig::new().await;
    let second = Duration::from_secs(1);
    let pages: Vec<_> = (0..100).map(|n| rig.peer().call(page(n, second)).unwrap()).collect();
    assert!(is_count(rig.peer().call(bytes(5)).unwrap().await, 5));
    assert_eq!(rig.two.service.begun.load(Relaxed), 32 + 1);
    let begun = Instant::now();
    for (number, call) in pages.into_iter().enumerate() {
        assert!(is_count(call.await, number as u64));
    }
    assert_eq!(begun.elapsed().as_secs(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_for_a_place_has_no_more_time_for_that() {
    let rig = Rig::new().await;
    let slow: Vec<_> = (0..32)
        .map(|n| rig.peer().call(page(n, Duration::from_secs(5))).unwrap())
        .collect();
    let short: Vec<_> = (0..100).map(|_| rig.peer().call(read(3_000)).unwrap()).collect();
    let long = rig.peer().call(read(60_000)).unwrap();
    let next = rig.peer().call(page(77, Duration::ZERO)).unwrap();
    for call in short {
        let late = WireError::Deadline { maybe_applied: false };
        assert!(matches!(call.await, Ok(Response::Failed(why)) if why == late));
    }
    assert!(matches!(long.await, Ok(Response::Count(54_000..=55_500))));
    assert!(is_count(next.await, 77));
    for call in slow {
        call.await.unwrap();
    }
    assert_eq!(
        rig.two.service.begun.load(Relaxed),
        32 + 2,
        "nobody waits for the others"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_lacking_of_keys_is_made_for_few_at_once_and_pages_do_not_wait_for_it() {
    let rig = Rig::new().await;
    let lacking: Vec<_> = (0..40).map(|n| rig.peer().call(of_key(n, 1000)).unwrap()).collect();
    let begun = Instant::now();
    assert!(is_count(rig.peer().call(page(5, Duration::ZERO)).unwrap().await, 5));
    assert_eq!(begun.elapsed().as_secs(), 0);
    assert_eq!(rig.two.service.begun.load(Relaxed), 8 + 1);
    for (number, call) in lacking.into_iter().enumerate() {
        assert!(is_count(call.await, number as u64));
    }
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_answer_is_told_and_harms_no_other_call() {
    let rig = Rig::new().await;
    let other = rig.peer().call(count(1, Duration::from_secs(1))).unwrap();
    let answer = rig.peer().call(panic_apart()).unwrap().await;
    let expected = WireError::Unavailable { maybe_applied: true };
    assert!(matches!(answer, Ok(Response::Failed(error)) if error == expected));
    assert!(is_count(other.await, 1));
    // In the connection's own task it is the end of the connection.
    let answer = rig.peer().call(panic_here()).unwrap().await;
    assert_eq!(answer.unwrap_err(), CallError::Lost);
    rig.peer().connections().wait_for(|count| *count == 2).await.unwrap();
    assert_eq!(rig.two.service.ended.lock().len(), 1);
    assert!(is_count(rig.peer().call(bytes(1)).unwrap().await, 1));
}

#[tokio::test(start_paused = true)]
async fn an_idle_pair_says_little() {
    let rig = Rig::new().await;
    rig.two.know(&[(1, address(1))]);
    seconds(2).await;
    let bytes = || {
        let (there, back) = (rig.peer().figures(), rig.two.peer(1).figures());
        there.bytes_sent + there.bytes_received + back.bytes_sent + back.bytes_received
    };
    let before = bytes();
    seconds(100).await;
    let each_second = (bytes() - before) / 100;
    assert!(each_second < 500, "{each_second} bytes a second");
    assert_eq!(rig.two.peer(1).figures().connects, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_asked_once_by_address() {
    let rig = Rig::new().await;
    let limit = Duration::from_secs(1);
    let answer = rig.two.peers.call_address(address(1), bytes(7), limit).await;
    assert!(matches!(answer, Ok((NodeId(1), Response::Count(7)))));
    seconds(1).await;
    assert_eq!(rig.one.peers.figures().serving, 0);
    let slow = count(1, Duration::from_secs(2));
    let late = rig.two.peers.call_address(address(1), slow, limit).await;
    assert_eq!(late.unwrap_err(), CallError::Deadline);
    let nobody = rig.two.peers.call_address(address(9), Request::Ping, limit).await;
    assert!(matches!(nobody, Err(CallError::Unreachable(_))));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_nobody_is_not_taken_for_that_of_who_is_asked_by_address() {
    let rig = Rig::on(MemoryNet::slow(1 << 10)).await;
    // It comes for some seconds, and takes one to be answered.
    let slow = of_key(3 << 10, 1000);
    let answer = rig
        .two
        .peers
        .call_address(address(1), slow, Duration::from_secs(10))
        .await;
    assert!(matches!(answer, Ok((NodeId(1), Response::Count(0xc00)))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_take_long_leave_places_to_others_though_nobody_waits_for_them() {
    let rig = Rig::new().await;
    let peer = rig.peer();
    for number in 0..200 {
        let call = peer.call_in_turn(|| count(number, Duration::from_secs(5)));
        assert!(tokio::time::timeout(Duration::from_millis(1), call).await.is_err());
    }
    assert_eq!(peer.figures().waiting, LONG_CALLS_MAX as u64);
    // They wait here.
    let call = peer.call_in_turn(|| count(7, Duration::from_secs(5)));
    assert!(is_count(call.await, 7));
    assert_eq!(peer.figures().waiting, 0);
    rig.one.know(&[]);
    assert!(peer.call_in_turn(|| digest(1)).await.is_err());
}
