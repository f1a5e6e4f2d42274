//! Ops that nobody holds any more, and those that only look so.

use crate::core::clock::Clock;
use crate::core::op::{Body, Dot, KeyedOp, Op};
use crate::core::stamp::{HybridTime, OriginId};
use crate::node::cluster::tests::*;
use crate::node::replica::place_of;
use crate::wire::{Response, WireOp};

/// Of a node that is no more.
const GONE: OriginId = OriginId(99);

fn slot() -> SlotId {
    place_of(&user(), &key("k")).0
}

fn dots(last: u64) -> Clock {
    let mut dots = Clock::default();
    dots.insert_range(GONE, 1, last);
    dots
}

/// Its op with this sequence.
fn op(seq: u64, body: Body) -> KeyedOp {
    KeyedOp {
        user: user(),
        key: key("k"),
        op: Op {
            dot: Dot {
                origin: GONE,
                slot: slot(),
                seq,
            },
            time: HybridTime(seq << 20),
            request_id: None,
            body,
        },
    }
}

fn covers(node: &Node, seq: u64) -> bool {
    node.local().clock(slot()).unwrap().contains(GONE, seq)
}

/// The nodes in the order in which one of them asks the others.
fn in_order(rig: &Rig) -> [&Node; 3] {
    let mut nodes: Vec<&Node> = rig.running().collect();
    let layout = inner(nodes[0]).layout();
    let replicas = layout.placement.replicas(slot());
    nodes.sort_by_key(|node| replicas.iter().position(|replica| *replica == inner(node).me));
    nodes.try_into().ok().unwrap()
}

/// What a node answers when another one sends it the op.
async fn send(from: &Node, to: &Node, seq: u64) -> Response {
    let late = WireOp::of(&op(seq, Body::Value("late".into())));
    inner(to).answer_append(inner(from).me, vec![late]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_that_saw_what_only_a_lost_disk_held_goes_in_the_end() {
    let rig = Rig::new(3).await;
    for node in rig.running() {
        node.local().apply(vec![op(3, Body::Clear(dots(2)))]).await.unwrap();
    }
    rig.wait("what it saw is given up", |node| covers(node, 1) && covers(node, 2))
        .await;
    rig.wait("the clear is collected", |node| {
        node.local().collected(slot()).unwrap().covers(&dots(3))
    })
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_still_be_on_its_way_is_not_given_up_and_after_the_promise_nobody_takes_it() {
    let rig = Rig::new(3).await;
    // Members sit in the order in which they came, and whoever is asked behind one that does not promise is not asked.
    let [first, taker, last] = in_order(&rig);
    let giver = inner(first);
    // It may have got the op from the one that is gone, and be about to send it.
    let at_work = inner(last).at_work.begin();
    assert!(giver.give_up(slot(), dots(1)).await.is_err());
    assert!(!rig.running().any(|node| covers(node, 1)));
    assert!(
        matches!(send(first, taker, 1).await, Response::Failed(_)),
        "it would be acknowledged and then be given up"
    );
    assert!(!covers(taker, 1));
    assert!(
        matches!(send(first, taker, 2).await, Response::Done),
        "this one nobody gives up"
    );
    let restarts = || {
        taker
            .local()
            .figures()
            .iter()
            .map(|figures| figures.restarts)
            .sum::<u64>()
    };
    let before = restarts();
    taker.local().kill_shard_of(&user(), &key("k"));
    until("it was killed", || restarts() > before).await;
    rig.wait("its shard is opened anew", |node| node.is_ready()).await;
    assert!(
        matches!(send(first, taker, 1).await, Response::Failed(_)),
        "it stays promised"
    );
    drop(at_work);
    giver.give_up(slot(), dots(1)).await.unwrap();
    rig.wait("it is given up", |node| covers(node, 1)).await;
    assert!(
        matches!(send(first, taker, 1).await, Response::Failed(_)),
        "what is not held is not acknowledged"
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_holds_is_not_given_up_and_comes_to_those_who_promised() {
    let rig = Rig::new(3).await;
    let giver = inner(rig.node(0));
    for node in [rig.node(0), rig.node(1)] {
        let promised = node.local().refuse(slot(), &dots(1)).await.unwrap();
        assert_eq!(promised, dots(1));
    }
    // It came there right before it was asked.
    let held = op(1, Body::Value("v".into()));
    rig.node(2).local().apply(vec![held]).await.unwrap();
    let promised = rig.node(2).local().refuse(slot(), &dots(2)).await.unwrap();
    assert_eq!(promised, dots(2).minus(&dots(1)));
    giver.give_up(slot(), dots(1)).await.unwrap();
    rig.wait("all have it", |node| covers(node, 1)).await;
    for node in rig.running() {
        assert_eq!(list(node, "k", Consistency::One).await.unwrap(), ["v"]);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_a_member_that_is_no_replica_is_not_acknowledged() {
    let rig = Rig::new(4).await;
    let layout = inner(rig.node(0)).layout();
    let is_replica = |node: &&Node| layout.placement.replicas(slot()).contains(&inner(node).me);
    let (replicas, others): (Vec<&Node>, Vec<&Node>) = rig.running().partition(is_replica);
    assert!(matches!(send(replicas[0], replicas[1], 1).await, Response::Done));
    assert!(matches!(send(others[0], replicas[1], 2).await, Response::Failed(_)));
    rig.end().await;
}
