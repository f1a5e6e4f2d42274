//! A member whose disk fails, among others whose disks do not.

use std::sync::atomic::Ordering;

use crate::core::clock::Clock;
use crate::core::op::Body;
use crate::node::cluster::tests::*;
use crate::node::local::Wanted;
use crate::node::replica::place_of;
use crate::shard::{WriteContext, WriteKind};
use crate::wire::{ForwardedKind, ForwardedWrite, Request, Response, WireError};

const TRIES: usize = 100;

/// Lets the first node hold its copy of the key in a segment, and no more be able to read it.
pub(super) async fn fail_reads_of(rig: &Rig, disk: &MemoryDisk, name: &str) {
    let fails = &disk.faults().fail_read;
    for round in 0..TRIES {
        // What is in the way of it in memory goes to the disk.
        for at in 0..8 {
            let filler = format!("{round} {at}");
            add(rig.node(1), &filler, &"x".repeat(16 << 10)).await.unwrap();
        }
        sleep(Duration::from_millis(50)).await;
        fails.store(true, Ordering::Relaxed);
        match rig.node(0).local().count(&user(), &key(name)).await {
            Err(OpError::Disk(_)) => return,
            _ => fails.store(false, Ordering::Relaxed),
        }
    }
    panic!("the key stays in memory");
}

/// So many members, of which the first has this disk.
pub(super) async fn first_of(members: usize, disk: &MemoryDisk) -> Rig {
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(members)
    };
    rig.started().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_disk_cannot_read_comes_from_another_replica() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    let (user, k, id) = (user(), key("k"), Some(RequestId([7; 16])));
    let again = |level| rig.node(0).add(&user, &k, "v".into(), true, id, at(level));
    assert_eq!(again(Consistency::All).await.unwrap(), Added::Appended);
    fail_reads_of(&rig, &disk, "k").await;
    let node = rig.node(0);
    for level in [Consistency::One, Consistency::Quorum] {
        assert_eq!(list(node, "k", level).await.unwrap(), ["v"]);
        assert_eq!(node.count(&user, &k, at(level)).await.unwrap(), 1);
        assert_eq!(again(level).await.unwrap(), Added::Repeated);
    }
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    rig.end().await;
}

/// It cannot take what another one holds, so too few hold the same: a read is never told that the disk is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_a_full_disk_keeps_from_its_level_is_told_how_many_hold_the_same() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    for index in 0..3 {
        stop_task(rig.node(index), SYNC).await;
    }
    disk.faults().free_bytes.store(0, Ordering::Relaxed);
    let ops = Ops::of("k".to_owned());
    let local = rig.node(0).local();
    // What logs there are takes some.
    let mut place = 1;
    while !matches!(
        local
            .apply(vec![ops.op(place, Body::Part("x".repeat(1 << 20).into()))])
            .await,
        Err(OpError::DiskFull)
    ) {
        place += 1;
    }
    hold(rig.node(1), ops.value(place + 1)).await;
    let inner = &rig.node(0).cluster().unwrap().inner;
    let read = inner.source(&user(), &key("k"), at(Consistency::All)).await;
    let quorum = OpError::Quorum {
        needed: 3,
        answered: 2,
        maybe_applied: false,
    };
    assert_eq!(read.map(|_| ()), Err(quorum));
    rig.end().await;
}

/// Nothing of it was sent yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_cannot_be_read_on_comes_whole_from_another_replica() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    let (user, k) = (user(), key("k"));
    let texts: Vec<String> = (0..64)
        .map(|number| format!("{number} {}", "x".repeat(8 << 10)))
        .collect();
    for text in &texts {
        let all = rig
            .node(0)
            .add(&user, &k, text.as_str().into(), true, None, at(Consistency::All));
        all.await.unwrap();
    }
    fail_reads_of(&rig, &disk, "k").await;
    let faults = disk.faults();
    for hangs in [false, true] {
        faults.fail_read.store(false, Ordering::Relaxed);
        let mut reader = rig.node(0).get(&user, &k, 0, u64::MAX, Terms::usual()).await.unwrap();
        reader.until_sent();
        let first = reader.next(1).await.unwrap();
        assert_eq!(first[0].text.as_ref(), texts[0]);
        let held = hangs.then(|| disk.hold_reads("shard-"));
        faults.fail_read.store(!hangs, Ordering::Relaxed);
        let rest = rest_of(&mut reader).await.unwrap();
        assert_eq!(rest, texts, "hangs: {hangs}");
        drop(held);
    }
    // What was sent is not begun anew.
    faults.fail_read.store(false, Ordering::Relaxed);
    let mut reader = rig.node(0).get(&user, &k, 0, u64::MAX, Terms::usual()).await.unwrap();
    reader.until_sent();
    reader.next(1).await.unwrap();
    reader.sent();
    faults.fail_read.store(true, Ordering::Relaxed);
    assert!(matches!(rest_of(&mut reader).await, Err(OpError::Disk(_))));
    faults.fail_read.store(false, Ordering::Relaxed);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_read_is_not_taken_for_peers_that_cannot_take() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    let (user, k) = (user(), key("k"));
    let all = rig.node(0).add(&user, &k, "v".into(), true, None, at(Consistency::All));
    all.await.unwrap();
    let ops = Ops::of("k".to_owned());
    // What the others lack cannot be read.
    hold(rig.node(0), ops.value(2)).await;
    fail_reads_of(&rig, &disk, "k").await;
    for index in 1..3 {
        hold(rig.node(index), ops.value(1)).await;
    }
    assert_eq!(list(rig.node(0), "k", Consistency::Quorum).await.unwrap(), ["v", "v1"]);
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    rig.end().await;
}

