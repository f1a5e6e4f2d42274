//! Comparing with a peer while a shard does not open.

use crate::core::slot::SLOT_COUNT;
use crate::node::cluster::tests::*;
use crate::node::replica::place_of;

/// A key of the second of two shards.
fn name_of_second() -> String {
    let mut names = (0..).map(|number| number.to_string());
    let is_there = |name: &String| place_of(&user(), &key(name)).0.0 >= SLOT_COUNT / 2;
    names.find(is_there).unwrap()
}

/// Were it, the shard would be told when it opens that nothing is elsewhere that is not here, and forget request ids of which there are copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_peer_that_was_compared_with_while_a_shard_was_closed_not_all_was_heard() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(2)
    };
    let mut rig = rig.started().await;
    rig.wait_equal().await;
    rig.stop(0).await;
    let second = rig.dirs[0].path().join("data/shard-001-of-002");
    *disk.faults().bad_folder.lock() = Some(second);
    rig.start(0).await;
    // The rounds are made here.
    stop_task(rig.node(0), SYNC).await;
    let (node, other) = (inner(rig.node(0)), id(rig.node(1)));
    let is_up = || node.peers.get(other).is_some_and(|peer| peer.is_up());
    until("they are connected", is_up).await;
    let peer = node.peers.get(other).unwrap();
    let heard = || node.clocks.heard([other], &node.local.clocks(), node.env.wall.now());
    // With nothing in the slots that are closed, the others are the same; and with something.
    let op = Ops::of(name_of_second()).value(1);
    let slot = op.op.dot.slot;
    node.round(&peer, true).await.unwrap();
    assert_eq!(heard(), None);
    hold(rig.node(1), op).await;
    node.round(&peer, true).await.unwrap();
    assert_eq!(heard(), None);

    *disk.faults().bad_folder.lock() = None;
    until("it opens", || rig.node(0).local().is_ready()).await;
    // What is lacking may be on its way, and is not asked for yet.
    node.round(&peer, false).await.unwrap();
    assert!(node.local.clock(slot).unwrap().is_empty());
    assert_eq!(heard(), None);
    node.round(&peer, false).await.unwrap();
    assert!(!node.local.clock(slot).unwrap().is_empty());
    assert!(heard().is_some());
    rig.end().await;
}
