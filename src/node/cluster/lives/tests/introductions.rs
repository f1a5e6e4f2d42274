//! A member that was just started, and what is in the way of telling the others what it holds.

use std::path::PathBuf;

use crate::node::cluster::clocks::Finding;
use crate::node::cluster::lives::known::HEARING_MAX;
use crate::node::cluster::tests::*;
use crate::node::replica::place_of;
use crate::wire::Response;

/// After what a member waits for at most: a round with a peer, and what a loaded machine takes.
const ROUND_MAX: Duration = Duration::from_secs(8);

async fn until(what: &str, most: Duration, is_so: impl Fn() -> bool) {
    let end = Instant::now() + most;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn with_first_disk(disk: &MemoryDisk) -> Rig {
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(3)
    };
    rig.started().await
}

/// Whose process lives: it answers what memory knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_hangs_takes_no_vote_from_one_that_is_started_anew() {
    let disk = MemoryDisk::new();
    let mut rig = with_first_disk(&disk).await;
    add(rig.node(1), "k", "v").await.unwrap();
    let hanging = inner(rig.node(0)).me;
    // What a small file is written to before it gets its name.
    let held = disk.hold_syncs("lives.tmp");
    rig.stop(1).await;
    rig.start(1).await;
    let started = inner(rig.node(1));
    until("it votes", HEARING_MAX + ROUND_MAX, || started.votes(SlotId(1))).await;
    assert!(started.peers.get(hanging).unwrap().is_up() && !started.lives.is_introduced(hanging));
    assert!(
        !started.votes_for(SlotId(1), hanging),
        "it could not tell a later life from this one"
    );
    let id = RequestId::new("w").unwrap();
    let end = Instant::now() + PATIENCE;
    let (user, k) = (user(), key("k"));
    let tried = || rig.node(1).add(&user, &k, "w".into(), true, Some(id), Terms::usual());
    while let Err(error) = tried().await {
        assert!(Instant::now() < end, "the two others go on: {error}");
    }
    assert_eq!(list(rig.node(2), "k", Consistency::Quorum).await.unwrap(), ["v", "w"]);
    // It is asked again.
    drop(held);
    until("it is introduced", PATIENCE, || started.lives.is_introduced(hanging)).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_does_not_open_takes_no_vote_from_the_others_and_votes_late_when_it_opens() {
    let disk = MemoryDisk::new();
    let mut rig = with_first_disk(&disk).await;
    add(rig.node(1), "k", "v").await.unwrap();
    rig.wait_equal().await;
    rig.stop(0).await;
    let bad = |dir: Option<PathBuf>| *disk.faults().bad_folder.lock() = dir;
    bad(Some(rig.dirs[0].path().join("data/shard-001-of-002")));
    rig.start(0).await;
    let (open, closed) = (SlotId(1), SlotId(1000));
    let votes = |rig: &Rig, slot| inner(rig.node(0)).votes(slot);
    let end = HEARING_MAX + ROUND_MAX;
    until("it votes", end, || votes(&rig, open)).await;
    assert!(!votes(&rig, closed) && !rig.node(0).local().is_ready());
    let peers = || inner(rig.node(0)).up_peers(inner(rig.node(0)).layout().placement.nodes());
    until("it is introduced", PATIENCE, || peers().len() == 2).await;
    // It catches up with what is open, too.
    let name = (0..).map(|number| number.to_string());
    let name = name
        .clone()
        .find(|name| place_of(&user(), &key(name)).0.0 < 512)
        .unwrap();
    rig.node(1)
        .add(&user(), &key(&name), "v".into(), true, None, at(Consistency::All))
        .await
        .unwrap();
    let slots = inner(rig.node(0)).shared_slots(inner(rig.node(1)).me);
    let mut kept = slots.clone();
    assert!(!rig.node(0).local().open_clocks(&mut kept).is_empty());
    assert!(kept.len() < slots.len() && kept.contains(&open) && !kept.contains(&closed));
    let has_all = |rig: &Rig, slot| {
        let inner = inner(rig.node(0));
        let others = rig.running().map(|node| node.local().life().node);
        inner.clocks.has_all_of(slot, others.filter(|node| *node != inner.me))
    };
    until("it has caught up", PATIENCE, || has_all(&rig, open)).await;

    // What the late one held was told to nobody.
    rig.stop(2).await;
    bad(None);
    until("it opens", PATIENCE, || rig.node(0).local().is_ready()).await;
    until("it is compared with the one that is there", PATIENCE, || {
        has_all(&rig, closed)
    })
    .await;
    assert!(votes(&rig, open) && !votes(&rig, closed) && !inner(rig.node(0)).may_list());
    rig.start(2).await;
    until("it votes", PATIENCE, || votes(&rig, closed)).await;
    assert!(inner(rig.node(0)).may_list());
    rig.end().await;
}

