//! Who is not let in, and who breaks the rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{Rig, address, bytes, config, env, keys, seconds, start};
use crate::env::{Net, Stream};
use crate::net::{self, Channel, HandshakeError, Hello, Local};
use crate::node::peers::CallError;
use crate::node::peers::handshakes::STRANGERS_OF_ADDRESS_MAX;
use crate::node::peers::shared::VERSIONS;
use crate::types::NodeId;
use crate::wire::{Message, Request, Response, WireError};

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
    assert_eq!(
        rig.two.peers.figures().refused,
        1 + (200 - STRANGERS_OF_ADDRESS_MAX as u64)
    );
    seconds(10).await;
    assert_eq!(rig.two.peers.figures().refused, 1 + 200);
    drop(silent);
    assert_eq!(rig.peer().figures().connects, 1);
}

/// A connection from this address that says so many bytes and then nothing more.
async fn stranger(rig: &Rig, from: SocketAddr, says: usize) -> Box<dyn Stream> {
    stranger_at(rig, from, says, address(2)).await
}

async fn stranger_at(rig: &Rig, from: SocketAddr, says: usize, to: SocketAddr) -> Box<dyn Stream> {
    let mut stream = rig.net.connect_from(from, to).await.unwrap();
    // It may have been turned away already.
    let _ = stream.write_all(&vec![b'k'; says]).await;
    stream
}

/// Number `number` of many addresses that are no member's.
fn outside(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 9, (number >> 8) as u8, number as u8], 7000))
}

#[tokio::test(start_paused = true)]
async fn strangers_that_say_nothing_keep_nobody_out() {
    let rig = Rig::new().await;
    rig.two.know(&[(1, address(1))]);
    // From one address, from very many, and from a member's own.
    let sources: [fn(usize) -> SocketAddr; 3] = [|_| outside(0), outside, |_| address(1)];
    for source in sources {
        let mut held = Vec::new();
        for number in 0..300 {
            held.push(stranger(&rig, source(number), 0).await);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        for from in [outside(0), outside(999), address(1)] {
            assert!(insider_from(&rig, from).await.is_ok(), "{from}");
        }
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_that_say_a_little_keep_no_member_out_and_others_not_for_long() {
    let mut config = config(3);
    config.join = vec![address(4)];
    let rig = Rig::new().await;
    let three = start(rig.net.clone(), config).await;
    rig.two.know(&[(1, address(1))]);
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(stranger(&rig, outside(0), 1).await);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(
        insider_from(&rig, outside(0)).await.is_err(),
        "one address has few places"
    );
    assert!(insider_from(&rig, outside(1)).await.is_ok());
    for number in 0..300 {
        held.push(stranger(&rig, outside(number), 1).await);
        held.push(stranger_at(&rig, outside(number), 1, address(3)).await);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(insider_from(&rig, outside(999)).await.is_err());
    assert!(insider_from(&rig, address(1)).await.is_ok());
    // One that is still to be heard of from the members.
    let to_three = |from| insider_at(&rig, from, address(3));
    assert!(to_three(outside(999)).await.is_err() && to_three(address(4)).await.is_ok());
    seconds(2).await;
    assert!(insider_from(&rig, outside(999)).await.is_ok());
    drop((held, three));
}

/// A node that holds the key and does as it likes.
async fn insider(rig: &Rig) -> Channel {
    insider_from(rig, address(2)).await.unwrap()
}

async fn insider_from(rig: &Rig, from: SocketAddr) -> Result<Channel, HandshakeError> {
    insider_at(rig, from, address(2)).await
}

async fn insider_at(rig: &Rig, from: SocketAddr, to: SocketAddr) -> Result<Channel, HandshakeError> {
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
    let stream = rig.net.connect_from(from, to).await.unwrap();
    net::connect(stream, &local).await
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
async fn a_request_that_only_a_newer_node_knows_is_refused_and_harms_no_other() {
    let rig = Rig::new().await;
    let mut channel = insider(&rig).await;
    let mut frame = Vec::new();
    Message::Request(1, bytes(5)).encode(&mut frame);
    frame.extend(b"\x81\xa7Request\x92\x02\x81\xa5Later\x91\x01");
    Message::Request(3, bytes(6)).encode(&mut frame);
    channel.writer.send(&[&frame]).await.unwrap();
    let mut answers = BTreeMap::new();
    while answers.len() < 3 {
        let frame = channel.reader.recv().await.unwrap().unwrap();
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let Ok(Message::Response(id, response)) = Message::decode(&mut rest) else {
                panic!("no answer");
            };
            answers.insert(id, response);
        }
    }
    assert!(matches!(&answers[&2], Response::Failed(WireError::Refused(why)) if why.contains("Later")));
    assert!(matches!(
        (&answers[&1], &answers[&3]),
        (Response::Count(5), Response::Count(6))
    ));
    assert_eq!(rig.two.peers.figures().garbage, 0);
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_does_not_read_the_answers_is_not_read_any_more() {
    let rig = Rig::new().await;
    let mut channel = insider(&rig).await;
    let mut frame = Vec::new();
    for id in 0..1000 {
        Message::Request(id, bytes(1 << 7)).encode(&mut frame);
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
