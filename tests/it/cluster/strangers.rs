//! Whoever does not know the key of the cluster, and whoever only repeats what was said: refused, counted, harmless.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::rig::{Cluster, ensure, wait_for};
use crate::common::calls::Caller;
use crate::common::http::get;
use crate::common::{Chance, Node, kv, run, said};

const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The cluster serves as if nothing had happened.
fn check_serves(cluster: &Cluster, user: &Caller, values: &mut Vec<String>) {
    for index in 0..3 {
        let text = format!("value {}", values.len());
        user.at(cluster.http(index)).add("key", &text);
        values.push(text);
        assert_eq!(user.at(cluster.http((index + 1) % 3)).get("key"), *values);
    }
}

/// A connection that says this, and then nothing more; whatever it is answered with.
pub fn say(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(SILENCE_MAX)).unwrap();
    // It may be closed before all is said.
    let _ = stream.write_all(bytes);
    stream
}

/// Whether the other side ends the connection, whatever it says before.
pub fn is_closed(mut stream: TcpStream) -> bool {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn strangers_and_repeaters_are_refused_and_counted_and_harm_nothing() {
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    let mut values = Vec::new();
    check_serves(&cluster, &user, &mut values);

    // Without a key a node does not even start.
    let mut keyless = kv();
    keyless.args(["serve", "--data"]).arg(cluster.home().join("keyless"));
    keyless.args([
        "--listen",
        "127.0.0.1:0",
        "--cluster-listen",
        &cluster.peer(4).to_string(),
    ]);
    let refused = run(keyless);
    assert!(!refused.status.success());
    assert!(said(&refused).contains("--cluster-key-file"), "{}", said(&refused));

    // With a wrong one it is let in nowhere, and hears nothing.
    let other_key = cluster.home().join("other-key");
    let mut keygen = kv();
    assert!(
        run({
            keygen.args(["cluster", "keygen"]).arg(&other_key);
            keygen
        })
        .status
        .success()
    );
    let before = [
        cluster.metric(0, "kv_peer_refused_total", ""),
        cluster.metric(0, "kv_gossip_refused_total", "unknown_key"),
    ];
    let stranger = Node::start(cluster.command_with_key(3, &other_key));
    wait_for("the one with the wrong key is refused", || {
        let now = [
            cluster.metric(0, "kv_peer_refused_total", ""),
            cluster.metric(0, "kv_gossip_refused_total", "unknown_key"),
        ];
        ensure(now[0] > before[0] && now[1] > before[1], || {
            format!("{before:?} {now:?}")
        })
    });
    assert_eq!(get(cluster.http(3), "/readyz").status, 503);
    check_serves(&cluster, &user, &mut values);
    assert_eq!(cluster.status(0).unwrap().len(), 3, "it is not even seen");
    drop(stranger);

    // One that knows the key, and is of another cluster.
    let before = cluster.metric(0, "kv_peer_refused_total", "");
    cluster.start_with(&["--name", "other"]);
    let stranger = Node::start(cluster.command(4));
    wait_for("the one of another cluster is refused", || {
        let now = cluster.metric(0, "kv_peer_refused_total", "");
        ensure(now > before, || format!("{now}"))
    });
    assert_eq!(get(cluster.http(4), "/readyz").status, 503);
    assert_eq!(cluster.status(0).unwrap().len(), 3, "it is not even seen");
    drop(stranger);

    // A node greets whom it is told to join: here somebody who only listens, and tells the others what it heard.
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    listener.set_read_timeout(Some(SILENCE_MAX)).unwrap();
    cluster.start_with(&["--join", &listener.local_addr().unwrap().to_string()]);
    cluster.kill(2);
    cluster.start(2);
    let mut heard = vec![0; 1 << 16];
    let (length, from) = listener.recv_from(&mut heard).expect("a greeting");
    assert_eq!(from, cluster.peer(2));
    heard.truncate(length);
    cluster.wait_whole();
    let memory = cluster.node(1).resident_kib();
    let send = |bytes: &[u8]| assert!(listener.send_to(bytes, cluster.peer(1)).is_ok());
    let refused = |reason: &str| cluster.metric(1, "kv_gossip_refused_total", reason);
    let reasons = ["too_short", "version", "unknown_key", "forged", "replayed"];
    let before = reasons.map(refused);
    let mut chance = Chance(3);
    for length in [0, 1, 10, 60, 100, 1000, 60_000] {
        let garbage: Vec<u8> = (0..length).map(|_| chance.below(256) as u8).collect();
        send(&garbage);
    }
    let mut unknown = heard.clone();
    unknown[1] ^= 1;
    let mut forged = heard.clone();
    *forged.last_mut().unwrap() ^= 1;
    send(&unknown);
    send(&forged);
    for _ in 0..20 {
        send(&heard);
    }
    wait_for("the datagrams are refused", || {
        let now = reasons.map(refused);
        let grown = before.iter().zip(&now).all(|(before, now)| now > before);
        ensure(grown, || format!("{reasons:?}: {before:?}, then {now:?}"))
    });
    // What a node said before it was started again is old.
    cluster.start_with(&[]);
    cluster.kill(2);
    cluster.start(2);
    cluster.wait_whole();
    let before = cluster.metric(1, "kv_gossip_refused_total", "old_generation");
    wait_for("what is old is refused", || {
        assert!(listener.send_to(&heard, cluster.peer(1)).is_ok());
        let now = cluster.metric(1, "kv_gossip_refused_total", "old_generation");
        ensure(now > before, || format!("{now}"))
    });
    check_serves(&cluster, &user, &mut values);

    // The peer port hears HTTP, noise, a beginning that is not gone on with, and many who say nothing at all.
    let before = cluster.metric(1, "kv_peer_refused_total", "");
    let noise: Vec<u8> = (0..100_000).map(|_| chance.below(256) as u8).collect();
    let said: [&[u8]; 4] = [b"GET / HTTP/1.1\r\nhost: kv\r\n\r\n", &noise, &[0xff; 64], &[0; 64]];
    for bytes in said {
        assert!(is_closed(say(cluster.peer(1), bytes)));
    }
    let silent: Vec<TcpStream> = (0..200).map(|_| say(cluster.peer(1), b"")).collect();
    check_serves(&cluster, &user, &mut values);
    wait_for("the strangers are counted", || {
        let now = cluster.metric(1, "kv_peer_refused_total", "");
        ensure(now >= before + 4 + 200, || format!("{before}, then {now}"))
    });
    assert!(silent.into_iter().all(is_closed));
    assert!(cluster.node(1).resident_kib() < memory + (32 << 10));
    // It comes back also while strangers are at its door.
    let crowd: Vec<TcpStream> = (0..50).map(|_| say(cluster.peer(0), b"KV")).collect();
    cluster.kill(2);
    cluster.start(2);
    cluster.wait_whole();
    drop(crowd);
    check_serves(&cluster, &user, &mut values);
}
