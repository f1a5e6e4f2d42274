//! Tries of one request through nodes whose clocks are hours apart.

use crate::node::cluster::coordinator::Try;
use crate::node::cluster::tests::*;
use crate::node::local::Wanted;
use crate::node::replica::place_of;
use crate::shard::WriteKind;

const HOURS_MS: u64 = 2 * 60 * 60 * 1000;

/// The first try is durable on its own node alone, which goes then. The second one is acknowledged and cleared before it is back.
async fn a_first_try_comes_after_the_clear(ahead_ms: [u64; 3]) {
    let mut rig = Rig::with_clocks(ahead_ms.to_vec()).await;
    let inner = |rig: &Rig, index: usize| rig.node(index).cluster().unwrap().inner.clone();
    let (user, key, id) = (user(), key("k"), RequestId([7; 16]));
    for index in [1, 2] {
        stop_task(rig.node(index), SYNC).await;
    }
    let wanted = Wanted {
        user: &user,
        key: &key,
        kind: WriteKind::Add {
            text: "v".into(),
            finish: true,
        },
        request_id: Some(id),
    };
    let first = inner(&rig, 0);
    let nodes: Vec<NodeId> = rig.running().map(|node| node.local().life().node).collect();
    let (peers, slot) = (first.up_peers(&nodes), place_of(&user, &key).0);
    let asked = first.ask(&peers, slot, &wanted, Try::Any, 2).await.unwrap();
    assert!(asked.held.is_none());
    let taken = first.local.write(wanted, asked.context).await;
    assert_eq!(taken.unwrap(), Added::Appended);
    drop((first, peers));
    rig.stop(0).await;
    let again = rig.node(1).add(&user, &key, "v".into(), true, Some(id), Terms::usual());
    assert_eq!(again.await.unwrap(), Added::Appended);
    assert_eq!(list(rig.node(2), "k", Consistency::Quorum).await.unwrap(), ["v"]);
    rig.node(1).clear(&user, &key, None, Terms::usual()).await.unwrap();
    rig.start(0).await;
    for index in [1, 2] {
        let inner = inner(&rig, index);
        inner.tasks.lock()[SYNC] = tokio::spawn(catch_up::sync::run(inner.clone()));
    }
    rig.wait("all are members", is_member).await;
    rig.wait_linked().await;
    rig.wait_equal().await;
    for node in rig.running() {
        let shown = list(node, "k", Consistency::One).await.unwrap();
        assert!(shown.is_empty(), "a cleared value is back: {shown:?}");
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_try_by_a_clock_that_is_hours_ahead_does_not_come_back_after_the_clear() {
    a_first_try_comes_after_the_clear([HOURS_MS, 0, 0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_it_where_the_second_one_was_by_a_clock_that_is_hours_behind() {
    a_first_try_comes_after_the_clear([HOURS_MS, 0, HOURS_MS]).await;
}
