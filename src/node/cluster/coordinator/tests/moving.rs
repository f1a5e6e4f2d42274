//! A member table that changes while a write is under way.

use std::collections::BTreeMap;

use crate::core::placement::{Placement, Seat};
use crate::node::cluster::tests::*;
use crate::node::replica::place_of;

/// A new member takes the third one's place in the slot while the write is durable there alone, and counts before it is durable where it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_counts_by_who_holds_its_slot_when_it_is_durable() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(3)
    };
    let mut rig = rig.started().await;
    let table = inner(rig.node(0)).layout().table.clone();
    let mut seats = table.seats();
    seats.push(Seat {
        node: NodeId(7),
        zone: "z".to_owned(),
        weight: 100,
    });
    let next = Placement::of(&seats, 3);
    let third = id(rig.node(2));
    let loses_third = |name: &String| !next.replicas(place_of(&user(), &key(name)).0).contains(&third);
    let name = (0..).map(|number: u64| number.to_string()).find(loses_third).unwrap();
    let slot = place_of(&user(), &key(&name)).0;

    // The first one is not connected to the second one.
    stop_task(rig.node(0), LAYOUT).await;
    for index in [0, 1] {
        stop_task(rig.node(index), SYNC).await;
    }
    let members = BTreeMap::from([(third, rig.addresses[2])]);
    inner(rig.node(0)).peers.set_members(&members);
    let mut tries = 0;
    let (slow, adding, text) = loop {
        let slow = disk.hold_syncs("shard-");
        let (first, written, text) = (rig.node(0).clone(), key(&name), format!("v{tries}"));
        let terms = Terms {
            deadline: Instant::now() + 10 * PATIENCE,
            ..Terms::usual()
        };
        let adding = async move {
            first
                .add(&user(), &written, text.as_str().into(), true, None, terms)
                .await
        };
        let adding = tokio::spawn(adding);
        let before = count_at(rig.node(2), &name).await;
        for _ in 0..100 {
            if count_at(rig.node(2), &name).await == before {
                sleep(Duration::from_millis(20)).await;
            }
        }
        let text = format!("v{tries}");
        if count_at(rig.node(2), &name).await > before {
            break (slow, adding, text);
        }
        // It waited for room in the log, which takes a sync too.
        drop(slow);
        adding.await.unwrap().unwrap();
        tries += 1;
        assert!(tries < 10, "the third one never has it first");
    };

    rig.make_room();
    rig.start(3).await;
    let record = inner(rig.node(3)).own_record(table.next_seat(), 3);
    inner(rig.node(1)).add_record(&record).await.unwrap();
    let end = Instant::now() + PATIENCE;
    while inner(rig.node(0)).layout().table.up().count() < 4 {
        assert!(Instant::now() < end, "not in time: the first one knows");
        inner(rig.node(0)).load_table().await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    until("the new one votes", || inner(rig.node(3)).votes(slot)).await;
    stop_task(rig.node(3), SYNC).await;
    drop(slow);
    let added = adding.await.unwrap();
    let current = inner(rig.node(0)).layout();
    let mut holders = 0;
    for index in [0, 1, 3] {
        assert!(current.placement.replicas(slot).contains(&id(rig.node(index))));
        let held = list(rig.node(index), &name, Consistency::One).await.unwrap();
        holders += usize::from(held.contains(&text));
    }
    let is_in_doubt = matches!(
        added,
        Err(OpError::Quorum {
            maybe_applied: true,
            ..
        })
    );
    assert!(is_in_doubt || holders >= 2, "{added:?}, on {holders} of three");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_hold_a_slot_by_its_own_table_counts_for_none_of_its_writes() {
    let rig = Rig::new(4).await;
    let layout = inner(rig.node(0)).layout();
    let ops = Ops::of("k".to_owned());
    let op = ops.value(1);
    let replicas = layout.placement.replicas(op.op.dot.slot);
    let sender = *replicas.first().unwrap();
    for node in rig.running().filter(|node| id(node) != sender) {
        let answer = inner(node)
            .answer_append(sender, vec![crate::wire::WireOp::of(&op)])
            .await;
        let counts = matches!(answer, crate::wire::Response::Done);
        assert_eq!(counts, replicas.contains(&id(node)), "{answer:?}");
    }
    rig.end().await;
}

/// It is cut off, and acknowledges alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_took_by_an_older_table_comes_to_those_who_are_to_hold_it() {
    let mut rig = Rig::new(3).await;
    let unaware = inner(rig.node(2)).clone();
    stop_looking(rig.node(2)).await;
    let before = unaware.layout();
    rig.make_room();
    rig.start(3).await;
    let knows = |index: usize| inner(rig.node(index)).layout();
    until("it is let in", || knows(0).table.up().count() == 4).await;
    assert!(Arc::ptr_eq(&before, &knows(2)));
    let now = knows(0);
    let loses = |name: &String| {
        !now.placement
            .replicas(place_of(&user(), &key(name)).0)
            .contains(&unaware.me)
    };
    let name = (0..).map(|number: u64| number.to_string()).find(loses).unwrap();
    unaware.peers.set_members(&BTreeMap::new());
    let node = rig.node(2);
    let added = node
        .add(&user(), &key(&name), "v".into(), true, None, at(Consistency::One))
        .await;
    assert_eq!(added, Ok(Added::Appended));
    look_again(rig.node(2));
    let end = Instant::now() + PATIENCE;
    for index in [0, 1, 3] {
        while count_at(rig.node(index), &name).await == 0 {
            assert!(Instant::now() < end, "it does not come to {index}");
            sleep(Duration::from_millis(20)).await;
        }
    }
    drop(unaware);
    rig.end().await;
}
