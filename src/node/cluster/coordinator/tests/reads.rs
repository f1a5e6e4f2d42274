//! Reads at quorum while the key is written.

use std::pin::Pin;
use std::task::Poll;

use crate::core::op::Body;
use crate::node::ValueReader;
use crate::node::cluster::tests::*;

/// Keys, so that one that the members made equal meanwhile is not all there is.
const KEYS: usize = 4;

impl Ops {
    /// How many values one of these nodes has of the key, the one that has most.
    async fn most_at(&self, rig: &Rig, nodes: [usize; 2]) -> u64 {
        let mut most = 0;
        for index in nodes {
            let count = rig.node(index).local().count(&user(), &key(&self.name)).await;
            most = most.max(count.unwrap());
        }
        most
    }

    /// What the node itself says: no other one is asked in its place when it takes long, which may not have what is only here.
    async fn list_here(&self, node: &Node) -> Vec<String> {
        let (user, key) = (user(), key(&self.name));
        let inner = &node.cluster().unwrap().inner;
        let source = inner.source(&user, &key, at(Consistency::Quorum)).await.unwrap();
        let mut reader = ValueReader::local(node.local().read(source.unwrap(), 0, u64::MAX), None);
        rest_of(&mut reader).await.unwrap()
    }

    /// At node 2, step by step.
    fn read<'a>(&'a self, rig: &'a Rig) -> Read<'a> {
        let node = rig.node(2);
        Read {
            peers: node.cluster().unwrap().inner.peers.all(),
            reading: Box::pin(async move { self.list_here(node).await }),
            list: None,
        }
    }
}

struct Read<'a> {
    peers: Vec<Peer>,
    reading: Pin<Box<dyn Future<Output = Vec<String>> + 'a>>,
    list: Option<Vec<String>>,
}

