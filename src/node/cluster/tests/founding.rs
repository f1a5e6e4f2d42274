//! Who founds a cluster, and what keeps it from that.

use super::*;

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
