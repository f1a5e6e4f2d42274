//! Clears at quorum while the key is written. On one thread: nobody answers while a request is being sent.

use crate::core::clock::Clock;
use crate::core::op::{Body, KeyedOp};
use crate::node::cluster::tests::*;

const ROUNDS: usize = 3;

/// A clear at the first node that has been asked for, and what those say that are asked for it first.
struct Asked<'a> {
    clearing: std::pin::Pin<Box<dyn Future<Output = Result<(), OpError>> + 'a>>,
    /// Of the nodes: who was asked, and who was not.
    asked: Vec<usize>,
    unasked: Vec<usize>,
}

impl<'a> Asked<'a> {
    /// With `stray` held only by the one that is asked first. None where that came here before the clear was asked for.
    async fn begin(
        rig: &'a Rig,
        key: &'a Key,
        user: &'a UserId,
        id: Option<RequestId>,
        stray: KeyedOp,
    ) -> Option<Self> {
        let nodes: Vec<NodeId> = rig.running().map(|node| node.local().life().node).collect();
        let inner = &rig.node(0).cluster().unwrap().inner;
        let peers = inner.up_peers(&nodes);
        let order = peers.iter().map(Peer::node);
        let order = order.map(|peer| nodes.iter().position(|node| *node == peer).unwrap());
        let order: Vec<usize> = order.collect();
        let (asked, unasked) = order.split_at(nodes.len() / 2);
        let dot = stray.op.dot;
        hold(rig.node(asked[0]), stray).await;
        let clear = rig.node(0).clear(user, key, id, patient());
        let mut clearing: std::pin::Pin<Box<dyn Future<Output = _> + 'a>> = Box::pin(clear);
        assert!(futures_util::poll!(&mut clearing).is_pending());
        let came = inner.local.clock(dot.slot).unwrap().contains(dot.origin, dot.seq);
        wait_answered(&peers).await;
        (!came).then(|| Self {
            clearing,
            asked: asked.to_vec(),
            unasked: unasked.to_vec(),
        })
    }
}

/// Until the clear was asked for in time in [`ROUNDS`] rounds, each of which says whether it was.
async fn rounds(round: impl AsyncFn(u8) -> bool) {
    let mut left = ROUNDS;
    for number in 0.. {
        left -= usize::from(round(number).await);
        if left == 0 {
            return;
        }
    }
}

/// The clear ends, one more value is added, and then all nodes list only this.
async fn ends_with(rig: &Rig, clear: Asked<'_>, name: &str, expected: &str, why: &str) {
    clear.clearing.await.unwrap();
    add(rig.node(0), name, "next").await.unwrap();
    rig.wait_equal().await;
    for node in rig.running() {
        let seen = list(node, name, Consistency::Quorum).await.unwrap();
        assert_eq!(seen, [expected], "{why}");
    }
}

/// The way of the part to the one that has the value is broken.
async fn part_goes_with_its_value(replicas: usize) {
    let rig = Rig {
        replication: replicas,
        ..Rig::unstarted(replicas)
    };
    let rig = rig.started().await;
    rounds(async |number| {
        let ops = Ops::of(format!("k{number}"));
        let (user, key) = (user(), key(&ops.name));
        let Some(clear) = Asked::begin(&rig, &key, &user, None, ops.value(3)).await else {
            return false;
        };
        // A quorum, as small as it can be, without the one that was asked first.
        let mut holders = [&clear.unasked, &clear.asked[1..]].concat();
        if holders.len() < replicas / 2 + 1 {
            holders.push(0);
        }
        for index in holders {
            hold(rig.node(index), ops.part(2)).await;
        }
        ends_with(&rig, clear, &ops.name, "next", "a part of what was cleared").await;
        true
    })
    .await;
    rig.end().await;
}

#[tokio::test]
async fn with_a_value_all_parts_are_cleared_that_were_acknowledged_before_it() {
    part_goes_with_its_value(3).await;
}

/// Here the part may be at a quorum and not at the coordinator.
#[tokio::test]
async fn with_a_value_all_parts_are_cleared_though_they_are_only_elsewhere() {
    part_goes_with_its_value(5).await;
}

#[tokio::test]
async fn a_part_that_came_after_another_try_of_the_clear_stays() {
    let rig = Rig::new(3).await;
    rounds(async |number| {
        let ops = Ops::of(format!("k{number}"));
        let (user, key) = (user(), key(&ops.name));
        let id = RequestId([number; 16]);
        // Nobody acknowledged it, and its stamp is higher than all that others know.
        let stray = ops.value(9);
        let mut removed = Clock::default();
        removed.insert(stray.op.dot.origin, stray.op.dot.seq);
        let Some(clear) = Asked::begin(&rig, &key, &user, Some(id), stray).await else {
            return false;
        };
        let mut done = ops.op(2, Body::Clear(removed));
        done.op.request_id = Some(id);
        for index in [clear.asked[0], clear.unasked[0]] {
            hold(rig.node(index), done.clone()).await;
        }
        for index in [0, clear.unasked[0]] {
            hold(rig.node(index), ops.part(3)).await;
        }
        ends_with(
            &rig,
            clear,
            &ops.name,
            "p3next",
            "it was acknowledged after the clear was",
        )
        .await;
        true
    })
    .await;
    rig.end().await;
}

/// It asks as many others as if it were not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_through_a_node_without_a_vote_sees_what_a_quorum_of_the_others_holds() {
    let rig = Rig::new(3).await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    let ids: Vec<NodeId> = rig.running().map(|node| node.local().life().node).collect();
    let inner = &rig.node(2).cluster().unwrap().inner;
    // As one that lost its disk, and with that its copy of what only one of the others has.
    inner.clocks.set_new();
    let asked_last = inner.up_peers(&ids).last().unwrap().node();
    let holder = ids.iter().position(|id| *id == asked_last).unwrap();
    let ops = Ops::of("k".to_owned());
    hold(rig.node(holder), ops.value(1)).await;
    let name = (user(), key("k"));
    let cleared = rig.node(2).clear(&name.0, &name.1, None, Terms::usual());
    cleared.await.unwrap();
    assert!(!inner.votes(SlotId(1)), "it had none all the while");
    let seen = list(rig.node(holder), "k", Consistency::Quorum).await.unwrap();
    assert!(seen.is_empty(), "{seen:?}");
    rig.end().await;
}
