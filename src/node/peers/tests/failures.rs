//! Peers that go away, come back, or freeze.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::memory_net::MemoryNet;
use super::rig::{Rig, address, bytes, config, count, seconds, start};
use crate::node::peers::supervisor::PeersMessage;
use crate::node::peers::{CALLS_BYTES_MAX, CALLS_MAX, CallError};
use crate::types::NodeId;
use crate::wire::Request;

const LONG: Duration = Duration::from_secs(100);

#[tokio::test(start_paused = true)]
async fn without_a_connection_a_call_fails_at_once() {
    let rig = Rig::new().await;
    rig.one.know(&[(2, address(2)), (3, address(3))]);
    assert!(matches!(
        rig.one.peer(3).call(Request::Ping),
        Err(CallError::NotConnected)
    ));
    assert!(!rig.one.peer(3).is_up() && rig.peer().is_up());
    seconds(10).await;
    let failures = rig.one.peer(3).figures().dial_failures;
    assert!((10..=30).contains(&failures), "{failures} attempts in 10 s");
    let nodes: Vec<_> = rig.one.peers.all().iter().map(|peer| peer.node()).collect();
    assert_eq!(nodes, [NodeId(2), NodeId(3)]);
}

#[tokio::test(start_paused = true)]
async fn calls_end_with_their_connection_and_a_peer_that_is_back_is_found() {
    let rig = Rig::new().await;
    let peer = rig.peer();
    let calls: Vec<_> = (0..100).map(|_| peer.call(count(1, LONG)).unwrap()).collect();
    seconds(1).await;
    rig.two.peers.stop().await;
    let begun = Instant::now();
    let answers = join_all(calls).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(CallError::Lost))));
    assert!(begun.elapsed() < Duration::from_millis(10));
    assert_eq!(*rig.two.service.ended.lock(), [(NodeId(1), 0)]);
    assert!(matches!(peer.call(Request::Ping), Err(CallError::NotConnected)));

    seconds(5).await;
    let mut again = config(2);
    again.hello.generation = 2;
    let _two = start(rig.net.clone(), again).await;
    let begun = Instant::now();
    peer.connections().wait_for(|count| *count == 2).await.unwrap();
    assert!(begun.elapsed() <= Duration::from_secs(1));
    assert!(peer.is_up() && peer.call(Request::Ping).unwrap().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_peer_is_given_up_within_seconds_and_found_when_it_thaws() {
    let rig = Rig::new().await;
    let peer = rig.peer();
    seconds(10).await;
    rig.net.freeze(address(2));
    let begun = Instant::now();
    let call = peer.call(count(1, Duration::ZERO)).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(peer.silence() >= Duration::from_millis(300) && peer.waiting() >= Duration::from_millis(300));
    assert_eq!(call.await.unwrap_err(), CallError::Lost);
    let taken = begun.elapsed();
    assert!(
        taken >= Duration::from_secs(3) && taken <= Duration::from_secs(4),
        "{taken:?}"
    );
    assert_eq!((peer.figures().silent, peer.is_up()), (1, false));

    seconds(20).await;
    assert!(!peer.is_up() && peer.figures().dial_failures > 5);
    rig.net.thaw(address(2));
    peer.connections().wait_for(|count| *count == 2).await.unwrap();
    assert!(peer.call(Request::Ping).unwrap().await.is_ok());
    // Those that were begun while it was frozen ended too.
    seconds(15).await;
    assert_eq!(rig.two.peers.figures().serving, 1);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_peer_is_given_up_whatever_is_sent_to_it() {
    let rig = Rig::new().await;
    let peer = rig.peer();
    rig.net.freeze(address(2));
    let begun = Instant::now();
    while peer.is_up() {
        let _ = peer.call(bytes(1000));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(begun.elapsed() <= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_peer_is_given_up_though_much_is_on_its_way_on_a_slow_line() {
    let rig = Rig::on(MemoryNet::slow(20 << 10)).await;
    let call = rig.peer().call(bytes(4 << 20)).unwrap();
    seconds(20).await;
    assert!(rig.peer().silence() < Duration::from_secs(1));
    rig.net.freeze(address(2));
    let begun = Instant::now();
    assert_eq!(call.await.unwrap_err(), CallError::Lost);
    assert!(begun.elapsed() <= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_frozen_peer_is_bounded() {
    let rig = Rig::new().await;
    let peer = rig.peer();
    rig.net.freeze(address(2));
    let calls: Vec<_> = (0..2 * CALLS_MAX).map(|_| peer.call(count(1, LONG))).collect();
    let taken = calls.iter().filter(|call| call.is_ok()).count();
    assert!((CALLS_MAX - 1..=CALLS_MAX).contains(&taken), "{taken}");
    assert!(matches!(calls.last(), Some(Err(CallError::Busy))));
    seconds(5).await;
    assert_eq!((peer.figures().waiting, peer.figures().waiting_bytes), (0, 0));

    rig.net.thaw(address(2));
    peer.connections().wait_for(|count| *count == 2).await.unwrap();
    rig.net.freeze(address(2));
    let large = 3 << 20;
    let calls: Vec<_> = (0..20).map(|_| peer.call(bytes(large))).collect();
    let taken = calls.iter().filter(|call| call.is_ok()).count();
    assert_eq!(taken, CALLS_BYTES_MAX / large);
    assert!(peer.figures().waiting_bytes as usize <= CALLS_BYTES_MAX);
    assert!(peer.call(bytes(1 << 20)).is_ok(), "less has room still");
    seconds(5).await;
    assert_eq!(peer.figures().waiting_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn another_address_is_dialled_and_a_member_that_is_gone_is_not() {
    let rig = Rig::new().await;
    let peer = rig.peer();
    let call = peer.call(count(1, LONG)).unwrap();
    let mut moved = config(2);
    moved.listen = address(4);
    let moved = start(rig.net.clone(), moved).await;
    rig.one.know(&[(2, address(4))]);
    assert_eq!(call.await.unwrap_err(), CallError::Lost);
    peer.connections().wait_for(|count| *count == 2).await.unwrap();
    assert_eq!(moved.peers.figures().serving, 1);
    assert!(peer.call(Request::Ping).unwrap().await.is_ok());

    rig.one.know(&[]);
    assert!(rig.one.peers.get(NodeId(2)).is_none());
    seconds(1).await;
    assert!(matches!(peer.call(Request::Ping), Err(CallError::NotConnected)));
    assert_eq!(moved.peers.figures().serving, 0);
    // The same node again is another link.
    rig.one.know(&[(2, address(2))]);
    rig.peer().connections().wait_for(|count| *count == 1).await.unwrap();
    assert!(!peer.is_up());
}

#[tokio::test(start_paused = true)]
async fn a_replicator_that_dies_is_started_again() {
    let rig = Rig::new().await;
    let call = rig.peer().call(count(1, LONG)).unwrap();
    rig.one.peers.actor.cast(PeersMessage::Kill(NodeId(2))).unwrap();
    assert_eq!(call.await.unwrap_err(), CallError::Lost);
    rig.peer().connections().wait_for(|count| *count == 2).await.unwrap();
    assert!(rig.peer().call(Request::Ping).unwrap().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_dies_is_started_again_at_its_address() {
    let rig = Rig::new().await;
    rig.two.peers.actor.cast(PeersMessage::KillListener).unwrap();
    rig.peer().connections().wait_for(|count| *count == 2).await.unwrap();
    assert!(rig.peer().call(Request::Ping).unwrap().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_nothing_runs_and_the_address_is_free() {
    let rig = Rig::new().await;
    let peer = rig.peer();
    rig.one.peers.stop().await;
    assert!(!peer.is_up() && rig.one.peers.all().is_empty());
    rig.one.peers.stop().await;
    rig.one.know(&[(2, address(2))]);
    start(rig.net.clone(), config(1)).await;
    seconds(1).await;
    assert_eq!(rig.two.peers.figures().serving, 0);
}
