//! Whole members in one process, on real sockets and in real folders.

pub(super) use std::sync::atomic::Ordering;

pub(super) use futures_util::StreamExt;
pub(super) use tempfile::TempDir;
pub(super) use tokio::sync::watch;
pub(super) use tokio::time::{Instant, sleep};

pub(super) use super::*;
pub(super) use crate::core::slot::{SYSTEM_SLOT, SlotId};
pub(super) use crate::node::{Added, Node, NodeConfig, OpError, Terms};
pub(super) use crate::store::memory_disk::MemoryDisk;
pub(super) use crate::types::{Consistency, Key, RequestId, UserId};

mod ops;
mod rig;

pub(super) use ops::*;
pub use rig::free_port;
pub(super) use rig::*;

#[test]
fn peers_come_in_their_turn_though_they_fall_silent_and_answer_meanwhile() {
    let silent = 2 * calls::SLOW;
    let mut peers = [0, 1, 3, 4, 5];
    sort_by_preference(&mut peers, NodeId(2), |peer| {
        let waiting = if [1, 3].contains(peer) { silent } else { calls::SLOW };
        (NodeId(*peer), waiting)
    });
    assert_eq!(peers, [4, 5, 0, 3, 1]);

    // Enough for an order that contradicts itself to be noticed.
    let mut peers: Vec<u64> = (0..200).collect();
    let looks = std::cell::Cell::new(0_u64);
    sort_by_preference(&mut peers, NodeId(100), |peer| {
        let look = looks.replace(looks.get() + 1);
        let is_silent = look.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1;
        (NodeId(*peer), if is_silent { silent } else { Duration::ZERO })
    });
    assert_eq!(looks.get(), 200, "each is looked at once");
    peers.sort_unstable();
    assert!(peers.into_iter().eq(0..200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_took_all_nodes_show_in_the_same_order() {
    let rig = Rig::new(3).await;
    for round in 0..12 {
        add(rig.node(round % 3), "k", &format!("v{round}")).await.unwrap();
        let seen = list(rig.node((round + 1) % 3), "k", Consistency::Quorum).await.unwrap();
        assert_eq!(seen, (0..=round).map(|at| format!("v{at}")).collect::<Vec<_>>());
    }
    rig.wait_equal().await;
    let first = list(rig.node(0), "k", Consistency::One).await.unwrap();
    for node in rig.running() {
        assert_eq!(list(node, "k", Consistency::One).await.unwrap(), first);
        let page = node.list_keys(&user(), "", None, 10, Terms::usual()).await.unwrap();
        assert_eq!(page.keys, [key("k")]);
    }
    rig.node(2)
        .clear(&user(), &key("k"), None, Terms::usual())
        .await
        .unwrap();
    assert!(list(rig.node(1), "k", Consistency::Quorum).await.unwrap().is_empty());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_counts_once_through_whichever_nodes_it_came() {
    let rig = Rig::new(3).await;
    let id = RequestId::new("r").unwrap();
    let add = |index: usize| {
        let node = rig.node(index).clone();
        async move {
            node.add(&user(), &key("k"), "v".into(), true, Some(id), Terms::usual())
                .await
        }
    };
    assert_eq!(add(0).await.unwrap(), Added::Appended);
    assert_eq!(add(1).await.unwrap(), Added::Repeated);
    assert_eq!(add(2).await.unwrap(), Added::Repeated);
    assert_eq!(list(rig.node(1), "k", Consistency::Quorum).await.unwrap(), ["v"]);
    rig.node(1)
        .clear(&user(), &key("k"), None, Terms::usual())
        .await
        .unwrap();
    assert_eq!(
        add(2).await.unwrap(),
        Added::Repeated,
        "cleared, it is still remembered"
    );
    assert!(list(rig.node(0), "k", Consistency::Quorum).await.unwrap().is_empty());
    rig.end().await;
}

/// Also through the one of four that holds no replica, and after all were restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_is_refused_for_another_request_through_whichever_nodes_it_came() {
    let mut rig = Rig::new(4).await;
    let request = |name: &str| RequestId::new(name).unwrap();
    let write = async |rig: &Rig, index: usize, name: &str, text: &str, finish: bool| {
        let node = rig.node(index);
        node.add(
            &user(),
            &key("k"),
            text.into(),
            finish,
            Some(request(name)),
            Terms::usual(),
        )
        .await
    };
    write(&rig, 0, "part", "a", false).await.unwrap();
    write(&rig, 1, "end", "b", true).await.unwrap();
    for _ in 0..2 {
        for node in 0..4 {
            let others = [
                ("part", "a", true),
                ("part", "b", false),
                ("end", "b", false),
                ("end", "c", true),
            ];
            for (name, text, finish) in others {
                let other = write(&rig, node, name, text, finish).await;
                assert_eq!(other, Err(OpError::OtherRequest), "{name} through {node}");
            }
            let (user, key) = (user(), key("k"));
            let clear = rig.node(node).clear(&user, &key, Some(request("end")), Terms::usual());
            assert_eq!(clear.await, Err(OpError::OtherRequest));
            assert_eq!(write(&rig, node, "part", "a", false).await, Ok(Added::Repeated));
            assert_eq!(write(&rig, node, "end", "b", true).await, Ok(Added::Repeated));
        }
        assert_eq!(list(rig.node(3), "k", Consistency::Quorum).await.unwrap(), ["ab"]);
        for node in 0..4 {
            rig.stop(node).await;
        }
        for node in 0..4 {
            rig.start(node).await;
        }
        rig.wait_linked().await;
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_gets_what_it_missed_and_two_of_three_go_on() {
    let mut rig = Rig::new(3).await;
    add(rig.node(0), "before", "v").await.unwrap();
    rig.wait_equal().await;
    rig.stop(1).await;
    for round in 0..200 {
        add(
            rig.node(if round % 2 == 0 { 0 } else { 2 }),
            &format!("k{}", round % 7),
            &format!("{round}"),
        )
        .await
        .unwrap();
    }
    rig.node(0)
        .clear(&user(), &key("before"), None, Terms::usual())
        .await
        .unwrap();
    let refused = rig
        .node(0)
        .add(&user(), &key("k"), "v".into(), true, None, at(Consistency::All))
        .await;
    assert!(
        matches!(
            refused,
            Err(OpError::Quorum {
                needed: 3,
                answered: 2,
                maybe_applied: false
            })
        ),
        "{refused:?}"
    );
    rig.start(1).await;
    rig.wait_linked().await;
    rig.wait_equal().await;
    for name in ["k0", "k3", "before"] {
        let expected = list(rig.node(0), name, Consistency::One).await.unwrap();
        assert_eq!(list(rig.node(1), name, Consistency::One).await.unwrap(), expected);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_of_a_key_is_cleared_and_nothing_that_came_since() {
    // One more than replicas: each key is asked for at a node that does not hold it, too.
    let rig = Rig::new(4).await;
    for (number, node) in rig.running().enumerate() {
        let name = format!("k{number}");
        add(rig.node(0), &name, "before").await.unwrap();
        let seen = node.seen(&user(), &key(&name), Terms::usual()).await.unwrap();
        add(rig.node(1), &name, "since").await.unwrap();
        for _ in 0..2 {
            node.clear_seen(&user(), &key(&name), seen.clone(), Terms::usual())
                .await
                .unwrap();
            for node in rig.running() {
                assert_eq!(list(node, &name, Consistency::Quorum).await.unwrap(), ["since"]);
            }
        }
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_of_three_alone_does_not_claim_a_quorum() {
    let mut rig = Rig::new(3).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.wait_equal().await;
    rig.stop(1).await;
    rig.stop(2).await;
    assert!(matches!(
        add(rig.node(0), "k", "lost").await,
        Err(OpError::Quorum { .. } | OpError::Deadline { .. })
    ));
    assert!(list(rig.node(0), "k", Consistency::Quorum).await.is_err());
    assert_eq!(list(rig.node(0), "k", Consistency::One).await.unwrap(), ["v"]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_node_is_behind_and_whose_clock_is_wrong_is_told() {
    const ADDS: usize = 600;
    let disk = MemoryDisk::new();
    let rig = Rig {
        ahead_ms: vec![0, 5000, 0],
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(3)
    };
    let mut rig = rig.started().await;
    let skews = |node: &Node| -> Vec<Option<i64>> {
        let figures = node.cluster().unwrap().figures();
        let mut skews: Vec<_> = figures.peers.iter().map(|peer| peer.clock_skew_ms).collect();
        skews.sort_unstable();
        skews
    };
    let near = |skew: Option<i64>, expected: i64| skew.is_some_and(|skew| (skew - expected).abs() < 1000);
    rig.wait("the clocks are seen", |node| skews(node).iter().all(Option::is_some))
        .await;
    let (of_first, of_second) = (skews(rig.node(0)), skews(rig.node(1)));
    assert!(near(of_first[0], 0) && near(of_first[1], 5000), "{of_first:?}");
    assert!(near(of_second[0], -5000) && near(of_second[1], -5000), "{of_second:?}");

    let away = rig.node(0).local().life().node;
    rig.stop(0).await;
    let text = "x".repeat(4000);
    let adds = (0..ADDS).map(|number| {
        let (node, name) = (rig.node(1 + number % 2), format!("key {}", number % 100));
        let text = &text;
        async move { add(node, &name, text).await }
    });
    let added: Vec<_> = futures_util::stream::iter(adds).buffer_unordered(32).collect().await;
    let failed: Vec<_> = added.into_iter().filter_map(Result::err).collect();
    assert_eq!(failed, []);
    let status = rig.node(1).cluster().unwrap().status().await;
    let member = status.members.iter().find(|member| member.node == away).unwrap();
    assert!(member.own.is_none() && member.clock_skew_ms.is_none() && member.slots == 1024);
    let figures = rig.node(1).cluster().unwrap().figures();
    let seen = figures.peers.iter().find(|peer| peer.node == away).unwrap();
    assert!(seen.lag.is_none() && seen.clock_skew_ms.is_none(), "{seen:?}");

    // It stays behind until its disk goes on, and hears of nothing before that hangs.
    rig.connects.send_replace(false);
    rig.start(0).await;
    let slow = disk.hold_syncs("shard-");
    rig.connects.send_replace(true);
    let lags = |rig: &Rig| -> Vec<Option<LagFigures>> {
        let figures = rig.node(0).cluster().unwrap().figures();
        figures.peers.iter().map(|peer| peer.lag).collect()
    };
    let is_behind = |lag: &LagFigures| lag.ops > 0 && lag.seconds > 0.0 && lag.bytes.is_some();
    until("it knows that it is behind", || {
        lags(&rig).into_iter().flatten().any(|lag| is_behind(&lag))
    })
    .await;
    let most = lags(&rig).into_iter().flatten().max_by_key(|lag| lag.ops).unwrap();
    drop(slow);
    let nothing = Some(LagFigures {
        bytes: Some(0),
        ..LagFigures::default()
    });
    until("it is not behind any more", || lags(&rig) == [nothing, nothing]).await;
    assert!(most.ops <= ADDS as u64 && most.seconds > 0.0, "{most:?}");
    // By what lies on its disk, compressed, or by what came since.
    let bytes = most.bytes.unwrap() / most.ops;
    assert!((100..5000).contains(&bytes), "{bytes} bytes an op");
    rig.end().await;
}

/// In one page of a pull, of a read through another node or of a read repair: small ops, and then a text of the largest size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_one_message_together_comes_in_several() {
    let mut rig = Rig::new(4).await;
    let away = rig.node(3).local().life().node;
    let layout = rig.node(0).cluster().unwrap().inner.layout();
    let is_held = |name: &String| {
        let (slot, _) = crate::node::replica::place_of(&user(), &key(name));
        layout.placement.replicas(slot).contains(&away)
    };
    let name = (0..).map(|number| format!("k{number}")).find(is_held).unwrap();
    let mut texts = vec!["x".repeat(10_000); 15];
    texts.push("x".repeat(crate::types::BODY_BYTES_MAX));
    rig.stop(3).await;
    for text in &texts {
        add(rig.node(0), &name, text).await.unwrap();
    }
    rig.start(3).await;
    let until = Instant::now() + PATIENCE;
    while rig.node(3).local().count(&user(), &key(&name)).await.unwrap() < texts.len() as u64 {
        assert!(Instant::now() < until, "it does not catch up");
        sleep(Duration::from_millis(20)).await;
    }
    // One of the four does not hold it, and reads it through another one.
    for node in rig.running() {
        let read = list(node, &name, Consistency::One).await.unwrap();
        assert!(read == texts, "{} values", read.len());
    }
    rig.end().await;
}
