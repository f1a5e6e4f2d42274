//! Who founds a cluster, and what keeps it from that.

use crate::node::cluster::tests::*;

/// A folder of a node of its own was left on one of the new machines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_refused_founds_when_the_one_that_refused_is_gone() {
    let mut rig = Rig::unstarted(3);
    let mut config = NodeConfig::new(rig.dirs[2].path().join("data"));
    config.shards = 2;
    let alone = Node::start(crate::os::env(), config).await.unwrap();
    add(&alone, "k", "v").await.unwrap();
    alone.stop().await;
    for index in 0..3 {
        rig.start(index).await;
    }
    let why = |rig: &Rig| rig.node(0).why_not_ready().unwrap_or_default();
    let until = Instant::now() + PATIENCE;
    while !why(&rig).contains("its own copy of the member table is not whole") {
        assert!(Instant::now() < until, "{}", why(&rig));
        sleep(Duration::from_millis(20)).await;
    }
    rig.stop(2).await;
    rig.dirs[2] = TempDir::new().unwrap();
    rig.start(2).await;
    rig.wait("all are members", Node::is_ready).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_knows_what_each_of_those_says_that_it_asks() {
    let mut rig = Rig::unstarted(4);
    rig.settings = |index, config| match index {
        1 => config.keys = KeyRing::parse(&"cd".repeat(32)).unwrap(),
        2 => config.name = "other".to_owned(),
        _ => {}
    };
    for index in 0..3 {
        rig.start(index).await;
    }
    let [founder, nobody] = [0, 3].map(|index| rig.addresses[index]);
    let whys = [
        "the other side does not know this node's cluster key",
        "it is of a cluster with another name",
    ];
    for (index, why) in (1..).zip(whys) {
        rig.wait_why(index, &format!("{founder}: {why}")).await;
        rig.wait_why(index, &format!("{nobody}: it cannot be reached")).await;
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_coming_in_itself_says_so_to_who_asks_it() {
    let mut rig = Rig::unstarted(3);
    rig.start(0).await;
    let inner = rig.node(0).cluster().unwrap().inner.clone();
    let record = serde_json::to_string(&inner.own_record(0, 3)).unwrap();
    // As it is after it was told of its record, and before it has all that the others hold.
    inner.take_told_table(MemberTable::of(&[record]));
    let asks = crate::wire::Admission {
        node: 7,
        peer: rig.addresses[1].to_string(),
        http: rig.addresses[1].to_string(),
        zone: "z".to_owned(),
        weight: 100,
        is_new: true,
    };
    let refused = inner.admit(asks).await.err();
    assert_eq!(refused, Some(MemberRefused::ComingIn(inner.me)));
    rig.end().await;
}

/// The first node is told to join nobody.
fn with_lone_founder() -> Rig {
    Rig {
        settings: |index, config| {
            if index == 0 {
                config.join.clear();
            }
        },
        ..Rig::unstarted(3)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_found_for_want_of_space_says_so_and_founds_when_there_is_some() {
    let disk = MemoryDisk::new();
    let mut rig = with_lone_founder();
    // For what a node notes of itself, and no log.
    disk.faults().free_bytes.store(12_000, Ordering::Relaxed);
    rig.first_disk = Some(disk.clone());
    rig.start(0).await;
    rig.wait_why(0, "no cluster can be founded: ").await;
    rig.wait_why(0, "the disk is full").await;
    disk.faults().free_bytes.store(u64::MAX, Ordering::Relaxed);
    rig.wait("it founds the cluster", is_member).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_was_told_to_join_nobody_and_lost_its_disk_takes_its_place_again() {
    let mut rig = with_lone_founder().started().await;
    add(rig.node(1), "k", "v").await.unwrap();
    rig.stop(0).await;
    rig.dirs[0] = TempDir::new().unwrap();
    rig.start(0).await;
    rig.wait("all are members", is_member).await;
    rig.wait_linked().await;
    assert_eq!(list(rig.node(0), "k", Consistency::Quorum).await.unwrap(), ["v"]);
    let members = |node: &Node| node.cluster().unwrap().inner.layout().table.up().count();
    rig.wait("there is one cluster", |node| members(node) == 3).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_clusters_with_one_key_the_one_that_is_no_larger_takes_and_shows_nothing() {
    let mut rig = with_lone_founder().started().await;
    add(rig.node(1), "k", "v").await.unwrap();
    for index in 0..3 {
        rig.stop(index).await;
    }
    rig.dirs[0] = TempDir::new().unwrap();
    // Nobody is there who could keep it from that.
    rig.start(0).await;
    rig.wait("it founds a second cluster", is_member).await;
    rig.start(1).await;
    rig.start(2).await;
    rig.wait_why(0, "another cluster").await;
    let refused = add(rig.node(0), "k", "w").await.unwrap_err();
    assert!(matches!(refused, OpError::NotReady(_)), "{refused}");
    let refused = list(rig.node(0), "k", Consistency::One).await.unwrap_err();
    assert!(matches!(refused, OpError::NotReady(_)), "{refused}");
    let lists = rig.node(0).list_keys(&user(), "", None, 10, Terms::usual()).await;
    assert!(lists.is_err());
    let is_linked = |from: usize, to: usize| inner(rig.node(from)).up_peers(&[id(rig.node(to))]).len() == 1;
    until("the larger one goes on", || {
        let counts = |node: &Node| node.why_not_counting().is_none();
        rig.running().skip(1).all(counts) && is_linked(1, 2) && is_linked(2, 1)
    })
    .await;
    add(rig.node(2), "k", "w").await.unwrap();
    assert_eq!(list(rig.node(1), "k", Consistency::Quorum).await.unwrap(), ["v", "w"]);
    // It is noticed that it is gone, too.
    rig.stop(1).await;
    rig.stop(2).await;
    let why = || rig.node(0).why_not_ready();
    until("nobody else is there", || why().is_none()).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_from_before_all_others_joined_finds_its_cluster_again() {
    let mut rig = with_lone_founder();
    rig.start(0).await;
    rig.wait("it founds the cluster", is_member).await;
    rig.stop(0).await;
    let (data, image) = (rig.dirs[0].path().join("data"), TempDir::new().unwrap());
    copy(&data, image.path());
    let mut rig = rig.started().await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.stop(0).await;
    // Only their disks still know of its later life.
    for index in [1, 2] {
        rig.stop(index).await;
        rig.start(index).await;
    }
    rig.dirs[0] = TempDir::new().unwrap();
    copy(image.path(), &rig.dirs[0].path().join("data"));
    rig.start(0).await;
    let end = Instant::now() + PATIENCE;
    let listed = loop {
        match list(rig.node(0), "k", Consistency::Quorum).await {
            Ok(listed) => break listed,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(listed, ["v"]);
    rig.wait("all are members", is_member).await;
    rig.end().await;
}
