//! A member's disk is rolled back to what it was at some moment while its node ran.

use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::Body;
use crate::node::cluster::tests::*;

impl Rig {
    async fn add_ten(&self, first: u64) {
        for text in first..first + 10 {
            add(self.node(0), "k", &text.to_string()).await.unwrap();
        }
    }

    /// All have told each other what they hold now.
    async fn wait_told(&self) {
        self.wait_equal().await;
        let held = self.node(0).local().clocks();
        let nodes: Vec<_> = self.running().map(|node| node.local().life().node).collect();
        self.wait("everybody has told its clocks", |node| {
            let inner = &node.cluster().unwrap().inner;
            let others = |_| nodes.iter().copied().filter(|other| *other != inner.me);
            inner.clocks.stable(others) == held
        })
        .await;
    }

    fn votes(&self, index: usize) -> bool {
        let inner = &self.node(index).cluster().unwrap().inner;
        let (slot, _) = crate::node::replica::place_of(&user(), &key("k"));
        inner.votes(slot)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_running_disk_that_is_put_back_does_not_count_until_it_has_caught_up() {
    let mut rig = Rig::new(3).await;
    rig.add_ten(0).await;
    rig.wait_told().await;
    let (data, image) = (rig.dirs[2].path().join("data"), TempDir::new().unwrap());
    copy(&data, image.path());
    rig.add_ten(10).await;
    rig.wait_told().await;
    rig.stop(1).await;
    rig.stop(2).await;
    rig.dirs[2] = TempDir::new().unwrap();
    copy(image.path(), &rig.dirs[2].path().join("data"));
    rig.start(2).await;
    let until = Instant::now() + PATIENCE;
    while !rig.node(2).cluster().unwrap().inner.clocks.is_new() {
        assert!(!rig.votes(2), "by what its disk lacks");
        assert!(Instant::now() < until, "not in time: the older copy is noticed");
        sleep(Duration::from_millis(5)).await;
    }
    // The other one could tell what neither of these two holds.
    rig.wait_equal().await;
    sleep(3 * TICK).await;
    assert!(!rig.votes(2));
    rig.start(1).await;
    rig.wait("everybody's word counts", |node| {
        node.cluster().unwrap().inner.votes(SlotId(1))
    })
    .await;
    let expected: Vec<String> = (0..20).map(|text| text.to_string()).collect();
    assert_eq!(list(rig.node(2), "k", Consistency::Quorum).await.unwrap(), expected);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_started_anew_counts_at_once_although_another_one_is_away() {
    let mut rig = Rig::new(3).await;
    rig.add_ten(0).await;
    rig.node(1)
        .clear(&user(), &key("k"), None, Terms::usual())
        .await
        .unwrap();
    rig.add_ten(10).await;
    rig.wait_told().await;
    rig.stop(1).await;
    for _ in 0..2 {
        rig.stop(2).await;
        rig.start(2).await;
        rig.wait("its word counts", |node| node.cluster().unwrap().inner.votes(SlotId(1)))
            .await;
        rig.wait_linked().await;
        assert!(rig.votes(2) && !rig.node(2).cluster().unwrap().inner.clocks.is_new());
        add(rig.node(0), "other", "v").await.unwrap();
    }
    rig.end().await;
}

/// It may have taken for dropped what it does not hold, and not have noted that durably.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lacks_what_all_others_have_dropped_is_not_set_back_though_its_clear_is_held() {
    let rig = Rig::new(1).await;
    let inner = &rig.node(0).cluster().unwrap().inner;
    let ops = Ops::of("k".to_owned());
    let dot = ops.value(1).op.dot;
    let mut seen = Clock::default();
    seen.insert(dot.origin, dot.seq);
    let mut dots = SlotClocks::default();
    dots.join_slot(dot.slot, &seen);
    hold(rig.node(0), ops.op(2, Body::Clear(seen))).await;
    inner.local.know_dropped(&dots);
    rig.wait("it is known", |node| node.local().clocks().covers(&dots))
        .await;
    assert!(!inner.should_be_held(&dots).await.unwrap());
    hold(rig.node(0), ops.value(3)).await;
    let dot = ops.value(3).op.dot;
    dots.insert(dot.slot, dot.origin, dot.seq);
    assert!(inner.should_be_held(&dots).await.unwrap());
    rig.end().await;
}

/// That needs no memory that was rolled back: only the notice that shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_put_back_gives_out_no_more_names_of_its_origin() {
    let rig = Rig::new(3).await;
    rig.add_ten(0).await;
    let (node, slot) = (rig.node(0), crate::node::replica::place_of(&user(), &key("k")).0);
    let (inner, life) = (&node.cluster().unwrap().inner, node.local().life());
    let named = || {
        let clock = node.local().clock(slot).unwrap_or_default();
        clock
            .origins()
            .filter(|(origin, _)| *origin == life.origin)
            .map(|(_, set)| set.count())
            .sum::<u64>()
    };
    rig.wait_equal().await;
    // Another node carries out what takes long here.
    let before = named();
    assert!(before > 0);
    rig.wait("nothing is known against it", |_| {
        inner.is_known() && inner.lives.is_known_for_good()
    })
    .await;
    let shards: Vec<_> = inner
        .local
        .doors()
        .iter()
        .map(|door| door.serving().as_ref().map(|serving| serving.actor.get_id()))
        .collect();
    assert_eq!(
        inner.later_generation(life.starts, Some(life.starts)).await,
        life.starts + 1
    );
    let other = |door: &crate::node::shards::supervisor::ShardDoor, before: &Option<ractor::ActorId>| {
        door.serving()
            .as_ref()
            .is_some_and(|serving| Some(serving.actor.get_id()) != *before)
    };
    rig.wait("its shards are opened anew", |_| {
        inner
            .local
            .doors()
            .iter()
            .zip(&shards)
            .all(|(door, before)| other(door, before))
    })
    .await;
    let end = Instant::now() + PATIENCE;
    while let Err(error) = add(node, "k", "later").await {
        assert!(Instant::now() < end, "{error}");
    }
    assert_eq!(named(), before);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_generation_is_noted_before_it_is_used() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(1)
    };
    let rig = rig.started().await;
    let inner = &rig.node(0).cluster().unwrap().inner;
    assert_eq!(inner.later_generation(4, None).await, 5);
    let bytes = disk.content(&rig.dirs[0].path().join("data/node.json")).unwrap();
    assert!(String::from_utf8(bytes).unwrap().contains("\"starts\":5"));
    assert!(!inner.clocks.is_new(), "nothing is held against its disk");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_looked_at_for_a_peer_is_not_looked_at_twice() {
    let rig = Rig::new(1).await;
    let inner = rig.node(0).cluster().unwrap().inner.clone();
    let (peer, mut missing) = (NodeId(77), SlotClocks::default());
    missing.insert(SlotId(3), crate::core::stamp::OriginId(1), 1);
    inner.local.know_dropped(&missing);
    rig.wait("it is known", |node| node.local().clocks().covers(&missing))
        .await;
    assert!(!inner.lacks_what_it_should_hold(peer, &missing).await.unwrap());
    let judged = inner.lives.judged.lock().get(&peer).cloned().unwrap();
    let mut looking = judged.lock().await;
    let asked = {
        let (inner, missing) = (inner.clone(), missing.clone());
        tokio::spawn(async move { inner.lacks_what_it_should_hold(peer, &missing).await })
    };
    // What is found, for whoever asks meanwhile.
    *looking = Some((missing.clone(), true));
    drop(looking);
    assert!(asked.await.unwrap().unwrap());
    // Of something else nothing was found.
    missing.insert(SlotId(3), crate::core::stamp::OriginId(1), 2);
    inner.local.know_dropped(&missing);
    rig.wait("it is known", |node| node.local().clocks().covers(&missing))
        .await;
    assert!(!inner.lacks_what_it_should_hold(peer, &missing).await.unwrap());
    rig.end().await;
}