/// The way of the packet was long: its sender's process is gone, and the next one has introduced itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_former_life_sent_says_nothing_of_the_present_one() {
    const SLOT: SlotId = SlotId(3);
    let rig = Rig::new(1).await;
    let (node, peer) = (inner(rig.node(0)), NodeId(77));
    let clock = |last| {
        let mut clock = crate::core::clock::Clock::default();
        clock.insert_range(crate::core::stamp::OriginId(1), 1, last);
        clock
    };
    let meet = |starts: u64, connection: u64| node.meet((peer, connection), starts, 100 + starts);
    assert!(matches!(meet(4, 10).await, Response::Done));
    node.clocks.hear(peer, 10, SLOT, &clock(9));
    assert!(matches!(meet(5, 11).await, Response::Done));
    assert!(matches!(meet(4, 10).await, Response::OlderCopy { starts: 5 }));
    assert!(matches!(meet(5, 12).await, Response::Done), "it is no older copy");
    node.clocks.hear(peer, 12, SLOT, &clock(7));
    // The same life, heard late.
    assert!(matches!(meet(5, 11).await, Response::Done));
    match node.clocks.finding(peer, 12) {
        Finding::Lacks(missing) => assert_eq!(missing.count(), 2),
        _ => panic!("what it told in its former life counts no more"),
    }
    // A copy that was started as often as that life, and no oftener.
    let again = node.meet((peer, 12), 5, 999).await;
    assert!(matches!(again, Response::OlderCopy { starts: 5 }), "{again:?}");
    // A copy of the former life that is there now.
    assert!(matches!(meet(4, 13).await, Response::OlderCopy { starts: 5 }));
    assert!(
        matches!(node.clocks.finding(peer, 13), Finding::Sound),
        "it starts over"
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_that_nobody_waits_for_any_more_does_not_undo_a_later_one() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(1)
    };
    let mut rig = rig.started().await;
    let peer = NodeId(77);
    let meet = |rig: &Rig, starts: u64| {
        let inner = rig.node(0).cluster().unwrap().inner.clone();
        tokio::spawn(async move { inner.meet((peer, starts), starts, 100 + starts).await })
    };
    let held = disk.hold_syncs("lives.tmp");
    let spare = rig.dirs[0].path().join("data/lives.tmp");
    let names = |starts: u64| {
        let bytes = disk.content(&spare).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(&format!("\"starts\":{starts}"))
    };
    let first = meet(&rig, 5);
    until("it is being written", PATIENCE, || names(5)).await;
    // Its connection has ended.
    first.abort();
    assert!(first.await.is_err());
    let second = meet(&rig, 6);
    sleep(Duration::from_millis(300)).await;
    assert!(names(5) && !names(6), "two write at once");
    drop(held);
    assert!(matches!(second.await.unwrap(), Response::Done));
    rig.stop(0).await;
    rig.start(0).await;
    let older = meet(&rig, 5).await.unwrap();
    assert!(matches!(older, Response::OlderCopy { starts: 6 }), "{older:?}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_stays_locked_while_a_life_is_written() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(1)
    };
    let rig = rig.started().await;
    let at_rest = || inner(rig.node(0)).local.files().0.available_permits();
    let before = at_rest();
    let held = disk.hold_syncs("lives.tmp");
    let node = rig.node(0).cluster().unwrap().inner.clone();
    let meeting = tokio::spawn(async move { node.meet((NodeId(77), 1), 5, 105).await });
    until("it is being written", PATIENCE, || at_rest() < before).await;
    // Its connection has ended, and the node may be stopped.
    meeting.abort();
    assert!(meeting.await.is_err() && at_rest() < before);
    drop(held);
    until("it is written", PATIENCE, || at_rest() == before).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_s_word_counts_when_all_others_had_the_chance_to_say_what_they_know_against_it() {
    let rig = Rig::new(1).await;
    let node = inner(rig.node(0));
    let figures = || rig.node(0).cluster().unwrap().figures();
    let (slots, unsynced) = (figures().voting_slots, figures().unsynced_slots);
    assert!(slots > 0 && unsynced == 0 && rig.node(0).why_not_counting().is_none());
    let record = |id: u64, seat: u32| {
        let mut record = node.own_record(seat, 3);
        if seat > 0 {
            record.node = NodeId(id).to_string();
            record.peer = free_port();
        }
        serde_json::to_string(&record).unwrap()
    };
    node.take_told_table(MemberTable::of(&[record(0, 0), record(7, 1), record(8, 2)]));
    node.lives.meet_anew();
    node.lives.set_heard(NodeId(7));
    assert!(!node.is_known(), "the other one was not heard");
    assert_eq!(figures().voting_slots, 0);
    assert!(figures().unsynced_slots > 0 && rig.node(0).why_not_counting().is_some());
    node.lives.set_heard(NodeId(8));
    assert!(node.is_known() && figures().unsynced_slots == 0);
    rig.end().await;
}
