//! What was once said between two nodes, said again by somebody else.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::rig::{Cluster, ensure, wait_for};
use super::strangers::{is_closed, say};

/// What each connection's dialler said.
type Recordings = Arc<Mutex<Vec<Vec<u8>>>>;

/// Passes connections on to `target`, and keeps what was said to it. Ends with the process.
fn record(target: SocketAddr) -> (SocketAddr, Recordings) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let recordings = Recordings::default();
    let kept = recordings.clone();
    thread::spawn(move || {
        for (index, dialler) in listener.incoming().flatten().enumerate() {
            kept.lock().push(Vec::new());
            let Ok(node) = TcpStream::connect(target) else { continue };
            let (to_node, from_node) = (node.try_clone().unwrap(), node);
            let (to_dialler, from_dialler) = (dialler.try_clone().unwrap(), dialler);
            thread::spawn(move || pass_on(from_node, to_dialler, |_| {}));
            let kept = kept.clone();
            thread::spawn(move || {
                pass_on(from_dialler, to_node, |bytes| {
                    kept.lock()[index].extend_from_slice(bytes);
                });
            });
        }
    });
    (address, recordings)
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8])) {
    let mut bytes = [0; 1 << 16];
    while let Ok(count) = from.read(&mut bytes) {
        // What is passed on is kept first: the other side may act at once.
        keep(&bytes[..count]);
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Says this in so many pieces; true when the connection ends, whatever is answered before.
fn say_in_pieces(address: SocketAddr, bytes: &[u8], pieces: usize) -> bool {
    let mut pieces = bytes.chunks(bytes.len().div_ceil(pieces).max(1));
    let mut stream = say(address, pieces.next().unwrap_or_default());
    for piece in pieces {
        // It may be closed before all is said.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    is_closed(stream)
}

#[test]
fn a_recorded_conversation_of_two_nodes_said_again_is_refused_and_does_nothing() {
    let mut cluster = Cluster::new();
    let user = cluster.user("writer");
    // The others speak to the last one through somebody who listens.
    cluster.kill(2);
    // Where they know it from, nobody answers any more.
    let target = cluster.move_peer(2);
    let (between, recordings) = record(target);
    cluster.start_with(&["--advertise", &between.to_string()]);
    cluster.start(2);
    cluster.wait_whole();
    let writes = user.at(cluster.http(0));
    let values: Vec<String> = (0..20).map(|number| format!("value {number}")).collect();
    values.iter().for_each(|value| writes.add("key", value));
    wait_for("the last one has them", || {
        let held = cluster.held(&user, 2, "key")?;
        ensure(held == values, || format!("{held:?}"))
    });
    let recorded = recordings.lock().clone();
    let longest = recorded.iter().max_by_key(|bytes| bytes.len()).unwrap();
    // The handshake, the introduction, and the adds.
    assert!(longest.len() > 20 * "value 0".len() + 200, "{} bytes", longest.len());
    user.clear("key");
    let ops = |index: usize| cluster.metric(index, "kv_stream_ops_total", "");
    wait_for("the clear is everywhere", || {
        let held = [0, 1, 2].map(|index| cluster.held(&user, index, "key"));
        ensure(held.iter().all(|held| held == &Ok(Vec::new())), || format!("{held:?}"))
    });
    let (before, ops_before) = (
        [0, 1, 2].map(|index| cluster.metric(index, "kv_peer_refused_total", "")),
        ops(2),
    );
    let accepted = cluster.metric(2, "kv_peer_accepted_total", "");
    let said: Vec<&Vec<u8>> = recorded.iter().filter(|bytes| !bytes.is_empty()).collect();
    for (number, bytes) in said.iter().enumerate() {
        // To the one that it was said to, and to the others; at once, in pieces, and not whole.
        for index in [2, 0, 1] {
            assert!(say_in_pieces(cluster.peer(index), bytes, 1 + number % 5));
        }
        drop(say(target, &bytes[..bytes.len() / 2]));
    }
    wait_for("all of it is refused and counted", || {
        let now = [0, 1, 2].map(|index| cluster.metric(index, "kv_peer_refused_total", ""));
        let grown = before
            .iter()
            .zip(&now)
            .all(|(before, now)| *now >= before + said.len() as u64);
        ensure(grown, || format!("{before:?}, then {now:?}, of {}", said.len()))
    });
    assert_eq!(
        cluster.metric(2, "kv_peer_accepted_total", ""),
        accepted,
        "it was believed"
    );
    assert_eq!(ops(2), ops_before, "it did something");
    for index in [0, 1, 2] {
        assert!(cluster.held(&user, index, "key").unwrap().is_empty());
    }
    for index in [0, 1, 2] {
        user.at(cluster.http(index)).add("key", "after");
    }
    assert_eq!(user.get("key").len(), 3);
}
