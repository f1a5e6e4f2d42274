//! Members that do not know yet who took a seat, and one that lost its table.

use crate::node::cluster::tests::*;
use crate::node::replica::place_of;
use crate::store::memory_disk::Holding;
use crate::wire::{Response, WireError, WireOp};

/// What does not come by then is not acknowledged.
const SOON: Duration = Duration::from_secs(1);

fn id(node: &Node) -> NodeId {
    node.local().life().node
}

fn slot() -> SlotId {
    place_of(&user(), &key("k")).0
}

/// So many members, all of which hold everything; of which the second is lost, and the last one, which is new, has its seat. One of them does not know
/// that. The first one's disk can be held.
async fn one_does_not_know(members: usize, unaware: usize) -> (Rig, MemoryDisk) {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        replication: members,
        ..Rig::unstarted(members)
    };
    let mut rig = rig.started().await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.wait_equal().await;
    rig.make_room();
    rig.start(members).await;
    let (old, new) = (id(rig.node(1)), id(rig.node(members)));
    rig.stop(1).await;
    stop_looking(rig.node(unaware)).await;
    let replace = MemberChange::Replace { old, new };
    let end = Instant::now() + PATIENCE;
    while let Err(refused) = change(rig.node(2), replace).await {
        assert!(Instant::now() < end, "{refused}");
        sleep(Duration::from_millis(50)).await;
    }
    let is_up = |index: usize| inner(rig.node(index)).layout().table.is_up(new);
    let others = || (0..=members).filter(|index| ![1, unaware].contains(index));
    until("all others know", || others().all(is_up)).await;
    let is_there = |index: usize, peer: usize| {
        let peer = id(rig.node(peer));
        inner(rig.node(index)).up_peers(&[peer]).len() == 1
    };
    let all_meet = || others().all(|index| others().all(|peer| index == peer || is_there(index, peer)));
    until("they have met", all_meet).await;
    assert!(!is_up(unaware));
    (rig, disk)
}

fn hold_first(disk: &MemoryDisk) -> Holding {
    disk.hold_syncs("shard-")
}

/// Through this node, whether it is acknowledged soon.
async fn is_added(node: &Node, text: &str) -> Result<Added, OpError> {
    let terms = Terms {
        deadline: Instant::now() + SOON,
        ..Terms::usual()
    };
    node.add(&user(), &key("k"), text.into(), true, None, terms).await
}

async fn append(rig: &Rig, from: usize, to: usize, place: u64) -> Response {
    let ops = vec![WireOp::of(&Ops::of("k".to_owned()).value(place))];
    inner(rig.node(to)).answer_append(id(rig.node(from)), ops).await
}

/// Started anew, it was let in by one that does not know yet who took its seat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_still_copies_makes_no_quorum_by_a_table_that_lacks_who_was_met() {
    let rig = Rig::new(1).await;
    let node = inner(rig.node(0));
    let (loyal, old, new) = (NodeId(7), NodeId(8), NodeId(9));
    let record = |node: NodeId, seat: u32, replaces: Option<NodeId>| {
        let mut record = inner(rig.node(0)).own_record(seat, 3);
        record.node = node.to_string();
        record.replaces = replaces.map(|old| old.to_string());
        if seat > 0 {
            record.peer = free_port();
        }
        serde_json::to_string(&record).unwrap()
    };
    let mut records = vec![record(node.me, 0, None), record(loyal, 1, None), record(old, 2, None)];
    node.take_told_table(MemberTable::of(&records));
    node.clocks.set_new();
    [loyal, old].into_iter().for_each(|peer| node.named.note(peer));
    assert!(node.counts(slot()));
    let met = node.meet((new, 1), 1, 100).await;
    assert!(matches!(met, Response::Done), "{met:?}");
    assert!(!node.counts(slot()), "the new one may make a quorum with the other one");
    records.push(record(new, 2, Some(old)));
    node.take_told_table(MemberTable::of(&records));
    assert!(!node.counts(slot()), "the new one does not know of it");
    node.named.note(new);
    assert!(node.counts(slot()));
    rig.end().await;
}

/// The one that does not know would make a quorum with the one that was replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_took_a_seat_makes_no_quorum_before_all_others_know() {
    let (rig, disk) = one_does_not_know(3, 0).await;
    let told = append(&rig, 2, 3, 1).await;
    let is_in_doubt =
        |told: &Response| matches!(told, Response::Failed(WireError::Unavailable { maybe_applied: true }));
    assert!(is_in_doubt(&told), "{told:?}");
    let holding = hold_first(&disk);
    let added = is_added(rig.node(2), "lost").await;
    assert!(added.is_err(), "{added:?}");
    drop(holding);
    // With those two who know each other it goes on.
    let end = Instant::now() + PATIENCE;
    while let Err(error) = is_added(rig.node(2), "w").await {
        assert!(Instant::now() < end, "{error}");
    }

    inner(rig.node(0)).load_table().await.unwrap();
    until("it counts", || inner(rig.node(3)).counts(slot())).await;
    assert!(matches!(append(&rig, 2, 3, 2).await, Response::Done));
    let holding = hold_first(&disk);
    add(rig.node(2), "k", "x").await.unwrap();
    drop(holding);
    rig.wait("all count", |node| inner(node).votes(slot())).await;
    rig.end().await;
}

/// Its own disk is one of a quorum as little as if it were asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_took_a_seat_does_not_count_itself_before_all_others_know() {
    let (rig, disk) = one_does_not_know(5, 4).await;
    let holding = hold_first(&disk);
    let added = is_added(rig.node(5), "lost").await;
    assert!(added.is_err(), "{added:?}");
    drop(holding);
    let end = Instant::now() + PATIENCE;
    while let Err(error) = is_added(rig.node(5), "w").await {
        assert!(Instant::now() < end, "{error}");
    }
    inner(rig.node(4)).load_table().await.unwrap();
    until("it counts", || inner(rig.node(5)).counts(slot())).await;
    let holding = hold_first(&disk);
    add(rig.node(5), "k", "x").await.unwrap();
    drop(holding);
    rig.end().await;
}
