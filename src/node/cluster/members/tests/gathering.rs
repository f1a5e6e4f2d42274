//! Who comes in, and when: the first moments of a cluster, members that move, and seats that are not free.

use crate::node::cluster::members::table::Record;
use crate::node::cluster::tests::*;
use crate::node::replica::place_of;

/// Of so many its founder is there, the others are not yet.
async fn half_founded(count: usize) -> Rig {
    let mut rig = Rig::unstarted(count);
    rig.start(0).await;
    let inner = rig.node(0).cluster().unwrap().inner.clone();
    // By itself it would wait for a majority.
    inner.found_new().await.unwrap();
    rig.wait("it is a member", Node::takes_part).await;
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_takes_no_data_before_all_that_are_expected_are_in() {
    let mut rig = half_founded(2).await;
    let refused = add(rig.node(0), "k", "early").await.unwrap_err();
    assert!(
        matches!(&refused, OpError::NotReady(why) if why.contains("1 of 2 members")),
        "{refused}"
    );
    assert!(rig.node(0).why_not_ready().is_some());
    rig.start(1).await;
    rig.wait("both are in", is_member).await;
    rig.wait_linked().await;
    add(rig.node(0), "k", "v").await.unwrap();
    assert_eq!(list(rig.node(1), "k", Consistency::Quorum).await.unwrap(), ["v"]);
    rig.end().await;
}

/// Two whose word counts would be left, whichever one goes down now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_takes_no_data_before_the_word_of_all_counts() {
    let mut rig = Rig::unstarted(3);
    for index in 0..3 {
        rig.start(index).await;
    }
    until("one of them is ready", || rig.running().any(Node::is_ready)).await;
    for node in rig.running() {
        assert!(node.cluster().unwrap().inner.votes(SlotId(1)));
    }
    until("all are", || rig.running().all(Node::is_ready)).await;
    rig.stop(0).await;
    add(rig.node(1), "k", "v").await.unwrap();
    assert_eq!(list(rig.node(2), "k", Consistency::Quorum).await.unwrap(), ["v"]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_never_counts_is_waited_for_only_so_long() {
    let mut rig = half_founded(2).await;
    let founder = rig.node(0).cluster().unwrap().inner.clone();
    stop_task(rig.node(0), GATHERING).await;
    rig.start(1).await;
    rig.wait("both are in", Node::takes_part).await;
    rig.wait_why(0, "1 of 2 members still look").await;
    assert!(matches!(
        add(rig.node(0), "k", "early").await,
        Err(OpError::NotReady(_))
    ));
    founder.look_who_counts().await;
    rig.wait("its word counts", |node| node.cluster().unwrap().inner.votes(SlotId(1)))
        .await;
    rig.wait_linked().await;
    founder.look_who_counts().await;
    assert_eq!(founder.why_gathering(), None);
    add(rig.node(0), "k", "v").await.unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_again_with_an_empty_disk_does_not_count_as_two_members() {
    let mut rig = half_founded(3).await;
    let table = |rig: &Rig| rig.node(0).cluster().unwrap().inner.layout().table.clone();
    for _ in 0..2 {
        rig.start(1).await;
        let second = rig.node(1).local().life().node;
        until("it is in", || table(&rig).is_up(second)).await;
        rig.wait_why(0, "2 of 3 members").await;
        let refused = add(rig.node(0), "k", "early").await;
        assert!(matches!(refused, Err(OpError::NotReady(_))), "{refused:?}");
        rig.stop(1).await;
        rig.dirs[1] = TempDir::new().unwrap();
    }
    rig.start(1).await;
    rig.start(2).await;
    rig.wait("all are in", is_member).await;
    rig.wait_linked().await;
    add(rig.node(2), "k", "v").await.unwrap();
    rig.end().await;
}

/// Two were let in to one seat, and this one has to ask again: what it took meanwhile would keep it out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_to_ask_again_to_be_let_in_takes_no_users_writes() {
    let rig = Rig::new(2).await;
    let inner = &rig.node(1).cluster().unwrap().inner;
    let mut records = inner.own_records().await.unwrap();
    let own = inner.layout().table.get(inner.me).unwrap().clone();
    let other = Record {
        node: NodeId(7).to_string(),
        peer: free_port(),
        ..own
    };
    records.push(serde_json::to_string(&other).unwrap());
    inner.take_table(MemberTable::of(&records));
    let state = inner.layout().table.get(inner.me).map(|record| record.state);
    assert_eq!(state, Some(MemberState::Displaced));
    let refused = add(rig.node(1), "k", "v").await;
    assert!(matches!(refused, Err(OpError::NotReady(_))), "{refused:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_is_in_the_table_where_it_is_now() {
    let mut rig = Rig::new(3).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.stop(2).await;
    let former = std::mem::replace(&mut rig.addresses[2], free_port());
    rig.start(2).await;
    let (moved, now) = (rig.node(2).local().life().node, rig.addresses[2]);
    rig.wait("its new address is known", |node| {
        let inner = &node.cluster().unwrap().inner;
        let table = inner.layout().table.clone();
        table.get(moved).is_some_and(|record| record.peer == now)
    })
    .await;
    rig.stop(2).await;
    // Whoever comes to its former address has nobody's place.
    rig.make_room();
    rig.addresses[3] = former;
    rig.start(3).await;
    sleep(Duration::from_secs(2)).await;
    let table = rig.node(0).cluster().unwrap().inner.layout().table.clone();
    assert!(table.is_up(moved) && !table.is_up(rig.node(3).local().life().node));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_there_is_not_replaced() {
    let mut rig = Rig::new(3).await;
    // So that nobody else is let in.
    add(rig.node(0), "k", "v").await.unwrap();
    rig.make_room();
    rig.start(3).await;
    let old = rig.node(2).local().life().node;
    let replace = MemberChange::Replace {
        old,
        new: rig.node(3).local().life().node,
    };
    for asked in [0, 2] {
        let refused = change(rig.node(asked), replace).await;
        assert_eq!(refused, Err(MemberRefused::There(old)));
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_of_a_forwarded_clear_that_comes_late_removes_nothing_that_was_added_since() {
    let rig = Rig::new(4).await;
    let inner = |index: usize| &rig.node(index).cluster().unwrap().inner;
    let layout = inner(3).layout();
    let name = (0..).map(|number| number.to_string()).find(|name| {
        let replicas = layout.placement.replicas(place_of(&user(), &key(name)).0);
        !replicas.contains(&inner(3).me)
    });
    let name = name.unwrap();
    let replicas = layout.placement.replicas(place_of(&user(), &key(&name)).0);
    add(rig.node(3), &name, "before").await.unwrap();
    let (user, key) = (user(), key(&name));
    for consistency in [Consistency::Quorum, Consistency::One] {
        let clear = crate::node::local::Wanted {
            user: &user,
            key: &key,
            kind: crate::shard::WriteKind::Clear,
            request_id: None,
        };
        let kind = inner(3)
            .kind_to_forward(&clear, replicas, at(consistency))
            .await
            .unwrap();
        rig.node(3)
            .clear(&user, &key, None, at(Consistency::All))
            .await
            .unwrap();
        add(rig.node(3), &name, "since").await.unwrap();
        let late = crate::wire::Request::Write(crate::wire::ForwardedWrite {
            user: user.as_str().to_owned(),
            key: name.clone(),
            kind,
            request_id: Some([7; 16]),
            is_first_try: true,
            terms: calls::wire_terms(at(consistency)),
        });
        let done = inner(3)
            .through(replicas, |_| late.clone(), at(consistency), true)
            .await
            .unwrap();
        assert!(matches!(done.1, crate::wire::Response::Written { .. }));
        assert_eq!(
            list(rig.node(3), &name, Consistency::All).await.unwrap(),
            ["since"],
            "{consistency:?}"
        );
    }
    rig.end().await;
}
