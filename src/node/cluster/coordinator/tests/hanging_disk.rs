//! A member whose disk hangs, among others whose disks do not.

use super::bad_disk::{fail_reads_of, first_of, two_of_a_shard};
use crate::node::Add;
use crate::node::cluster::coordinator::{Patience, Taken, Try};
use crate::node::cluster::tests::*;
use crate::node::local::Wanted;
use crate::node::replica::place_of;
use crate::shard::{WriteContext, WriteKind};
use crate::store::memory_disk::Holding;
use crate::wire::{Request, Response, WireError, WireTerms};

/// All three hold the key "k", and every read on the disk of the first one hangs until what is returned is dropped. Nobody catches up.
async fn three_of_which_one_hangs_under_reads() -> (Rig, Holding) {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    let (user, k) = (user(), key("k"));
    let all = rig.node(0).add(&user, &k, "v".into(), true, None, at(Consistency::All));
    all.await.unwrap();
    fail_reads_of(&rig, &disk, "k").await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    let hangs = disk.hold_reads("shard-");
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    (rig, hangs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_under_reads_keeps_nobody_waiting() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    let (user, k) = (user(), key("k"));
    let all = rig.node(0).add(&user, &k, "v".into(), true, None, at(Consistency::All));
    all.await.unwrap();
    fail_reads_of(&rig, &disk, "k").await;
    let hangs = disk.hold_reads("shard-");
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    let node = rig.node(0);
    for level in [Consistency::One, Consistency::Quorum] {
        assert_eq!(list(node, "k", level).await.unwrap(), ["v"]);
        assert_eq!(node.count(&user, &k, at(level)).await.unwrap(), 1);
        // Of three that list what they have, two are enough.
        let listed = rig.node(1).list_keys(&user, "k", None, 10, at(level)).await;
        assert_eq!(listed.unwrap().keys, std::slice::from_ref(&k));
    }
    let alone = node.list_keys(&user, "k", None, 10, at(Consistency::All)).await;
    assert_eq!(alone, Err(OpError::Deadline { maybe_applied: false }));
    drop(hangs);
    rig.end().await;
}

/// The sync of what is added first does not end, and what comes after it waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_under_a_sync_keeps_nobody_waiting() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    let (user, k) = (user(), key("k"));
    add(rig.node(0), "k", "v").await.unwrap();
    rig.wait_equal().await;
    let hangs = disk.hold_syncs("shard-");
    let mut expected = vec!["v".to_owned()];
    for round in 0..3 {
        // Before it is known that the disk hangs, and after that.
        for through in 0..3 {
            let text = format!("{round} {through}");
            add(rig.node(through), "k", &text).await.unwrap();
            expected.push(text);
        }
        for node in rig.running() {
            assert_eq!(list(node, "k", Consistency::Quorum).await.unwrap(), expected);
            let count = node.count(&user, &k, at(Consistency::Quorum)).await.unwrap();
            assert_eq!(count, expected.len() as u64);
            let name = format!("new {round}");
            add(rig.node(1), &name, "v").await.unwrap();
            let listed = node.list_keys(&user, &name, None, 10, Terms::usual()).await.unwrap();
            assert_eq!(listed.keys, [key(&name)]);
        }
    }
    let id = Some(RequestId([7; 16]));
    for _ in 0..2 {
        let again = rig.node(0).add(&user, &k, "id".into(), true, id, Terms::usual());
        again.await.unwrap();
    }
    expected.push("id".to_owned());
    rig.wait_why(0, "has kept writes waiting").await;
    assert!(rig.node(1).is_ready());
    drop(hangs);
    rig.wait_equal().await;
    assert!(rig.node(0).is_ready());
    for node in rig.running() {
        assert_eq!(list(node, "k", Consistency::One).await.unwrap(), expected);
    }
    rig.end().await;
}

