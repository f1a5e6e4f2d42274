//! A write that one node carries out for another, while another try of the same write is still under way.

use crate::core::op::Body;
use crate::node::cluster::tests::*;
use crate::wire::{ForwardedKind, ForwardedWrite, Request, Response};

const VALUE_BYTES_MAX: u64 = 1000;

/// Who is asked first has the write, did not get to it yet, and knows of none of the value's parts. It goes by what it knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_not_refused_while_another_replica_may_carry_it_out() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        value_bytes_max: VALUE_BYTES_MAX,
        ..Rig::unstarted(3)
    };
    let rig = rig.started().await;
    // What the first one lacks stays lacking.
    stop_task(rig.node(0), SYNC).await;
    let first = inner(rig.node(0)).me;
    let asks_first = |(front, other): &(usize, usize)| {
        let replicas = [first, inner(rig.node(*other)).me];
        inner(rig.node(*front)).up_peers(&replicas)[0].node() == first
    };
    let (front, other) = [(1, 2), (2, 1)].into_iter().find(asks_first).unwrap();
    let ops = Ops::of("k".to_owned());
    let part = Body::Part("p".repeat(VALUE_BYTES_MAX as usize).into());
    hold(rig.node(other), ops.op(1, part)).await;

    let slow = disk.hold_syncs("shard-");
    let (at_work, before) = (rig.node(0).clone(), ops.value(2));
    let at_work = tokio::spawn(async move { hold(&at_work, before).await });
    sleep(Duration::from_millis(100)).await;
    let write = |tries: usize| {
        Request::Write(ForwardedWrite {
            user: user().as_str().to_owned(),
            key: "k".to_owned(),
            kind: ForwardedKind::Add {
                text: bytes::Bytes::from_static(b"text"),
                finish: true,
            },
            request_id: Some([7; 16]),
            is_first_try: tries == 0,
            terms: calls::wire_terms(Terms::usual()),
        })
    };
    let front = inner(rig.node(front)).clone();
    let replicas = [first, inner(rig.node(other)).me];
    let (peer, asking) = (front.peers.get(replicas[1]).unwrap(), front.clone());
    let asked = tokio::spawn(async move { asking.through(&replicas, write, Terms::usual(), true).await });
    let is_asked = || front.counters.hedged.load(Ordering::Relaxed) == 1;
    until("the other one is asked too", is_asked).await;
    wait_answered(&[peer]).await;
    // By then that answer has been looked at.
    sleep(Duration::from_millis(100)).await;
    drop(slow);
    at_work.await.unwrap();
    let told = asked.await.unwrap().map(|(_, response)| response);
    assert!(matches!(told, Ok(Response::Written { repeated: false })), "{told:?}");
    // Two others may have been enough.
    let until = Instant::now() + PATIENCE;
    while count_at(rig.node(0), "k").await < 2 && Instant::now() < until {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(list(rig.node(0), "k", Consistency::One).await.unwrap(), ["v2", "text"]);
    rig.end().await;
}
