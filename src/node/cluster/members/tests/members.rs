//! Who is a member, and which one: removed, replaced, come again without its name or its data.

use crate::node::cluster::members::records::table_key;
use crate::node::cluster::members::table::Record;
use crate::node::cluster::tests::*;

/// Who is asked for it may not be ready for it yet.
async fn change_in_the_end(node: &Node, wanted: MemberChange) {
    let until = Instant::now() + PATIENCE;
    while let Err(refused) = change(node, wanted).await {
        assert!(Instant::now() < until, "{refused}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_of_a_member_that_is_done_may_be_asked_for_again() {
    let rig = Rig::new(3).await;
    let gone = rig.node(2).local().life().node;
    change_in_the_end(rig.node(0), MemberChange::Remove(gone)).await;
    for index in [0, 1, 1] {
        change(rig.node(index), MemberChange::Remove(gone)).await.unwrap();
    }
    let nobody = NodeId(7);
    let refused = change(rig.node(0), MemberChange::Remove(nobody)).await;
    assert_eq!(refused, Err(MemberRefused::Unknown(nobody)));
    rig.end().await;
}

/// Whoever asked first was told that it failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_only_one_disk_has_is_not_done() {
    let mut rig = Rig::new(3).await;
    let ids = [0, 1, 2].map(|index| rig.node(index).local().life().node);
    rig.stop(1).await;
    rig.stop(2).await;
    let alone = rig.node(0).cluster().unwrap().inner.clone();
    let gone = alone.layout().table.get(ids[2]).unwrap().clone();
    let record = Record {
        state: MemberState::Removed,
        ..gone
    };
    let text = serde_json::to_string(&record).unwrap();
    let key = table_key().unwrap();
    alone.add_alone(&key, text.clone(), Terms::usual()).await.unwrap();
    until("it reads that from its own disk", || {
        !alone.layout().table.is_up(ids[2])
    })
    .await;
    let remove = MemberChange::Remove(ids[2]);
    let repeated = change(rig.node(0), remove).await;
    assert!(matches!(repeated, Err(MemberRefused::Store(_))), "{repeated:?}");
    rig.start(1).await;
    change_in_the_end(rig.node(0), remove).await;
    let there = rig.node(1).cluster().unwrap().inner.own_records().await.unwrap();
    assert!(there.contains(&text));
    drop(alone);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_removed_serves_nobody_and_says_why() {
    let rig = Rig::new(3).await;
    let gone = rig.node(2).local().life().node;
    change_in_the_end(rig.node(0), MemberChange::Remove(gone)).await;
    rig.wait_why(2, "was removed from the cluster").await;
    let (node, user, key) = (rig.node(2), user(), key("k"));
    let refused = |why: &OpError| matches!(why, OpError::NotReady(why) if why.contains("was removed from the cluster"));
    for consistency in Consistency::ALL {
        let terms = at(consistency);
        let added = node.add(&user, &key, "v".into(), true, None, terms).await.err();
        let answers = [
            added,
            node.get(&user, &key, 0, 1, terms).await.err(),
            node.count(&user, &key, terms).await.err(),
            node.list_keys(&user, "", None, 10, terms).await.err(),
        ];
        for (call, answer) in answers.into_iter().enumerate() {
            assert!(answer.as_ref().is_some_and(refused), "{call}: {answer:?}");
        }
    }
    // The others go on.
    add(rig.node(0), "k", "v").await.unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_member_stays() {
    let mut rig = Rig::new(1).await;
    let last = rig.node(0).local().life().node;
    let refused = change(rig.node(0), MemberChange::Remove(last)).await;
    assert_eq!(refused, Err(MemberRefused::Last(last)));
    add(rig.node(0), "k", "v").await.unwrap();
    rig.stop(0).await;
    let alone = Node::start(crate::os::env(), NodeConfig::new(rig.dirs[0].path().join("data"))).await;
    let refused = alone.err().expect("it is a member's folder").to_string();
    assert!(refused.contains("--cluster-listen"), "{refused}");
    rig.start(0).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_is_done_may_be_asked_for_again() {
    let mut rig = Rig::new(3).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.make_room();
    rig.start(3).await;
    let [old, other, new] = [1, 2, 3].map(|index| rig.node(index).local().life().node);
    rig.stop(1).await;
    let replace = MemberChange::Replace { old, new };
    change_in_the_end(rig.node(0), replace).await;
    change(rig.node(0), replace).await.unwrap();
    rig.wait("all are members again", is_member).await;
    rig.wait_linked().await;
    for node in rig.running() {
        change(node, replace).await.unwrap();
        let refused = change(node, MemberChange::Replace { old: other, new }).await;
        assert_eq!(refused, Err(MemberRefused::Member(new)));
    }
    rig.end().await;
}

/// The member at 1 was replaced by the node at 3. The member at 2 has not looked at the table since before that.
async fn replaced_unknown_to_one(mut rig: Rig) -> Rig {
    // So that nobody is let in beside the others.
    add(rig.node(0), "held", "v").await.unwrap();
    rig.make_room();
    rig.start(3).await;
    let [old, new] = [1, 3].map(|index| rig.node(index).local().life().node);
    rig.stop(1).await;
    // Whoever is asked to let it in looks at the table.
    let asks = || inner(rig.node(0)).members.join_requests.is_empty_node(new);
    until("it asks", asks).await;
    stop_task(rig.node(3), JOIN).await;
    stop_task(rig.node(2), LAYOUT).await;
    change_in_the_end(rig.node(0), MemberChange::Replace { old, new }).await;
    assert!(inner(rig.node(2)).layout().table.is_up(old));
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_goes_by_an_older_table_hears_of_what_was_changed_before_it_changes_more() {
    let rig = Rig::new(3).await;
    let old = rig.node(1).local().life().node;
    let rig = replaced_unknown_to_one(rig).await;
    let new = rig.node(3).local().life().node;
    let unaware = rig.node(2);
    let refused = change(unaware, MemberChange::Replace { old, new: NodeId(7) }).await;
    assert_eq!(refused, Err(MemberRefused::Unknown(old)));
    change(unaware, MemberChange::Replace { old, new }).await.unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_goes_by_an_older_table_gives_no_place_away_that_has_somebody() {
    let rig = Rig {
        settings: |index, config| {
            if index == 4 {
                // Of the others but the one whose address it has, the last but one.
                config.join = vec![config.join[1]];
            }
        },
        ..Rig::unstarted(3)
    };
    let rig = rig.started().await;
    let mut rig = replaced_unknown_to_one(rig).await;
    rig.make_room();
    rig.addresses[4] = rig.addresses[1];
    rig.start(4).await;
    rig.wait_why(4, "the cluster holds user data").await;
    let unaware = inner(rig.node(2));
    assert!(unaware.layout().table.is_up(rig.node(3).local().life().node));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_advertises_the_address_of_another_one_does_not_get_its_place() {
    let mut rig = Rig::new(3).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.make_room();
    let (twin, away) = (rig.addresses[1], rig.node(1).local().life().node);
    rig.stop(1).await;
    rig.start_as(3, twin).await;
    rig.wait_why(3, "which is the address of a member that is away, and nobody is: check")
        .await;
    rig.start(1).await;
    assert_eq!(rig.node(1).local().life().node, away);
    rig.wait_why(3, &format!("is that of the member {away}, which is there"))
        .await;
    rig.stop(3).await;
    rig.wait("the others go on", is_member).await;
    rig.wait_linked().await;
    for node in rig.running() {
        assert_eq!(list(node, "k", Consistency::All).await.unwrap(), ["v"]);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_node_of_a_cluster_takes_its_place_again_when_it_lost_its_name() {
    let mut rig = Rig::new(1).await;
    add(rig.node(0), "k", "v").await.unwrap();
    for _ in 0..2 {
        let before = rig.node(0).local().life();
        rig.stop(0).await;
        rig.damage_name(0);
        rig.start(0).await;
        rig.wait("it is a member", Node::is_ready).await;
        let after = rig.node(0).local().life();
        assert!(after.node != before.node && after.origin != before.origin);
        rig.wait("it votes", |node| node.cluster().unwrap().inner.votes(SlotId(1)))
            .await;
        assert_eq!(list(rig.node(0), "k", Consistency::All).await.unwrap(), ["v"]);
    }
    assert_eq!(rig.node(0).cluster().unwrap().seen().0, 1);

    // Another one in the list may know better, and is silent.
    rig.make_room();
    rig.stop(0).await;
    rig.damage_name(0);
    rig.start(0).await;
    rig.wait_why(0, "if there is no other node, start it once without --join")
        .await;
    sleep(Duration::from_secs(1)).await;
    assert!(!rig.node(0).is_ready());
    rig.stop(0).await;
    rig.addresses.pop();
    rig.start(0).await;
    rig.wait("it is a member", Node::is_ready).await;
    assert_eq!(list(rig.node(0), "k", Consistency::All).await.unwrap(), ["v"]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_disk_at_the_same_address_is_filled_again() {
    let mut rig = Rig::new(3).await;
    for round in 0..50 {
        add(rig.node(round % 3), &format!("k{}", round % 5), &format!("{round}"))
            .await
            .unwrap();
    }
    rig.stop(2).await;
    rig.dirs[2] = TempDir::new().unwrap();
    rig.start(2).await;
    rig.wait("the new one counts", is_member).await;
    rig.wait_equal().await;
    for name in ["k0", "k4"] {
        let expected = list(rig.node(0), name, Consistency::One).await.unwrap();
        assert_eq!(expected.len(), 10);
        assert_eq!(list(rig.node(2), name, Consistency::One).await.unwrap(), expected);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_not_let_in_does_not_say_that_there_are_no_keys() {
    let mut rig = Rig::unstarted(2);
    rig.start(1).await;
    let listed = rig.node(1).list_keys(&user(), "", None, 10, Terms::usual()).await;
    assert!(matches!(listed, Err(OpError::NotReady(_))), "{listed:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_given_another_zone_and_weight_knows_that_it_keeps_its_own() {
    let mut rig = Rig::new(1).await;
    let overruled = |rig: &Rig| rig.node(0).cluster().unwrap().inner.overruled_settings();
    assert_eq!(overruled(&rig), None);
    rig.stop(0).await;
    rig.settings = |_, config| (config.zone, config.weight) = ("other".to_owned(), 7);
    rig.start(0).await;
    rig.wait("it is a member", Node::is_ready).await;
    assert_eq!(overruled(&rig).as_deref(), Some("the zone \"z\" and the weight 100"));
    rig.end().await;
}