impl Read<'_> {
    /// Lets it go on to the next request, which is answered then, and the answer not yet looked at.
    async fn ask(&mut self) {
        self.go_on().await;
        wait_answered(&self.peers).await;
    }

    async fn go_on(&mut self) {
        if self.list.is_none()
            && let Poll::Ready(list) = futures_util::poll!(&mut self.reading)
        {
            self.list = Some(list);
        }
    }

    async fn end(self) -> Vec<String> {
        match self.list {
            Some(list) => list,
            None => self.reading.await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_shows_no_value_without_a_part_that_was_acknowledged_before_it() {
    let rig = Rig::new(3).await;
    for number in 0..KEYS {
        let ops = Ops::of(format!("k{number}"));
        hold(rig.node(2), ops.value(1)).await;
        let mut read = ops.read(&rig);
        // The digest, and what the others have.
        read.ask().await;
        read.ask().await;
        for index in [0, 1] {
            hold(rig.node(index), ops.part(2)).await;
        }
        hold(rig.node(2), ops.value(3)).await;
        let seen = read.end().await;
        assert!(seen == ["v1"] || seen == ["v1", "p2v3"], "{seen:?}");
        let next = list(rig.node(2), &ops.name, Consistency::Quorum).await.unwrap();
        assert_eq!(next, ["v1", "p2v3"]);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_was_brought_something_shows_what_is_no_later_than_that() {
    let rig = Rig::new(3).await;
    for number in 0..KEYS {
        let ops = Ops::of(format!("k{number}"));
        hold(rig.node(2), ops.value(2)).await;
        for index in [0, 1] {
            hold(rig.node(index), ops.value(3)).await;
        }
        let mut read = ops.read(&rig);
        read.ask().await;
        read.ask().await;
        while read.list.is_none() && ops.most_at(&rig, [0, 1]).await < 2 {
            read.go_on().await;
            sleep(Duration::from_millis(1)).await;
        }
        // They are alike. Once more what the others have, and then it goes on.
        wait_answered(&read.peers).await;
        read.ask().await;
        for index in [0, 1] {
            hold(rig.node(index), ops.part(4)).await;
        }
        for op in [ops.value(5), ops.value(1)] {
            hold(rig.node(2), op).await;
        }
        let seen = read.end().await;
        let as_far_as_known = [vec!["v2", "v3"], vec!["v1", "v2", "v3"], vec!["v1", "v2", "v3", "p4v5"]];
        assert!(as_far_as_known.iter().any(|list| seen == *list), "{seen:?}");
        let next = list(rig.node(2), &ops.name, Consistency::Quorum).await.unwrap();
        assert_eq!(next, ["v1", "v2", "v3", "p4v5"]);
    }
    rig.end().await;
}

impl Rig {
    /// The nodes 0 and 1, first the one of them that asks node 2 before the other one.
    pub(super) fn asks_last_first(&self) -> [usize; 2] {
        let id = |index: usize| self.node(index).local().life().node;
        let asks = |index: usize| {
            let inner = &self.node(index).cluster().unwrap().inner;
            inner.up_peers(&[id(0), id(1), id(2)])[0].node() == id(2)
        };
        if asks(0) { [0, 1] } else { [1, 0] }
    }
}

fn read_repairs(node: &Node) -> u64 {
    let counters = &node.cluster().unwrap().inner.counters;
    counters.read_repairs.load(Ordering::Relaxed)
}

/// Keys that two nodes hold and the third lacks are read, counted and listed. Gives how many repairs that took.
async fn repairs_of_reads(rig: &Rig, prefix: &str) -> u64 {
    let names: Vec<String> = (0..20).map(|number| format!("{prefix}{number}")).collect();
    for name in &names {
        let op = Ops::of(name.clone()).value(1);
        for index in [0, 1] {
            hold(rig.node(index), op.clone()).await;
        }
    }
    let repairs = || rig.running().take(2).map(read_repairs).sum::<u64>();
    let before = repairs();
    let [reader, _] = rig.asks_last_first();
    let node = rig.node(reader);
    let seen = list(node, &names[0], Consistency::Quorum).await.unwrap();
    assert_eq!(seen, ["v1"]);
    let count = node.count(&user(), &key(&names[0]), Terms::usual()).await;
    assert_eq!(count, Ok(1));
    // Whoever lists them, and whoever of the others is heard in time.
    for node in rig.running() {
        for _ in 0..3 {
            let listed = node
                .list_keys(&user(), prefix, None, 100, Terms::usual())
                .await
                .unwrap();
            assert_eq!(listed.keys.len(), names.len());
        }
    }
    let there = rig.node(2).local().count(&user(), &key(&names[0])).await.unwrap();
    repairs() - before + there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_is_brought_nothing_while_others_hold_the_same() {
    let rig = Rig::new(3).await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    // On a busy machine one that holds the same may not answer in time.
    for round in 0..10 {
        if repairs_of_reads(&rig, &format!("{round} ")).await == 0 {
            return rig.end().await;
        }
    }
    panic!("every round took repairs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_another_node_reads_begins_where_it_was_asked_to() {
    let rig = Rig::new(4).await;
    let me = rig.node(3).local().life().node;
    let layout = rig.node(3).cluster().unwrap().inner.layout();
    let is_elsewhere = |name: &String| {
        let (slot, _) = crate::node::replica::place_of(&user(), &key(name));
        !layout.placement.replicas(slot).contains(&me)
    };
    let name = (0..).map(|number| format!("k{number}")).find(is_elsewhere).unwrap();
    for number in 0..6 {
        add(rig.node(0), &name, &format!("v{number}")).await.unwrap();
    }
    for (offset, limit, expected) in [
        (0, 2, vec!["v0", "v1"]),
        (2, 2, vec!["v2", "v3"]),
        (5, 9, vec!["v5"]),
        (6, 1, vec![]),
    ] {
        let mut page = rig
            .node(3)
            .get(&user(), &key(&name), offset, limit, Terms::usual())
            .await
            .unwrap();
        assert_eq!(rest_of(&mut page).await.unwrap(), expected);
    }
    rig.end().await;
}

/// Nodes list different keys then, and together more than a page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_keys_that_different_nodes_hold_leave_none_out() {
    let rig = Rig::new(5).await;
    let mut names: Vec<Key> = (0..60).map(|number| key(&format!("k{number}"))).collect();
    for (number, name) in names.iter().enumerate() {
        add(rig.node(number % 5), name.as_str(), "v").await.unwrap();
    }
    names.sort();
    for node in rig.running().take(2) {
        let (mut listed, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = node
                .list_keys(&user(), "", after.as_deref(), 7, Terms::usual())
                .await
                .unwrap();
            assert!(page.keys.len() <= 7);
            listed.extend(page.keys);
            after = page.next_after.map(|key| key.as_str().to_owned());
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, names);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_of_a_long_list_that_is_lacking_here_take_it_once() {
    const VALUES: u64 = 4;
    const BYTES: usize = 64 << 10;
    let rig = Rig::new(3).await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    let node = rig.node(2);
    let counters = &node.cluster().unwrap().inner.counters;
    let taken = || counters.taken_bytes.load(Ordering::Relaxed);
    // Who is answered by another node, since it takes long, leaves it to the next one.
    for round in 0..10 {
        let name = format!("k{round}");
        let (ops, before) = (Ops::of(name.clone()), taken());
        let text = |place: u64| format!("{place} {}", "x".repeat(BYTES));
        for place in 1..=VALUES {
            for index in [0, 1] {
                hold(rig.node(index), ops.op(place, Body::Value(text(place).into()))).await;
            }
        }
        let reads = (0..10).map(|_| list(node, &name, Consistency::Quorum));
        for read in futures_util::future::join_all(reads).await {
            assert_eq!(read.unwrap().len() as u64, VALUES);
        }
        if taken() - before < 5 * VALUES * BYTES as u64 {
            return rig.end().await;
        }
    }
    panic!("each reader takes it");
}
