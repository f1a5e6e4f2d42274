//! What a node lacks of its peers while they are written, and whose link is a new one.

use crate::core::clock::SlotClocks;
use crate::node::cluster::tests::*;
use crate::node::replica::place_of;

fn slot() -> SlotId {
    place_of(&user(), &key("k")).0
}

/// Nothing that lies at the first one comes to the other by itself, which has not copied the slot since that was damaged.
async fn behind_one(damaged: bool) -> (Rig, Peer) {
    let rig = Rig::new(2).await;
    for index in 0..2 {
        stop_task(rig.node(index), SYNC).await;
    }
    let clocks = &inner(rig.node(1)).clocks;
    let mut lost = SlotClocks::default();
    lost.insert(slot(), crate::core::stamp::OriginId(7), 1);
    match damaged {
        true => clocks.note_damaged(&lost),
        false => clocks.set_new(),
    }
    let peer = inner(rig.node(1)).peers.get(id(rig.node(0))).unwrap();
    (rig, peer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_in_which_something_is_always_on_its_way_counts_as_copied() {
    for damaged in [false, true] {
        let (rig, peer) = behind_one(damaged).await;
        let (node, ops) = (inner(rig.node(1)), Ops::of("k".to_owned()));
        let counts = || node.clocks.has_all_of(slot(), [peer.node()]);
        for number in 1..=3 {
            hold(rig.node(0), ops.value(number)).await;
            node.round(&peer, number == 1 && !damaged).await.unwrap();
            // Sent right before they compared, and come right after.
            hold(rig.node(1), ops.value(number)).await;
        }
        assert!(counts());
        rig.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_from_others_counts_while_a_peer_is_asked_for_it() {
    let (rig, peer) = behind_one(true).await;
    let (node, ops) = (inner(rig.node(1)), Ops::of("k".to_owned()));
    let counts = || node.clocks.has_all_of(slot(), [peer.node()]);
    for number in 1..=2 {
        hold(rig.node(0), ops.value(number)).await;
    }
    node.round(&peer, false).await.unwrap();
    node.look_after_slots().await;
    assert!(!counts());
    hold(rig.node(1), ops.value(1)).await;
    node.look_after_slots().await;
    assert!(!counts(), "only a part of it");
    // What the peer took since they compared is of no account.
    hold(rig.node(0), ops.value(3)).await;
    hold(rig.node(1), ops.value(2)).await;
    node.look_after_slots().await;
    assert!(counts());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_left_the_table_and_came_back_at_once_is_asked_again() {
    let rig = Rig::new(2).await;
    let (peers, other) = (&inner(rig.node(0)).peers, id(rig.node(1)));
    let former = peers.get(other).unwrap();
    peers.set_members(&Default::default());
    peers.set_members(&[(other, rig.addresses[1])].into());
    assert!(!peers.get(other).unwrap().is_same(&former));
    hold(rig.node(1), Ops::of("k".to_owned()).value(1)).await;
    let is_here = || rig.node(0).local().clock(slot()).is_ok_and(|clock| !clock.is_empty());
    until("it has come", is_here).await;
    rig.end().await;
}
