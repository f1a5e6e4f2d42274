//! Whatever arrives at the socket: the node stays up, answers what can be answered, serves the others, and its memory is bounded.

use std::net::TcpStream;
use std::time::Instant;

use crate::common::calls::Caller;
use crate::common::http::{Connection, get, request, send};
use crate::common::{Chance, Home, Node, PATIENCE};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

/// The node lives and another user's calls go through.
fn assert_serves(node: &Node) {
    let admin = node.admin();
    admin.clear("canary");
    admin.add("canary", "sings");
    assert_eq!(admin.get("canary"), ["sings"]);
}

fn status_of(node: &Node, bytes: &[u8]) -> Option<u16> {
    let mut connection = Connection::open(node.addr()).unwrap();
    // The node may answer and close before everything is sent.
    let _ = connection.send(bytes);
    let _ = connection.finish_sending();
    connection.read_response().ok().map(|response| response.status)
}

#[test]
fn wrong_paths_and_methods_have_their_answers() {
    let home = Home::new();
    let node = home.start();
    let answer = send(node.addr(), "POST", "/no_such_call", b"{}").unwrap();
    assert_eq!(answer.status, 404);
    assert!(answer.json()["detail"].is_string());
    for path in [
        "/add_value",
        "/get_value",
        "/clear_key",
        "/list_keys",
        "/batch",
        "/users/add",
    ] {
        let answer = send(node.addr(), "GET", path, b"").unwrap();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{path}");
        assert!(answer.json()["detail"].is_string());
    }
    let answer = send(node.addr(), "POST", "/healthz", b"").unwrap();
    assert_eq!(answer.status, 405);
    assert!(answer.header("allow").unwrap().contains("GET"));
    assert_serves(&node);
}

#[test]
fn a_body_that_is_no_such_thing_is_a_422() {
    let home = Home::new();
    let node = home.start();
    let deep = format!(r#"{{"key": {}"#, "[".repeat(1_000_000));
    let bodies: [&[u8]; 14] = [
        b"",
        b"null",
        b"[]",
        b"\"text\"",
        b"{",
        b"{\"key\": \"k\"",
        b"{\"key\": \"k\", \"value\": \"\xff\xfe\"}",
        b"{\"key\": \"k\", \"value\": \"\\ud800\"}",
        b"{\"key\": \"k\", \"value\": 1e999}",
        b"{\"key\": {}, \"value\": [], \"finish_value\": 3, \"user\": \"me\"}",
        b"{\"key\": \"\", \"value\": \"v\", \"user\": {\"user_id\": \"\", \"password_hash\": \"\"}}",
        b"\xef\xbb\xbf{}",
        b"\0\0\0\0",
        deep.as_bytes(),
    ];
    for body in bodies {
        for path in [
            "/add_value",
            "/get_value",
            "/clear_key",
            "/list_keys",
            "/batch",
            "/users/add",
        ] {
            // An empty object is enough for a call all of whose fields may be left out; then the user is missing.
            let answer = send(node.addr(), "POST", path, body).unwrap();
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert!(
                matches!(answer.status, 401 | 422),
                "{path} {shown}: {} {}",
                answer.status,
                answer.text()
            );
            assert!(!answer.json()["detail"].is_null());
        }
    }
    assert_serves(&node);
}

#[test]
fn limits_are_named_in_their_errors() {
    let home = Home::new();
    let node = home.start();
    let admin = node.admin();
    let answer = admin.post("/add_value", json!({"key": "k".repeat(1025), "value": "v"}));
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("1024"), "{}", answer.text());
    admin.add(&"k".repeat(1024), "v");

    let answer = admin.post("/add_value", json!({"key": "k", "value": "v".repeat(9 << 20)}));
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("8388608"), "{}", answer.text());
    let large = "v".repeat(8 << 20 >> 1);
    admin.add("large", &large);
    assert_eq!(admin.get("large"), [large]);

    let answer = admin.post(
        "/add_value",
        json!({"key": "k", "value": "v", "request_id": "r".repeat(257)}),
    );
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("256"), "{}", answer.text());
}

