//! What is written while members come, where each slot has one replica.

use crate::node::cluster::tests::*;
use crate::node::replica::place_of;

async fn two_with_one_replica() -> Rig {
    let rig = Rig {
        replication: 1,
        ..Rig::unstarted(2)
    };
    rig.started().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_know_of_a_new_member_takes_no_data_for_it() {
    let mut rig = two_with_one_replica().await;
    stop_looking(rig.node(1)).await;
    let before = inner(rig.node(1)).layout();
    rig.make_room();
    rig.start(2).await;
    let until = Instant::now() + PATIENCE;
    let knows = |index: usize| inner(rig.node(index)).layout();
    while knows(0).table.up().count() < 3 {
        assert!(Instant::now() < until, "not in time: it is let in");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(Arc::ptr_eq(&before, &knows(1)));
    let (me, now) = (inner(rig.node(1)).me, knows(0));
    let moved = |name: &String| {
        let slot = place_of(&user(), &key(name)).0;
        before.placement.replicas(slot) == [me] && now.placement.replicas(slot) != [me]
    };
    let name = (0..).map(|number: u64| number.to_string()).find(moved).unwrap();
    let refused = add(rig.node(1), &name, "lost").await;
    assert!(matches!(refused, Err(OpError::NotReady(_))), "{refused:?}");
    look_again(rig.node(1));
    let until = Instant::now() + PATIENCE;
    while let Err(error) = add(rig.node(1), &name, "v").await {
        assert!(Instant::now() < until, "{error}");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(list(rig.node(2), &name, Consistency::Quorum).await.unwrap(), ["v"]);
    rig.end().await;
}

/// Its data is on the disk only when that has synced it, and its client may have heard by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_to_the_disk_counts_as_data() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        replication: 1,
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(1)
    };
    let rig = rig.started().await;
    let held = disk.hold_syncs("shard-");
    let node = rig.node(0).clone();
    let adding = tokio::spawn(async move { add(&node, "k", "v").await });
    let slot = place_of(&user(), &key("k")).0;
    until("its disk hangs", || inner(rig.node(0)).local.is_stalled(slot)).await;
    let asked = inner(rig.node(0)).has_data().await;
    assert!(asked.is_err(), "{asked:?}");
    drop(held);
    assert_eq!(adding.await.unwrap(), Ok(Added::Appended));
    assert!(inner(rig.node(0)).has_data().await.unwrap());
    assert_eq!(
        add(rig.node(0), "k", "w").await,
        Ok(Added::Appended),
        "it did not promise anything"
    );
    rig.end().await;
}
