//! Reads at quorum while the key is written.

use std::pin::Pin;
use std::task::Poll;

use super::readers::wait_answered;
use super::*;
use crate::core::op::{Body, Dot, KeyedOp, Op};
use crate::core::stamp::{HybridTime, OriginId};
use crate::env::WallClock;

/// Keys, so that one that the members made equal meanwhile is not all there is.
const KEYS: usize = 4;

/// Ops of one key, which are held where and when the test wants it.
pub(super) struct Ops {
    pub(super) name: String,
    start: HybridTime,
}

impl Ops {
    pub(super) fn of(name: String) -> Self {
        let start = HybridTime::from_wall(crate::os::SystemClock.now());
        Self { name, start }
    }

    /// The one with this place in the order of all.
    pub(super) fn op(&self, place: u64, body: Body) -> KeyedOp {
        let (slot, _) = crate::node::replica::place_of(&user(), &key(&self.name));
        KeyedOp {
            user: user(),
            key: key(&self.name),
            op: Op {
                dot: Dot {
                    origin: OriginId(1000 + place),
                    slot,
                    seq: 1,
                },
                time: HybridTime(self.start.0 + place),
                request_id: None,
                body,
            },
        }
    }

    pub(super) fn value(&self, place: u64) -> KeyedOp {
        self.op(place, Body::Value(format!("v{place}").into()))
    }

    pub(super) fn part(&self, place: u64) -> KeyedOp {
        self.op(place, Body::Part(format!("p{place}").into()))
    }

    /// How many values one of these nodes has of the key, the one that has most.
    async fn most_at(&self, rig: &Rig, nodes: [usize; 2]) -> u64 {
        let mut most = 0;
        for index in nodes {
            let count = rig.node(index).local().count(&user(), &key(&self.name)).await;
            most = most.max(count.unwrap());
        }
        most
    }

    /// At node 2, step by step.
    fn read<'a>(&'a self, rig: &'a Rig) -> Read<'a> {
        let node = rig.node(2);
        Read {
            peers: node.cluster().unwrap().inner.peers.all(),
            reading: Box::pin(async move { list(node, &self.name, Consistency::Quorum).await.unwrap() }),
            list: None,
        }
    }
}

pub(super) async fn hold(node: &Node, op: KeyedOp) {
    node.local().apply(vec![op]).await.unwrap();
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