#[test]
fn a_body_without_end_is_cut_off_at_the_limit() {
    let home = Home::new();
    let node = home.start();
    let before_kib = node.resident_kib();
    let mut connection = Connection::open(node.addr()).unwrap();
    connection
        .send(b"POST /add_value HTTP/1.1\r\nhost: kv\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let mut sent_bytes: u64 = 0;
    while connection.send(&chunk).is_ok() {
        sent_bytes += chunk.len() as u64;
        assert!(sent_bytes < 1 << 30, "the node takes a body without end");
    }
    let growth_kib = node.resident_kib().saturating_sub(before_kib);
    assert!(growth_kib < 64 * 1024, "{growth_kib} KiB more");
    // A length that is announced is refused before it is sent.
    let head = "POST /add_value HTTP/1.1\r\nhost: kv\r\ncontent-length: 1000000000000\r\n\r\n";
    assert_eq!(status_of(&node, head.as_bytes()), Some(413));
    assert_serves(&node);
}

#[test]
fn heads_that_are_no_http_are_refused() {
    let home = Home::new();
    let node = home.start();
    let huge_header = format!(
        "GET /healthz HTTP/1.1\r\nhost: kv\r\nx: {}\r\n\r\n",
        "y".repeat(4 << 20)
    );
    let many_headers = format!(
        "GET /healthz HTTP/1.1\r\nhost: kv\r\n{}\r\n",
        "a: b\r\n".repeat(100_000)
    );
    let huge_path = format!("GET /{} HTTP/1.1\r\nhost: kv\r\n\r\n", "p".repeat(4 << 20));
    let heads: [&[u8]; 10] = [
        huge_header.as_bytes(),
        many_headers.as_bytes(),
        huge_path.as_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"POST /add_value HTTP/1.1\r\nhost: kv\r\ncontent-length: -5\r\n\r\n",
        b"POST /add_value HTTP/1.1\r\nhost: kv\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /add_value HTTP/1.1\r\nhost: kv\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ];
    for head in heads {
        let status = status_of(&node, head);
        let shown = String::from_utf8_lossy(&head[..head.len().min(60)]).into_owned();
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{shown:?}: {status:?}"
        );
    }
    assert_serves(&node);
}

#[test]
fn garbage_behind_a_request_does_not_spoil_its_answer() {
    let home = Home::new();
    let node = home.start();
    let good = request("GET", "/healthz", b"");
    let mut connection = Connection::open(node.addr()).unwrap();
    connection
        .send(&[good.as_slice(), &good, b"\x00\xff garbage \r\n\r\n"].concat())
        .unwrap();
    assert_eq!(connection.read_response().unwrap().status, 200);
    assert_eq!(connection.read_response().unwrap().status, 200);
    let answer = connection.read_response();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 400));

    let mut chance = Chance(7);
    for _ in 0..100 {
        let garbage: Vec<u8> = (0..1 + chance.below(500)).map(|_| chance.below(256) as u8).collect();
        assert!(status_of(&node, &garbage).is_none_or(|status| (400..500).contains(&status)));
    }
    assert_serves(&node);
}

#[test]
fn garbage_behind_the_preface_of_http2_is_refused() {
    let home = Home::new();
    let node = home.start();
    let mut chance = Chance(8);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for length in [0, 1, 9, 100, 20_000] {
        let garbage: Vec<u8> = (0..length).map(|_| chance.below(256) as u8).collect();
        let mut connection = Connection::open(node.addr()).unwrap();
        let _ = connection.send(&[preface.as_slice(), &garbage].concat());
        let _ = connection.finish_sending();
        assert!(connection.is_closed_by_peer(), "{length} bytes of garbage");
    }
    assert_serves(&node);
}

#[test]
fn a_half_closed_connection_still_gets_its_answer() {
    let home = Home::new();
    let node = home.start();
    let admin = node.admin();
    admin.add("k", "v");
    let mut connection = Connection::open(node.addr()).unwrap();
    connection
        .send(&request("POST", "/get_value", &admin.body(json!({"key": "k"}))))
        .unwrap();
    connection.finish_sending().unwrap();
    assert_eq!(connection.read_response().unwrap().json()["value"], json!(["v"]));
    assert!(connection.is_closed_by_peer());
    // Half a request and then nothing more: no answer is owed, and nothing was done.
    let bytes = request("POST", "/add_value", &admin.body(json!({"key": "k", "value": "half"})));
    assert!(status_of(&node, &bytes[..bytes.len() - 3]).is_none_or(|status| status >= 400));
    assert_eq!(admin.get("k"), ["v"]);
}

