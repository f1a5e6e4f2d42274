//! What takes more than one message between nodes.

use crate::core::op::{Body, KeyedOp};
use crate::node::ValueReader;
use crate::node::cluster::tests::*;

const VALUES: u64 = 12;

/// Nodes that bring each other nothing but what is read, a value or two at a time.
async fn rig(count: usize) -> Rig {
    let pages = Pages {
        key_bytes: 200,
        reader_bytes: 200,
        pull_bytes: 200,
        portion_bytes: 100,
    };
    let rig = Rig {
        pages,
        ..Rig::unstarted(count)
    };
    let rig = rig.started().await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    rig
}

fn text(place: u64) -> String {
    format!("{place} {}", "x".repeat(80))
}

fn texts() -> Vec<String> {
    (1..=VALUES).map(text).collect()
}

fn values(name: &str) -> Vec<KeyedOp> {
    let ops = Ops::of(name.to_owned());
    let value = |place| ops.op(place, Body::Value(text(place).into()));
    (1..=VALUES).map(value).collect()
}

/// What this node itself says at quorum.
async fn list_here(node: &Node, name: &str) -> Vec<String> {
    let (user, key) = (user(), key(name));
    let source = inner(node).source(&user, &key, at(Consistency::Quorum)).await.unwrap();
    let mut reader = ValueReader::local(node.local().read(source.unwrap(), 0, u64::MAX), None);
    rest_of(&mut reader).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_takes_page_by_page_all_that_it_lacks() {
    let rig = rig(3).await;
    for index in [0, 1] {
        rig.node(index).local().apply(values("k")).await.unwrap();
    }
    assert_eq!(list_here(rig.node(2), "k").await, texts());
    assert_eq!(count_at(rig.node(2), "k").await, VALUES);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_gives_page_by_page_all_that_another_one_lacks() {
    let rig = rig(3).await;
    rig.node(2).local().apply(values("k")).await.unwrap();
    assert_eq!(list_here(rig.node(2), "k").await, texts());
    let there = [count_at(rig.node(0), "k").await, count_at(rig.node(1), "k").await];
    assert!(there.contains(&VALUES), "{there:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_read_through_another_node_comes_page_by_page() {
    let rig = rig(4).await;
    let layout = inner(rig.node(3)).layout();
    let is_elsewhere = |name: &String| {
        !layout
            .placement
            .replicas(crate::node::replica::place_of(&user(), &key(name)).0)
            .contains(&inner(rig.node(3)).me)
    };
    let name = (0..).map(|number| format!("k{number}")).find(is_elsewhere).unwrap();
    for index in 0..3 {
        rig.node(index).local().apply(values(&name)).await.unwrap();
    }
    for level in [Consistency::One, Consistency::Quorum] {
        let mut reader = rig
            .node(3)
            .get(&user(), &key(&name), 0, u64::MAX, at(level))
            .await
            .unwrap();
        let first = reader.next(1 << 20).await.unwrap();
        assert!((1..VALUES as usize).contains(&first.len()), "{}", first.len());
        let mut listed: Vec<String> = first.iter().map(|fragment| fragment.text.as_ref().to_owned()).collect();
        listed.extend(rest_of(&mut reader).await.unwrap());
        assert_eq!(listed, texts());
    }
    rig.end().await;
}
