//! Clears that a peer has, or has collected by now: what they removed is dropped here too.

use super::copying::slot_of;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Body, Dot};
use crate::node::cluster::coordinator::Came;
use crate::node::cluster::tests::*;
use crate::wire::{Response, WireOp};

impl Rig {
    /// "k" was cleared by a clear with a request id, which all replicas hold and none may collect; node 2 is rolled back to before it.
    async fn with_a_missed_clear() -> Self {
        let mut rig = Self::new(3).await;
        add(rig.node(0), "k", "old").await.unwrap();
        rig.wait_equal().await;
        let before = rig.back_up(2).await;
        for index in 0..2 {
            stop_task(rig.node(index), SYNC).await;
        }
        let clear = RequestId::new("clear").unwrap();
        let name = (user(), key("k"));
        let cleared = rig.node(0).clear(&name.0, &name.1, Some(clear), Terms::usual());
        cleared.await.unwrap();
        rig.wait_equal().await;
        rig.set_back(2, before).await;
        assert_eq!(count_at(rig.node(2), "k").await, 1);
        assert!(rig.node(0).local().collected(slot_of("k")).unwrap().is_empty());
        rig
    }

    /// The first node collects the clear, of which the request id is left.
    async fn collect(&self) {
        let local = self.node(0).local();
        local.set_stable(&local.clocks(), None);
        until("it is collected", || !local.collected(slot_of("k")).unwrap().is_empty()).await;
        assert!(!local.held_dots(slot_of("k")).await.unwrap().spent.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_have_missed_clears_removes_what_a_peer_has_dropped_whoever_collected_them() {
    let rig = Rig::with_a_missed_clear().await;
    let node = inner(rig.node(2));
    let slots = [slot_of("k")];
    let compared = node.compare_clocks(&rig.peer(2, 0), &slots, None).await.unwrap();
    assert!(!compared.lacking.is_empty());
    assert_eq!(
        count_at(rig.node(2), "k").await,
        0,
        "the peer does not hold it any more"
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_that_is_collected_between_comparing_and_copying_is_not_missed() {
    let rig = Rig::with_a_missed_clear().await;
    let (node, peer, slot) = (inner(rig.node(2)), rig.peer(2, 0), slot_of("k"));
    // As if it had compared with this peer before that one took the clear.
    let nothing = Clock::default;
    let as_of = node.clocks.damages();
    node.clocks
        .note_reconciled(peer.node(), slot, nothing(), nothing(), as_of);
    let compared = node.compare_clocks(&peer, &[slot], None).await.unwrap();
    assert_eq!(count_at(rig.node(2), "k").await, 1);
    rig.collect().await;

    // What is left of the clear is not taken from who retries it, or repairs the key.
    let mut export = rig.node(0).local().export(&compared.lacking).unwrap();
    let spent = export.next(1 << 20).await.unwrap().unwrap();
    assert!(matches!(spent[..], [ref op] if matches!(op.op.body, Body::Spent { .. })));
    let spent = || spent.iter().map(WireOp::of).collect();
    let append = || node.answer_append(peer.node(), spent());
    assert!(matches!(append().await, Response::Failed(_)));
    assert!(node.take_ops(spent(), Came::Otherwise).await.is_err());

    let covered = node.pull(&peer, &compared.lacking, &compared.mine).await.unwrap();
    assert!(covered.get(slot).unwrap().covers(compared.lacking.get(slot).unwrap()));
    assert_eq!(count_at(rig.node(2), "k").await, 0);
    // What the rounds would have shown, which do not run here.
    (0..2).for_each(|index| node.named.note(id(rig.node(index))));
    assert!(matches!(append().await, Response::Done), "it is known by now");
    rig.end().await;
}

/// Of a clear that never got a quorum only the first node has it, and then that one is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_has_cleared_counts_as_dropped_only_with_the_clear() {
    let mut rig = Rig::new(3).await;
    let (node, peer) = (inner(rig.node(1)), rig.peer(1, 0));
    let mut names = Vec::new();
    for id in [None, Some(RequestId([7; 16]))] {
        let ops = Ops::of(format!("k{}", names.len()));
        let mut value = ops.value(1);
        value.op.request_id = id;
        let dot = value.op.dot;
        let mut seen = Clock::default();
        seen.insert(dot.origin, dot.seq);
        let clear = ops.op(2, Body::Clear(seen));
        let cleared_by = clear.op.dot;
        let mut wants = SlotClocks::default();
        wants.insert(dot.slot, dot.origin, dot.seq);
        let before = rig.node(1).local().clocks();
        hold(rig.node(2), value.clone()).await;
        hold(rig.node(0), value).await;
        hold(rig.node(0), clear).await;
        let covered = node.pull(&peer, &wants, &before).await.unwrap();
        assert_eq!(covered, wants);
        let known = |dot: Dot| node.local.clock(dot.slot).unwrap().contains(dot.origin, dot.seq);
        until("it counts as dropped", || known(dot)).await;
        assert!(known(cleared_by), "it is dropped here, and nobody can be told why");
        names.push(ops.name);
    }
    rig.stop(0).await;
    for name in names {
        for index in 1..3 {
            let seen = list(rig.node(index), &name, Consistency::Quorum).await.unwrap();
            assert!(seen.is_empty(), "{seen:?} at {index}");
        }
    }
    rig.end().await;
}

/// Of a clear that never got a quorum only the first node has it; a request that it removed is retried, and then that node is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_of_what_was_cleared_spreads_the_clear_too() {
    let mut rig = Rig::new(3).await;
    stop_task(rig.node(1), SYNC).await;
    let ops = Ops::of("k".to_owned());
    let mut value = ops.value(1);
    let id = RequestId([7; 16]);
    value.op.request_id = Some(id);
    let mut seen = Clock::default();
    seen.insert(value.op.dot.origin, value.op.dot.seq);
    hold(rig.node(2), value.clone()).await;
    rig.stop(2).await;
    hold(rig.node(0), value).await;
    hold(rig.node(0), ops.op(2, Body::Clear(seen))).await;
    let (user, key) = (user(), key("k"));
    let retried = rig
        .node(1)
        .add(&user, &key, "v1".into(), true, Some(id), Terms::usual());
    assert!(matches!(retried.await, Ok(Added::Repeated)));
    rig.stop(0).await;
    rig.start(2).await;
    rig.wait("both vote", |node| node.cluster().unwrap().inner.votes(slot_of("k")))
        .await;
    rig.wait_linked().await;
    for index in 1..3 {
        let seen = list(rig.node(index), "k", Consistency::Quorum).await.unwrap();
        assert!(seen.is_empty(), "{seen:?} at {index}");
    }
    rig.end().await;
}