#[test]
fn slow_clients_hold_up_nobody_else() {
    let home = Home::new();
    let node = home.start();
    let admin = node.admin();
    let bytes = request("POST", "/add_value", &admin.body(json!({"key": "slow", "value": "v"})));
    let mut slow: Vec<Connection> = (0..200).map(|_| Connection::open(node.addr()).unwrap()).collect();
    for index in 0..bytes.len() {
        for connection in &mut slow {
            connection.send(&bytes[index..=index]).unwrap();
        }
        if index % 50 == 0 {
            assert_serves(&node);
        }
    }
    for connection in &mut slow {
        assert_eq!(connection.read_response().unwrap().status, 200);
    }
    assert_eq!(admin.count("slow"), 200);
}

/// A connection over HTTP/2 that asks for as many answers as one may, all at once.
fn crowd_over_http2() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // `GET`, `http`, and the path in full (RFC 7541, appendix A).
    let path = "/healthz";
    let head = [&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes()].concat();
    for stream in (1..200u32).step_by(2) {
        // HEADERS, with END_STREAM and END_HEADERS (RFC 9113, 6.2).
        bytes.extend([0, 0, head.len() as u8, 1, 5]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(&head);
    }
    bytes
}

#[test]
fn crowds_over_http2_do_not_fill_the_memory() {
    const CONNECTIONS: usize = 400;
    let node = Home::new().start();
    let mut connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| Connection::open(node.addr()).unwrap())
        .collect();
    let before_kib = node.peak_kib();
    for connection in &mut connections {
        connection.send(&crowd_over_http2()).unwrap();
    }
    // Answered or refused.
    let asked = || {
        let metrics = get(node.addr(), "/metrics").text();
        let counted = [
            r#"kv_http_requests_total{call="healthz",status="200"} "#,
            r#"kv_http_refused_total{reason="streams"} "#,
        ];
        let figure = |name| {
            metrics
                .lines()
                .find_map(|line| line.strip_prefix(name)?.parse::<usize>().ok())
        };
        counted.into_iter().filter_map(figure).sum::<usize>()
    };
    let begun = Instant::now();
    while asked() < CONNECTIONS * 100 {
        assert!(begun.elapsed() < PATIENCE, "{} came", asked());
    }
    let growth_kib = node.peak_kib() - before_kib;
    println!("{CONNECTIONS} connections took {growth_kib} KiB");
    assert!(growth_kib < CONNECTIONS as u64 * 384, "{growth_kib} KiB");
}

#[test]
fn a_client_that_reads_nothing_does_not_fill_the_memory() {
    let home = Home::new();
    let node = home.start();
    let admin = node.admin();
    for _ in 0..8 {
        admin.add("large", &"v".repeat(4 << 20));
    }
    let asking = request("POST", "/get_value", &admin.body(json!({"key": "large"})));
    let before_kib = node.resident_kib();
    let deaf: Vec<Connection> = (0..30)
        .map(|_| {
            let mut connection = Connection::open(node.addr()).unwrap();
            connection.send(&asking).unwrap();
            connection
        })
        .collect();
    assert_serves(&node);
    // All 30 answers at once would be 960 MiB.
    let growth_kib = node.resident_kib().saturating_sub(before_kib);
    assert!(growth_kib < 300 * 1024, "{growth_kib} KiB more");
    drop(deaf);
    assert_serves(&node);
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_others_are_served() {
    const CONNECTIONS: usize = 10_000;
    /// What hyper needs for a connection at rest, with room: 10,000 of them stay below 320 MiB.
    const KIB_PER_CONNECTION: u64 = 32;
    // The node takes over the limit of the process that starts it.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let room = limit.maximum.map_or(u64::MAX, |files| files.saturating_sub(500));
    let connections = CONNECTIONS.min(room as usize);

    let home = Home::new();
    let mut node = home.start();
    assert_serves(&node);
    let before_kib = node.resident_kib();
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..connections {
        idle.push(TcpStream::connect(node.addr()).unwrap());
        if idle.len().is_multiple_of(1000) {
            assert_serves(&node);
        }
    }
    let growth_kib = node.resident_kib().saturating_sub(before_kib);
    assert!(
        growth_kib < connections as u64 * KIB_PER_CONNECTION,
        "{growth_kib} KiB more"
    );
    let other: Caller = node.user("other");
    other.add("k", "v");
    assert_eq!(other.get("k"), ["v"]);
    drop(idle);
    assert!(node.is_running());
    assert_eq!(get(node.addr(), "/healthz").status, 200);
}
