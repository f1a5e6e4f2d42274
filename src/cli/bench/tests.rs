use clap::Parser;

use crate::cli::connection::{Sourced, Target};
use crate::cli::exit::{Exit, exit_of};
use crate::client::fake_node::{FakeNode, PASSWORD, USER};

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: BenchArgs,
}

fn parse(line: &str) -> Result<BenchArgs, clap::Error> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    Line::try_parse_from(std::iter::once("bench").chain(words)).map(|line| line.args)
}

#[test]
fn gets_are_measured_on_lists_and_adds_alone_need_none() {
    for (line, mix, list_length) in [
        ("", "add=1,get=1", 4),
        ("--op add", "add=1", 0),
        ("--op get", "get=1", 4),
        ("--op get --list-length 9", "get=1", 9),
        ("--mix add=90,clear=10", "add=90,clear=10", 0),
        ("--mix add=50,get=45,clear=5", "add=50,get=45,clear=5", 4),
    ] {
        let args = parse(line).expect(line);
        assert_eq!(args.operations(), mix.parse().unwrap(), "{line}");
        assert_eq!(args.list_length(), list_length, "{line}");
    }
}

#[test]
fn a_load_is_described_by_flags() {
    let args =
        parse("--keys 5 --distribution zipf:1.1 --duration 0.5 --warmup 0 --rate 2e3 --connections 3 --json").unwrap();
    assert_eq!((args.keys, args.connections, args.rate), (5, 3, Some(2000.0)));
    assert_eq!(args.distribution, Distribution::Zipf { theta: 1.1 });
    assert_eq!(
        (args.duration, args.warmup),
        (Duration::from_millis(500), Duration::ZERO)
    );
}

#[test]
fn what_cannot_be_meant_is_wrong_usage() {
    for line in [
        "--op add --mix get=1",
        "--op delete",
        "--mix get=0",
        "--keys 0",
        "--keys 1000000000000",
        "--connections 0",
        "--rate 0",
        "--rate -1",
        "--rate NaN",
        "--duration -1",
        "--duration inf",
        "--distribution zipf:x",
        "--value-bytes 8388608",
    ] {
        assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
    }
}

#[test]
fn keys_that_no_node_takes_are_refused_before_anything_is_sent() {
    let args = parse(&format!("--key-prefix {}", "x".repeat(KEY_BYTES_MAX))).unwrap();
    let error = args.payload().unwrap_err().to_string();
    assert!(error.contains("--key-prefix") && error.contains("1036"), "{error}");
}

#[tokio::test]
async fn a_node_is_measured_with_the_users_own_connection_settings() {
    let node = FakeNode::start();
    let client = node.client();
    let payload = Payload::new("bench-", 10, 1);
    Preload::new(&client, &payload, 20, 2).run().await.unwrap();
    let address: SocketAddr = node.url.trim_start_matches("http://").parse().unwrap();
    let target = KvTarget {
        authority: address.to_string(),
        base_path: String::new(),
        user_id: client.user_id().to_owned(),
        password_hash: password_hash(PASSWORD),
        consistency: None,
    };
    let mut load = Load {
        addresses: vec![address],
        connections: 2,
        warmup: Duration::ZERO,
        duration: Duration::from_millis(200),
        rate_per_s: None,
        mix: "get=3,clear=1".parse().unwrap(),
        keys: 20,
        distribution: Distribution::Uniform,
        seed: 3,
        drain: Duration::from_secs(10),
    };
    let hosts = Hosts(vec![(address, target)]);
    // Each run takes twice as long as the one before, until both kinds were done: how much that is in a second, the machine decides.
    let run = move || loop {
        let report = measure(&load, &hosts, &payload, &AtomicBool::new(false)).unwrap();
        let done = report.operations.values().filter(|operation| operation.done > 0);
        if done.count() == 2 {
            return report;
        }
        load.duration *= 2;
        assert!(load.duration < Duration::from_secs(60), "never enough: {report}");
    };
    let report = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(report.errors.is_empty(), "{report}");
}

/// Where nobody listens any more.
fn dead_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn connection_to(node: &FakeNode, urls: Vec<String>) -> Connection {
    let sourced = |value: &str| Sourced {
        value: value.to_owned(),
        from: "a test".to_owned(),
    };
    let from = "a test".to_owned();
    let target = Target {
        urls: Sourced { value: urls, from },
        user: sourced(USER),
        password: sourced(PASSWORD),
        consistency: None,
    };
    let client = node.client();
    Connection { client, target }
}

#[tokio::test]
async fn of_a_name_with_several_addresses_the_one_that_somebody_listens_at_is_measured() {
    let node = FakeNode::start();
    let alive: SocketAddr = node.url.trim_start_matches("http://").parse().unwrap();
    let reached = reach([dead_address(), alive, dead_address()].into_iter()).await;
    assert_eq!(reached.unwrap(), alive);
    let refused = reach([dead_address()].into_iter()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(reach(std::iter::empty()).await.is_err());
}

#[tokio::test]
async fn of_several_nodes_those_that_can_be_reached_are_measured() {
    let node = FakeNode::start();
    let dead = || dead_address().to_string();
    let hosts = Hosts::look_up(&connection_to(&node, vec![dead(), node.url.clone()])).await;
    let hosts = hosts.unwrap();
    assert_eq!(hosts.addresses().len(), 1);
    assert!(node.url.ends_with(&hosts.addresses()[0].to_string()));
    let none = Hosts::look_up(&connection_to(&node, vec![dead(), dead()])).await;
    let error = none.unwrap_err();
    assert_eq!(exit_of(&error), Exit::Unreachable);
    assert!(format!("{error:#}").contains("--url"), "{error:#}");
}
