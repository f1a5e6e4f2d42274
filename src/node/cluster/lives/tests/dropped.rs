//! What a node takes for dropped, because a peer has dropped it.

use crate::core::clock::{Clock, SlotClocks};
use crate::core::fold::taken_anew_from;
use crate::core::op::Body;
use crate::core::stamp::HybridTime;
use crate::env::WallClock;
use crate::node::cluster::tests::*;

/// Among a member's tasks.
/// One member has collected a clear that another one still holds, and a new one was told by the first that it is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_new_node_told_as_dropped_is_known_to_its_next_life() {
    let mut rig = Rig::new(3).await;
    let inner = |rig: &Rig, index: usize| rig.node(index).cluster().unwrap().inner.clone();
    let new = inner(&rig, 2);
    // It does not copy the clear itself.
    let former = new.tasks.lock()[SYNC].abort_handle();
    former.abort();
    while !former.is_finished() {
        sleep(Duration::from_millis(5)).await;
    }
    new.clocks.set_new();
    new.local.set_new(0).await.unwrap();
    let ops = Ops::of("k".to_owned());
    // What it saw is not there, so nobody collects it.
    let never_seen = ops.value(1).op.dot;
    let mut seen = Clock::default();
    seen.insert(never_seen.origin, never_seen.seq);
    let clear = ops.op(2, Body::Clear(seen));
    let dot = clear.op.dot;
    let mut dots = SlotClocks::default();
    dots.insert(dot.slot, dot.origin, dot.seq);
    hold(rig.node(1), clear).await;
    new.local.know_dropped(&dots);
    new.tasks.lock()[SYNC] = tokio::spawn(catch_up::sync::run(new.clone()));
    let until = Instant::now() + PATIENCE;
    let has_told = || {
        let told = inner(&rig, 1).clocks.told(new.me, dot.slot);
        told.is_some_and(|told| told.contains(dot.origin, dot.seq))
    };
    while new.clocks.is_new() || !has_told() {
        assert!(Instant::now() < until, "not in time: its word counts, and it has told");
        sleep(Duration::from_millis(5)).await;
    }
    drop(new);
    rig.stop(2).await;
    rig.start(2).await;
    let started = inner(&rig, 2);
    let until = Instant::now() + PATIENCE;
    let all = started.layout().placement.nodes().to_vec();
    while !started.votes(SlotId(1)) || started.up_peers(&all).len() < 2 {
        assert!(!started.clocks.is_new(), "it passes for an older copy of itself");
        assert!(Instant::now() < until, "not in time: its word counts");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!started.clocks.is_new());
    rig.end().await;
}

/// It may have forgotten the request id of an op that it has dropped: whoever takes that anew has to stamp it later than what counts as a copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_what_a_peer_has_dropped_comes_its_time() {
    let rig = Rig::new(2).await;
    let dot = Ops::of("k".to_owned()).value(1).op.dot;
    let mut dots = SlotClocks::default();
    dots.insert(dot.slot, dot.origin, dot.seq);
    let time = taken_anew_from(HybridTime::from_wall(crate::os::SystemClock.now()));
    rig.node(0).local().come_after(dot.slot, time).unwrap();
    rig.node(0).local().know_dropped(&dots);
    let other = rig.node(1).local();
    let is_known = || other.clock(dot.slot).unwrap().contains(dot.origin, dot.seq);
    until("the other one takes it for dropped", is_known).await;
    assert!(other.highest_time(dot.slot).unwrap() >= time);
    rig.end().await;
}