/// A text that does not compress.
fn noise() -> String {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + (state >> 58) as u8)
    };
    (0..20_000).map(|_| next()).collect()
}

/// Damages blocks of all segments of users' shards on the first node's disk.
fn damage_segments(rig: &Rig, disk: &MemoryDisk) {
    let data = rig.dirs[0].path().join("data");
    let names = |dir: &std::path::Path| disk.as_disk().list(dir).unwrap().into_iter().map(|entry| entry.name);
    for shard in names(&data).filter(|name| name.starts_with("shard-")) {
        let dir = data.join(shard);
        for segment in names(&dir).filter(|name| name.starts_with("segment-")) {
            let path = dir.join(segment);
            let mut bytes = disk.content(&path).unwrap();
            let end = bytes.len() / 2;
            (600..end).step_by(701).for_each(|at| bytes[at] ^= 0x55);
            disk.put(&path, bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_something_carries_out_nothing_of_it_alone() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    let (user, k, id) = (user(), key("k"), Some(RequestId([7; 16])));
    let (node, slot, text) = (rig.node(0), place_of(&user, &k).0, noise());
    let again = |level| node.add(&user, &k, text.as_str().into(), true, id, at(level));
    assert_eq!(again(Consistency::All).await.unwrap(), Added::Appended);
    fail_reads_of(&rig, &disk, "k").await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    damage_segments(&rig, &disk);
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    assert!(matches!(node.local().count(&user, &k).await, Err(OpError::Damaged(_))));
    let is_lost = || node.local().lost_of(slot).is_ok_and(|lost| !lost.is_empty());
    until("it knows what it lost", || node.local().is_ready() && is_lost()).await;
    // Others know of the request, and hold what the clear is to remove.
    assert_eq!(again(Consistency::One).await.unwrap(), Added::Repeated);
    node.clear(&user, &k, None, at(Consistency::One)).await.unwrap();
    for node in rig.running().skip(1) {
        assert!(list(node, "k", Consistency::Quorum).await.unwrap().is_empty());
    }
    rig.end().await;
}

/// Two names of one shard: what is written of the first goes to a segment with what is written of the second then.
pub(super) fn two_of_a_shard() -> [String; 2] {
    let mut names = (0..).map(|number| number.to_string());
    let is_of_first = |name: &String| place_of(&user(), &key(name)).0.0 < 512;
    std::array::from_fn(|_| names.find(is_of_first).unwrap())
}

/// The write that is sent to a replica for another node.
fn sent_on(name: &str, id: RequestId) -> Request {
    Request::Write(ForwardedWrite {
        user: user().as_str().to_owned(),
        key: name.to_owned(),
        kind: ForwardedKind::Add {
            text: bytes::Bytes::from_static(b"v"),
            finish: true,
        },
        request_id: Some(id.0),
        is_first_try: false,
        terms: calls::wire_terms(Terms::usual()),
    })
}

/// Their ops are on this disk alone, where one cannot be read, and the other one was cleared, and what lies beside it cannot be read. The others
/// refuse them as too long. They come to them one day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_taken_here_is_in_doubt_whatever_goes_wrong_with_it_then() {
    const VALUE_BYTES_MAX: usize = 200 << 10;
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        value_bytes_max: VALUE_BYTES_MAX as u64,
        ..Rig::unstarted(3)
    };
    let rig = rig.started().await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    let (user, id) = (user(), RequestId([7; 16]));
    let alone = async |name: &str, kind: WriteKind, seen: Option<Clock>| {
        let wanted = Wanted {
            user: &user,
            key: &key(name),
            request_id: matches!(kind, WriteKind::Add { .. }).then_some(id),
            kind,
        };
        let context = WriteContext {
            seen,
            ..WriteContext::default()
        };
        let done = rig.node(0).local().write(wanted, context).await;
        assert_eq!(done.unwrap(), Added::Appended);
    };
    let add = || WriteKind::Add {
        text: "v".into(),
        finish: true,
    };
    let names = two_of_a_shard();
    let names @ [sealed, cleared] = names.each_ref().map(String::as_str);
    alone(sealed, add(), None).await;
    hold(rig.node(0), Ops::of(cleared.to_owned()).value(2)).await;
    fail_reads_of(&rig, &disk, cleared).await;
    alone(cleared, add(), None).await;
    let clock = rig.node(0).local().clock(place_of(&user, &key(cleared)).0);
    alone(cleared, WriteKind::Clear, Some(clock.unwrap())).await;
    for name in names {
        let full = Ops::of(name.to_owned()).op(1, Body::Part("p".repeat(VALUE_BYTES_MAX).into()));
        for index in [1, 2] {
            hold(rig.node(index), full.clone()).await;
        }
    }
    let peer = inner(rig.node(1)).peers.get(inner(rig.node(0)).me).unwrap();
    for name in names {
        let unknown = OpError::ShardUnavailable { maybe_applied: true };
        let k = key(name);
        let again = rig.node(0).add(&user, &k, "v".into(), true, Some(id), patient());
        assert_eq!(again.await, Err(unknown), "{name}");
        let told = peer.call(sent_on(name, id)).unwrap().await.unwrap();
        let unknown = WireError::Unavailable { maybe_applied: true };
        assert!(
            matches!(&told, Response::Failed(why) if *why == unknown),
            "{name}: {told:?}"
        );
    }
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    rig.end().await;
}
