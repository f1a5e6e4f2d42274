//! What a node has copied of its peers counts only where it is all that they had.

use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::Body;
use crate::core::slot::SLOT_COUNT;
use crate::core::stamp::OriginId;
use crate::node::cluster::tests::*;
use crate::node::replica::place_of;
use crate::wire::{NOT_NAMED, Response};

pub(super) fn slot_of(name: &str) -> SlotId {
    place_of(&user(), &key(name)).0
}

impl Rig {
    pub(super) async fn back_up(&mut self, index: usize) -> TempDir {
        self.stop(index).await;
        let copied = TempDir::new().unwrap();
        copy(self.dirs[index].path(), copied.path());
        self.start(index).await;
        self.wait_linked().await;
        self.wait("it votes again", |node| inner(node).votes(SlotId(1))).await;
        copied
    }

    /// Sets the node's disk back to this one. The node knows that, and does not catch up by itself.
    pub(super) async fn set_back(&mut self, index: usize, disk: TempDir) {
        self.stop(index).await;
        self.dirs[index] = disk;
        // It would catch up as soon as it reaches a peer.
        self.connects.send_replace(false);
        self.start(index).await;
        let node = self.node(index);
        stop_task(node, SYNC).await;
        self.connects.send_replace(true);
        for peer in self.running().filter(|peer| id(peer) != id(node)) {
            let peer = || inner(node).peers.get(id(peer)).filter(Peer::is_up);
            until("it is linked", || peer().is_some()).await;
            inner(node).introduce(&peer().unwrap()).await.unwrap();
        }
        assert!(inner(node).clocks.is_new());
    }

    /// Looks at one slot at a time: to look at large clocks whole again and again would take longer than what is waited for.
    async fn wait_covers(&self, index: usize, clocks: &SlotClocks) {
        let local = self.node(index).local();
        for (slot, clock) in clocks.slots() {
            let is_covered = || local.clock(slot).is_ok_and(|own| own.covers(clock));
            until("it has all of a slot", is_covered).await;
        }
    }

    pub(super) fn peer(&self, from: usize, to: usize) -> Peer {
        inner(self.node(from)).peers.get(id(self.node(to))).unwrap()
    }
}

/// A page is empty where nothing was found in all that may be read for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_goes_on_behind_an_empty_page() {
    let rig = Rig::new(2).await;
    for index in 0..2 {
        stop_task(rig.node(index), SYNC).await;
    }
    let (node, peer) = (inner(rig.node(1)), rig.peer(1, 0));
    let before = rig.node(1).local().clocks();
    let mut wants = SlotClocks::default();
    for number in 0..20 {
        let value = Ops::of(format!("k{number}")).value(1);
        wants.insert(value.op.dot.slot, value.op.dot.origin, value.op.dot.seq);
        hold(rig.node(0), value).await;
    }
    let mut export = rig.node(0).local().export(&wants).unwrap();
    let mut pages = Vec::new();
    while let Some(page) = export.next(1 << 20).await.unwrap() {
        pages.push(page.len());
    }
    let first_empty = pages.iter().position(|ops| *ops == 0).unwrap();
    assert!(pages[first_empty..].iter().any(|ops| *ops > 0), "{pages:?}");

    // Of these, the first shard holds nothing any more.
    let mut told = SlotClocks::default();
    told.insert(SlotId(1), OriginId(7), 1);
    rig.node(0).local().know_dropped(&told);
    rig.wait_covers(0, &told).await;
    assert!(!inner(rig.node(0)).should_be_held(&told).await.unwrap());
    let (slot, held) = wants.slots().last().unwrap();
    told.join_slot(slot, held);
    assert!(inner(rig.node(0)).should_be_held(&told).await.unwrap());

    assert_eq!(node.pull(&peer, &wants, &before).await.unwrap(), wants);
    for number in 0..20 {
        assert_eq!(count_at(rig.node(1), &format!("k{number}")).await, 1);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pulled_comes_in_portions_and_page_by_page() {
    const VALUES: u64 = 12;
    let pages = Pages {
        pull_bytes: 200,
        portion_bytes: 100,
        ..Pages::default()
    };
    let rig = Rig {
        pages,
        ..Rig::unstarted(2)
    };
    let rig = rig.started().await;
    for index in 0..2 {
        stop_task(rig.node(index), SYNC).await;
    }
    let (node, peer) = (inner(rig.node(1)), rig.peer(1, 0));
    let before = rig.node(1).local().clocks();
    let (names, mut wants) = (["k0", "k1", "k2"], SlotClocks::default());
    for name in names {
        let ops = Ops::of(name.to_owned());
        for place in 1..=VALUES {
            let value = ops.op(place, Body::Value("x".repeat(80).into()));
            wants.insert(value.op.dot.slot, value.op.dot.origin, value.op.dot.seq);
            hold(rig.node(0), value).await;
        }
    }
    assert!(clocks::portions(&wants, node.pages.portion_bytes).len() > 1);
    assert_eq!(node.pull(&peer, &wants, &before).await.unwrap(), wants);
    for name in names {
        assert_eq!(count_at(rig.node(1), name).await, VALUES);
    }
    rig.end().await;
}

/// Each start of a node that writes adds to the clocks, and so does each gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_larger_than_a_message_are_compared_and_copied() {
    const SLOTS: u16 = 260;
    const RANGES: u64 = 1_760;
    let mut rig = Rig::new(2).await;
    rig.stop(1).await;
    let mut many = SlotClocks::default();
    for slot in 0..SLOTS {
        for range in 0..RANGES {
            many.insert(SlotId(slot), OriginId(7), (1 << 60) + 2 * range);
        }
    }
    rig.node(0).local().know_dropped(&many);
    rig.wait_covers(0, &many).await;
    rig.start(1).await;
    rig.wait_covers(1, &many).await;
    rig.end().await;
}