/// Nobody does it, and nobody ever will.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_shard_had_not_begun_with_by_its_deadline_changes_nothing() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    let inner = &rig.node(0).cluster().unwrap().inner;
    let (user, key) = (user(), key("k"));
    let wanted = Wanted {
        user: &user,
        key: &key,
        kind: WriteKind::Add {
            text: "late".into(),
            finish: true,
        },
        request_id: None,
    };
    let hangs = disk.hold_syncs("shard-");
    // The others have it.
    add(rig.node(0), "k", "first").await.unwrap();
    let terms = Terms {
        deadline: Instant::now() + Duration::from_millis(300),
        ..Terms::usual()
    };
    let late = inner
        .write_here(wanted, Try::First, terms, Patience::Waits, &Taken::default())
        .await;
    assert_eq!(late, Err(OpError::Deadline { maybe_applied: false }));
    drop(hangs);
    add(rig.node(0), "k", "last").await.unwrap();
    rig.wait_equal().await;
    assert_eq!(
        list(rig.node(0), "k", Consistency::All).await.unwrap(),
        ["first", "last"]
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_does_not_say_that_it_did_nothing_when_it_was_too_late() {
    let disk = MemoryDisk::new();
    let rig = first_of(1, &disk).await;
    let (user, key) = (user(), key("k"));
    let wanted = Wanted {
        user: &user,
        key: &key,
        kind: WriteKind::Add {
            text: "v".into(),
            finish: true,
        },
        request_id: None,
    };
    let late = Terms {
        deadline: Instant::now(),
        ..Terms::usual()
    };
    let inner = &rig.node(0).cluster().unwrap().inner;
    let slow = disk.hold_syncs("shard-");
    let written = inner
        .write_here(wanted, Try::First, late, Patience::Waits, &Taken::default())
        .await;
    assert_eq!(written, Err(OpError::Deadline { maybe_applied: true }));
    drop(slow);
    rig.wait("it did it all the same", |node| {
        !node.local().clock(place_of(&user, &key).0).unwrap().is_empty()
    })
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_keys_is_given_up_at_all_members_when_nobody_waits_for_it() {
    let (rig, hangs) = three_of_which_one_hangs_under_reads().await;
    let soon = Terms {
        consistency: Consistency::All,
        deadline: Instant::now() + Duration::from_millis(200),
    };
    let listed = rig.node(1).list_keys(&user(), "k", None, 10, soon).await;
    assert_eq!(listed, Err(OpError::Deadline { maybe_applied: false }));
    let first = rig.node(0).local().life().node;
    let peer = rig.node(1).cluster().unwrap().inner.peers.get(first);
    // The disk hangs on.
    wait_answered(&[peer.unwrap()]).await;
    drop(hangs);
    rig.end().await;
}

/// Somebody waits for it in vain, and nobody for the rest of what it is read for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_for_another_node_ends_with_its_deadline_on_a_disk_that_hangs() {
    let (rig, hangs) = three_of_which_one_hangs_under_reads().await;
    let peer = inner(rig.node(1)).peers.get(inner(rig.node(0)).me).unwrap();
    let terms = |left_ms| WireTerms { level: 0, left_ms };
    let read = |reader, left_ms| Request::Read {
        reader,
        user: "u".to_owned(),
        key: "k".to_owned(),
        offset: 0,
        limit: u64::MAX,
        terms: terms(left_ms),
    };
    let count = |left_ms| Request::Count {
        user: "u".to_owned(),
        key: "k".to_owned(),
        terms: terms(left_ms),
    };
    let (long_read, long_count) = (peer.call(read(1, 600_000)).unwrap(), peer.call(count(600_000)).unwrap());
    let (short_read, short_count) = (peer.call(read(2, 300)).unwrap(), peer.call(count(300)).unwrap());
    let late = WireError::Deadline { maybe_applied: false };
    tokio::select! {
        biased;
        _ = long_read => panic!("this one has time"),
        _ = long_count => panic!("this one too"),
        told = async { [short_read.await.unwrap(), short_count.await.unwrap()] } => {
            assert!(told.iter().all(|told| matches!(told, Response::Failed(why) if *why == late)), "{told:?}");
        }
    }
    drop(hangs);
    rig.end().await;
}

/// Whether the request was done before lies where it takes for ever to be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_has_to_be_looked_up_on_a_disk_that_hangs_goes_to_another_replica() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    let (user, id) = (user(), RequestId([7; 16]));
    let names = two_of_a_shard();
    for name in &names {
        let wanted = Wanted {
            user: &user,
            key: &key(name),
            kind: WriteKind::Add {
                text: "v".into(),
                finish: true,
            },
            request_id: Some(id),
        };
        let alone = rig.node(0).local().write(wanted, WriteContext::default());
        assert_eq!(alone.await.unwrap(), Added::Appended);
    }
    let [single, several] = names.each_ref().map(|name| key(name));
    fail_reads_of(&rig, &disk, &names[1]).await;
    let hangs = disk.hold_reads("shard-");
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    let again = rig
        .node(0)
        .add(&user, &single, "v".into(), true, Some(id), Terms::usual());
    again.await.unwrap();
    assert_eq!(list(rig.node(1), &names[0], Consistency::Quorum).await.unwrap(), ["v"]);
    // A series is left to the caller, who tries each of them as the one above.
    let add = |text: &str, id| Add {
        text: text.into(),
        finish: true,
        request_id: Some(id),
    };
    let series = vec![add("v", id), add("w", RequestId([8; 16]))];
    let together = rig.node(0).add_series(&user, &several, series, Terms::usual()).await;
    assert_eq!(together, []);
    drop(hangs);
    rig.end().await;
}

/// Its op is on this disk alone, and shows when that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_may_have_been_taken_where_a_disk_hangs_is_in_doubt_at_its_deadline() {
    let disk = MemoryDisk::new();
    let rig = first_of(3, &disk).await;
    for node in rig.running() {
        stop_task(node, SYNC).await;
    }
    let (user, k) = (user(), key("k"));
    let wanted = |id| Wanted {
        user: &user,
        key: &k,
        kind: WriteKind::Add {
            text: "v".into(),
            finish: true,
        },
        request_id: Some(RequestId([id; 16])),
    };
    let alone = rig.node(0).local().write(wanted(7), WriteContext::default());
    assert_eq!(alone.await.unwrap(), Added::Appended);
    fail_reads_of(&rig, &disk, "k").await;
    let hangs = disk.hold_reads("shard-");
    disk.faults().fail_read.store(false, Ordering::Relaxed);
    let terms = Terms {
        // By then it is being looked up.
        deadline: Instant::now() + Duration::from_secs(3),
        ..Terms::usual()
    };
    let taken = Taken::default();
    let again = inner(rig.node(0)).write_here(wanted(7), Try::Any, terms, Patience::Waits, &taken);
    assert_eq!(again.await, Err(OpError::Deadline { maybe_applied: true }));
    drop(hangs);
    rig.end().await;
}
