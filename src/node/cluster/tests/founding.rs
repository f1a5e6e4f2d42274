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