/// Who goes by an older table may still write with the node whose seat was given away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_took_a_seat_does_not_vote_before_all_others_know() {
    let mut rig = Rig::new(3).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.make_room();
    rig.start(3).await;
    let (old, new) = (id(rig.node(1)), id(rig.node(3)));
    rig.stop(1).await;
    stop_looking(rig.node(2)).await;
    let replace = MemberChange::Replace { old, new };
    let end = Instant::now() + PATIENCE;
    while let Err(refused) = change(rig.node(0), replace).await {
        assert!(Instant::now() < end, "{refused}");
        sleep(Duration::from_millis(50)).await;
    }
    let by = |index: usize| inner(rig.node(index)).layout();
    until("it is let in", || by(0).table.is_up(new) && by(3).table.is_up(new)).await;
    let end = Instant::now() + PATIENCE;
    while count_at(rig.node(3), "k").await == 0 {
        assert!(Instant::now() < end, "nothing is copied");
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_secs(3)).await;
    assert!(by(2).table.is_up(old) && !by(2).table.is_up(new));
    assert!(!inner(rig.node(3)).votes(SlotId(1)));
    let Ok(Response::Differ(digests)) = inner(rig.node(2)).answer_compare(new, 0) else {
        panic!("it is not in its table");
    };
    assert!(digests.iter().any(|(slot, _)| *slot == NOT_NAMED));

    inner(rig.node(2)).load_table().await.unwrap();
    until("it votes", || inner(rig.node(3)).votes(SlotId(1))).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_being_opened_anew_does_not_look_empty() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(1)
    };
    let rig = rig.started().await;
    add(rig.node(0), "k", "v").await.unwrap();
    let (node, local) = (inner(rig.node(0)), rig.node(0).local());
    let slots = [slot_of("k")];
    assert_eq!(node.digests(&slots).unwrap().len(), 1);
    let shard = u16::from(slots[0].0 >= SLOT_COUNT / 2);
    let folder = rig.dirs[0].path().join(format!("data/shard-{shard:03}-of-002"));
    *disk.faults().bad_folder.lock() = Some(folder);
    local.kill_shard_of(&user(), &key("k"));
    until("it is gone", || !local.is_ready()).await;
    assert!(node.digests(&slots).is_err() && local.all_clocks().is_err());
    assert!(node.answer_compare(NodeId(7), 0).is_err() && node.answer_compare(id(rig.node(0)), 0).is_err());
    *disk.faults().bad_folder.lock() = None;
    until("it is back", || local.is_ready()).await;
    assert_eq!(node.digests(&slots).unwrap().len(), 1);
    rig.end().await;
}

