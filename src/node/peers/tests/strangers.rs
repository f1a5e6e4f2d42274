//! Who is not let in, and who breaks the rules.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{Rig, address, bytes, config, env, keys, seconds, start};
use crate::env::Net;
use crate::net::{self, Channel, Hello, Local};
use crate::node::peers::CallError;
use crate::node::peers::shared::VERSIONS;
use crate::types::NodeId;
use crate::wire::{Message, Request, Response};

#[tokio::test(start_paused = true)]
async fn another_key_is_refused_on_both_sides() {
    let rig = Rig::new().await;
    let mut other = config(3);
    other.keys = keys(8);
    let other = start(rig.net.clone(), other).await;
    other.know(&[(2, address(2))]);
    rig.one.know(&[(2, address(2)), (3, address(3))]);
    seconds(5).await;
    assert!(!other.peer(2).is_up() && !rig.one.peer(3).is_up());
    assert!(rig.two.peers.figures().refused > 3 && other.peers.figures().refused > 3);
    assert!(rig.one.peers.figures().wrong_peers > 3);
    let limit = Duration::from_secs(1);
    let asked = other.peers.call_address(address(2), Request::Ping, limit).await;
    assert!(matches!(asked, Err(CallError::Unreachable(_))));
    assert_eq!(rig.two.peers.figures().serving, 1);
}

#[tokio::test(start_paused = true)]
async fn another_node_at_a_members_address_is_not_spoken_to() {
    let rig = Rig::new().await;
    rig.one.know(&[(9, address(2))]);
    seconds(5).await;
    assert!(!rig.one.peer(9).is_up());
    assert!(rig.one.peers.figures().wrong_peers > 3);
    // Nor is this node itself under another name.
    rig.one.know(&[(9, address(1))]);
    seconds(5).await;
    assert!(!rig.one.peer(9).is_up());
    assert!(rig.one.peers.figures().refused > 3);
}

#[tokio::test(start_paused = true)]
async fn another_cluster_is_refused_and_none_yet_is_not() {
    let rig = Rig::new().await;
    let mut other = config(3);
    other.hello.cluster = 6;
    let other = start(rig.net.clone(), other).await;
    other.know(&[(2, address(2))]);
    seconds(3).await;
    assert!(!other.peer(2).is_up() && other.peers.figures().wrong_peers > 1);

    let mut fresh = config(4);
    fresh.hello.cluster = 0;
    let fresh = start(rig.net.clone(), fresh).await;
    fresh.know(&[(2, address(2))]);
    seconds(1).await;
    assert!(fresh.peer(2).is_up());
    other.peers.set_cluster(5);
    seconds(2).await;
    assert!(other.peer(2).is_up());
}

#[tokio::test(start_paused = true)]
async fn garbage_on_the_port_is_harmless() {
    let rig = Rig::new().await;
    let mut stream = rig.net.connect(address(2)).await.unwrap();
    stream.write_all(&[0x55; 1000]).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    // Who says nothing at all is not waited for.
    let silent: Vec<_> = [(); 200].map(|()| rig.net.connect(address(2))).into();
    let silent = futures_util::future::join_all(silent).await;
    seconds(1).await;
    assert_eq!(rig.two.peers.figures().refused, 1 + (200 - 64));
    seconds(10).await;
    assert_eq!(rig.two.peers.figures().refused, 1 + 200);
    drop(silent);
    assert_eq!(rig.peer().figures().connects, 1);
}

/// A node that holds the key and does as it likes.
async fn insider(rig: &Rig) -> Channel {
    let local = Local {
        keys: keys(7),
        tls: None,
        versions: VERSIONS,
        hello: Hello {
            node: NodeId(66),
            generation: 1,
            cluster: 5,
        },
        entropy: env(rig.net.clone()).entropy,
    };
    let stream = rig.net.connect(address(2)).await.unwrap();
    net::connect(stream, &local).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_no_messages_loses_its_connection() {
    let rig = Rig::new().await;
    let mut answer = Vec::new();
    Message::Response(1, Response::Done).encode(&mut answer);
    for sent in [&b"\xc1\x00garbage"[..], &answer] {
        let mut channel = insider(&rig).await;
        channel.writer.send(&[sent]).await.unwrap();
        assert!(channel.reader.recv().await.is_err());
    }
    seconds(1).await;
    let figures = rig.two.peers.figures();
    assert_eq!((figures.garbage, figures.serving), (2, 1));
    assert_eq!(rig.two.service.ended.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_does_not_read_the_answers_is_not_read_any_more() {
    let rig = Rig::new().await;
    let mut channel = insider(&rig).await;
    let mut frame = Vec::new();
    for id in 0..1000 {
        Message::Request(id, bytes(1 << 10)).encode(&mut frame);
    }
    // Answers of some bytes each, so it takes many of them to fill all there is.
    let mut stuck = false;
    for _ in 0..2000 {
        let sent = tokio::time::timeout(Duration::from_millis(200), channel.writer.send(&[&frame])).await;
        if sent.is_err() {
            stuck = true;
            break;
        }
    }
    assert!(stuck, "it read on and on");
    seconds(25).await;
    assert_eq!(rig.two.peers.figures().serving, 1, "only the honest one is left");
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_signs_of_life_ends() {
    let rig = Rig::new().await;
    let channel = insider(&rig).await;
    seconds(5).await;
    assert_eq!(rig.two.peers.figures().serving, 2);
    seconds(20).await;
    assert_eq!(rig.two.peers.figures().serving, 1);
    assert_eq!(rig.two.service.ended.lock().len(), 1);
    drop(channel);
}