/// Flips a bit in every segment of the first shard. The slots of the other one stay readable, however few blocks there are.
fn damage_segments(disk: &MemoryDisk, data: &std::path::Path) {
    let names_in = |dir: &std::path::Path| disk.as_disk().list(dir).unwrap().into_iter().map(|entry| entry.name);
    for shard in names_in(data).filter(|name| name.starts_with("shard-000")) {
        let dir = data.join(shard);
        for name in names_in(&dir).filter(|name| name.ends_with(".kvs")) {
            let path = dir.join(name);
            let mut bytes = disk.content(&path).unwrap();
            let third = bytes.len() / 3;
            bytes[third] ^= 0x10;
            disk.put(&path, bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_could_not_read_does_not_count_as_copied() {
    const KEYS: u64 = 120;
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(2)
    };
    let mut rig = rig.started().await;
    let before = rig.back_up(1).await;
    for number in 0..KEYS {
        let text = (0..2_000).map(|at| char::from(b'a' + (at * at * number % 1_009 % 26) as u8));
        add(rig.node(0), &format!("k{number}"), &text.collect::<String>())
            .await
            .unwrap();
    }
    rig.wait_equal().await;
    until("the first log is sealed", || {
        rig.node(0).local().figures()[0].stats.sealed_ops > 0
    })
    .await;
    // While it does not run: no merge that began before takes the place of what is damaged.
    rig.stop(0).await;
    damage_segments(&disk, &rig.dirs[0].path().join("data"));
    // Nor is it written anew without what cannot be read, after which the peer would not say any more that it has that; and where it named it
    // itself, its shard would be reopened, and the round break off.
    let unsalvaged = disk.hold_syncs("/segment-");
    rig.start(0).await;
    rig.wait_linked().await;
    rig.set_back(1, before).await;
    let held = rig.node(0).local().clocks();
    let (node, peer) = (inner(rig.node(1)), rig.peer(1, 0));
    node.round(&peer, true).await.unwrap();
    let mine = rig.node(1).local().clocks();
    let is_copied = |(slot, held): &(SlotId, &Clock)| mine.get(*slot).is_some_and(|mine| mine.covers(held));
    let (copied, missing): (Vec<_>, Vec<_>) = held.slots().partition(is_copied);
    assert!(!copied.is_empty() && !missing.is_empty(), "{} missing", missing.len());
    let counts = |(slot, _): &(SlotId, &Clock)| node.clocks.has_all_of(*slot, [peer.node()]);
    // Around what cannot be read some came that nobody can vouch for.
    assert!(copied.iter().any(counts) && !missing.iter().any(counts));
    drop(unsalvaged);
    rig.end().await;
}

/// Each of many texts that stand alone takes a range of its own in a clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_which_more_is_held_than_a_message_takes_are_reconciled_piece_by_piece() {
    const TEXTS: u64 = 300;
    let rig = Rig::new(2).await;
    for index in 0..2 {
        stop_task(rig.node(index), SYNC).await;
    }
    let (ops, slot) = (Ops::of("k".to_owned()), slot_of("k"));
    let alone = |nth: u64| (1 << 60) + 2 * nth;
    let texts = |first: u64| {
        let text = |nth| {
            let mut keyed = ops.value(1);
            (keyed.op.dot.seq, keyed.op.time.0) = (alone(nth), keyed.op.time.0 + nth);
            keyed
        };
        (first..first + TEXTS).map(text).collect::<Vec<_>>()
    };
    // Half of them stand at both; the others, and all between them, the first one has dropped.
    for (index, first) in [(0, 0), (1, 0), (1, TEXTS)] {
        rig.node(index).local().apply(texts(first)).await.unwrap();
    }
    let mut known = SlotClocks::default();
    known.insert_range(slot, ops.value(1).op.dot.origin, alone(0), alone(2 * TEXTS));
    rig.node(0).local().know_dropped(&known);
    rig.wait_covers(0, &known).await;
    let other = (0..).map(|number: u64| number.to_string());
    let other = other.clone().find(|name| slot_of(name) != slot).unwrap();
    hold(rig.node(0), Ops::of(other.clone()).value(1)).await;

    let (node, peer) = (inner(rig.node(1)), rig.peer(1, 0));
    node.clocks.set_new();
    let may_take = |index: usize, bytes| inner(rig.node(index)).dots_bytes_max.store(bytes, Ordering::Relaxed);
    // Less than a single dot takes.
    may_take(0, 0);
    assert!(node.round(&peer, true).await.is_err());
    assert_eq!(count_at(rig.node(1), &other).await, 1, "the other slots are copied");
    let counts = |name: &str| node.clocks.has_all_of(slot_of(name), [peer.node()]);
    assert!(counts(&other) && !counts("k"));

    (0..2).for_each(|index| may_take(index, 2_000));
    node.round(&peer, true).await.unwrap();
    assert_eq!(count_at(rig.node(1), "k").await, TEXTS);
    assert!(counts("k"));
    let clears = node.local.held_dots(slot).await.unwrap().clears;
    assert!(clears.count() > 2, "each has to fit into a message");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_takes_too_long_to_read_keeps_no_other_one_from_being_copied() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(2)
    };
    let rig = rig.started().await;
    let name_in = |slots: std::ops::Range<u16>| {
        let mut names = (0..).map(|number| number.to_string());
        names.find(|name| slots.contains(&slot_of(name).0)).unwrap()
    };
    let (slow, other) = (name_in(0..512), name_in(512..1024));
    for name in [&other, &slow, &slow, &slow, &slow] {
        let text = "x".repeat(24 << 10);
        rig.node(1)
            .add(
                &user(),
                &key(name),
                text.as_str().into(),
                true,
                None,
                at(Consistency::All),
            )
            .await
            .unwrap();
    }
    until("the log is sealed", || {
        rig.node(0).local().figures()[0].stats.sealed_ops > 0
    })
    .await;
    let held = disk.hold_reads("shard-000-of-002/segment");
    let (first, second) = (inner(rig.node(0)), inner(rig.node(1)));
    // A comparison in between would find them equal.
    stop_task(rig.node(1), SYNC).await;
    // It has to see what the other one dropped, before it takes anything of a slot.
    second.clocks.set_new();
    for name in [&slow, &other] {
        hold(rig.node(0), Ops::of(name.clone()).value(1)).await;
    }
    second.tasks.lock()[SYNC] = tokio::spawn(catch_up::sync::run(second.clone()));
    until("the other one is copied", || {
        second.clocks.has_all_of(slot_of(&other), [first.me])
    })
    .await;
    assert!(!second.clocks.has_all_of(slot_of(&slow), [first.me]));
    drop(held);
    until("this one as well", || {
        second.clocks.has_all_of(slot_of(&slow), [first.me])
    })
    .await;
    rig.end().await;
}
