//! Several members at once lack what they held, and each has to know of which of the others something can still be had.

use crate::node::cluster::tests::*;
use crate::wire::Response;

const ROUNDS: usize = 20;

impl Rig {
    /// Damages the files of the node's system shard, and with them the member table.
    #[expect(clippy::disallowed_methods, reason = "the nodes of these tests are on the real disk")]
    fn damage_table(&self, index: usize) {
        let data = self.dirs[index].path().join("data");
        let paths = |dir| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let system = paths(data).find(|path| name(path).starts_with("system-")).unwrap();
        for path in paths(system).filter(|path| name(path).contains(".kv")) {
            let mut bytes = std::fs::read(&path).unwrap();
            // A log's header stays, and what it holds last: that would not differ from a write which a crash cut off.
            let first = if name(&path).ends_with(".kvl") { 512 } else { 0 };
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            let tenth = end.saturating_sub(first) / 10;
            if tenth > 0 {
                (1..9).for_each(|part| bytes[first + part * tenth] ^= 0x10);
            }
            std::fs::write(&path, bytes).unwrap();
        }
    }

    async fn add_some(&self) {
        for round in 0..ROUNDS {
            add(self.node(round % self.nodes.len()), "k", &format!("{round}"))
                .await
                .unwrap();
        }
    }

    /// Every node votes again, in the table that all have, and shows all that was added.
    async fn wait_whole(&self) {
        let count = self.nodes.len();
        self.wait("everybody's word counts", |node| {
            let inner = &node.cluster().unwrap().inner;
            let layout = inner.layout();
            layout.table.up().count() == count && inner.votes(SYSTEM_SLOT) && inner.votes(SlotId(1))
        })
        .await;
        self.wait_linked().await;
        let expected: Vec<String> = (0..ROUNDS).map(|round| round.to_string()).collect();
        for node in self.running() {
            assert_eq!(list(node, "k", Consistency::Quorum).await.unwrap(), expected);
        }
        let added = self
            .node(1)
            .add(&user(), &key("all"), "v".into(), true, None, at(Consistency::All))
            .await;
        added.unwrap();
    }

    /// The damaged one has heard that this empty node wants in.
    async fn wait_asking(&self, index: usize) {
        let new = self.node(index).local().life().node;
        let until = Instant::now() + PATIENCE;
        while !self
            .node(1)
            .cluster()
            .unwrap()
            .inner
            .members
            .join_requests
            .is_empty_node(new)
        {
            assert!(Instant::now() < until, "not in time: it asks");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn empty(&mut self, index: usize) {
        self.dirs[index] = TempDir::new().unwrap();
        self.start(index).await;
    }
}

/// The damage keeps it from reading in its own table that one which it waits for is a member no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_table_is_made_good_although_a_seat_changed_hands_meanwhile() {
    let mut rig = Rig::new(4).await;
    rig.add_some().await;
    rig.stop(2).await;
    rig.stop(1).await;
    rig.damage_table(1);
    rig.start(1).await;
    assert!(!rig.node(1).local().is_whole(SYSTEM_SLOT));
    rig.wait("it was told the table", |node| node.cluster().unwrap().is_member())
        .await;
    rig.wait_linked().await;
    rig.empty(2).await;
    rig.wait_whole().await;
    rig.end().await;
}

/// The seat of the lost one is given away at a quorum, for which the damaged one's vote is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_one_table_is_damaged_and_another_disk_is_lost() {
    let mut rig = Rig::new(3).await;
    rig.add_some().await;
    rig.wait_equal().await;
    rig.stop(2).await;
    rig.stop(1).await;
    rig.damage_table(1);
    rig.start(1).await;
    assert!(!rig.node(1).local().is_whole(SYSTEM_SLOT));
    rig.wait("it was told the table", |node| node.cluster().unwrap().is_member())
        .await;
    rig.empty(2).await;
    rig.wait_whole().await;
    rig.end().await;
}

/// Its disk is not lost: the one that comes from its address only says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_is_waited_for_though_another_one_advertises_its_address() {
    let mut rig = Rig::new(3).await;
    rig.add_some().await;
    rig.wait_equal().await;
    rig.stop(2).await;
    rig.stop(1).await;
    rig.damage_table(1);
    rig.start(1).await;
    assert!(!rig.node(1).local().is_whole(SYSTEM_SLOT));
    rig.make_room();
    rig.start_as(3, rig.addresses[2]).await;
    rig.wait_asking(3).await;
    sleep(3 * TICK).await;
    assert!(
        !rig.node(1).local().is_whole(SYSTEM_SLOT),
        "it gave up what the one that is away holds"
    );
    rig.stop(3).await;
    rig.nodes.pop();
    rig.start(2).await;
    rig.wait_whole().await;
    rig.end().await;
}

/// Of three: the last one, which is stopped too, has to copy everything.
async fn one_still_copies_and_one_is_stopped() -> Rig {
    let mut rig = Rig::new(3).await;
    rig.add_some().await;
    rig.wait_equal().await;
    rig.node(2).local().set_new(0).await.unwrap();
    rig.stop(2).await;
    rig.stop(1).await;
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_still_has_to_copy_everything_does_not_wait_for_a_disk_that_is_lost() {
    let mut rig = one_still_copies_and_one_is_stopped().await;
    rig.start(2).await;
    rig.empty(1).await;
    rig.wait_whole().await;
    rig.end().await;
}

/// What is left of the one that lost its name is let in at a quorum, which takes the vote of the one that waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_still_has_to_copy_everything_waits_for_a_disk_that_lost_its_name_only_so_long() {
    let mut rig = one_still_copies_and_one_is_stopped().await;
    rig.damage_name(1);
    rig.start(2).await;
    rig.start(1).await;
    rig.wait_whole().await;
    rig.end().await;
}

/// A new member may know of its seat before a peer does, which then cannot say of which slots it holds anything for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_a_node_that_is_not_in_the_table_yet_no_slot_looks_equal() {
    let rig = Rig::new(3).await;
    rig.add_some().await;
    let inner = &rig.node(0).cluster().unwrap().inner;
    let nothing = crate::node::cluster::clocks::digest_of(&std::collections::BTreeMap::new());
    let Ok(Response::Differ(digests)) = inner.answer_compare(NodeId(4), nothing) else {
        panic!("an empty node does not hold the same");
    };
    let named: std::collections::BTreeMap<u16, u64> = digests.into_iter().collect();
    for slot in (0..=SYSTEM_SLOT.0).map(SlotId) {
        let digest = inner.local.digest(slot).unwrap();
        assert!(named.get(&slot.0).is_some_and(|named| *named != digest));
    }
    rig.end().await;
}

/// Nobody is there whose word counts; and no second cluster is founded, though both are new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_without_anybody_whole_is_not_taken_for_the_whole() {
    let mut rig = Rig::new(2).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.wait_equal().await;
    rig.node(1).local().set_new(0).await.unwrap();
    rig.stop(1).await;
    rig.stop(0).await;
    rig.start(1).await;
    rig.empty(0).await;
    sleep(Duration::from_secs(4)).await;
    assert!(
        rig.running()
            .all(|node| !node.cluster().unwrap().inner.votes(SlotId(1)))
    );
    rig.end().await;
}

/// It was told of the change, and met who has the seat now; the one that lost it runs on, and does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_its_table_does_not_vote_by_that_of_one_that_was_replaced() {
    let mut rig = Rig::new(3).await;
    rig.add_some().await;
    rig.wait_equal().await;
    let old = rig.node(1).local().life().node;
    rig.stop(1).await;
    rig.make_room();
    rig.start(3).await;
    let new = rig.node(3).local().life().node;
    let replace = MemberChange::Replace { old, new };
    let end = Instant::now() + PATIENCE;
    while let Err(refused) = change(rig.node(0), replace).await {
        assert!(Instant::now() < end, "{refused}");
        sleep(Duration::from_millis(50)).await;
    }
    rig.wait("all count", is_member).await;
    for index in [0, 2, 3] {
        rig.stop(index).await;
    }
    rig.damage_table(0);
    rig.start(1).await;
    rig.start(0).await;
    let table = |node: &Node| node.cluster().unwrap().inner.layout();
    let would_vote = |node: &Node| {
        let inner = &node.cluster().unwrap().inner;
        !inner.clocks.is_new() && inner.local.is_whole(SlotId(1)) && inner.is_known() && inner.was_told(SlotId(1))
    };
    until("it goes by what it was told", || would_vote(rig.node(0))).await;
    assert!(table(rig.node(0)).table.get(new).is_none() && !rig.node(0).local().is_whole(SYSTEM_SLOT));
    let votes = |node: &Node| node.cluster().unwrap().inner.votes(SlotId(1));
    assert!(!votes(rig.node(0)) && !rig.node(0).cluster().unwrap().inner.may_list());
    rig.start(2).await;
    rig.start(3).await;
    until("it knows better", || {
        votes(rig.node(0)) && table(rig.node(0)).table.is_up(new)
    })
    .await;
    rig.end().await;
}

/// Whoever asks may run on an older copy of its disk, and would take a no for proof that there is no later table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_the_table_does_not_say_that_it_is_of_no_cluster() {
    let mut rig = Rig::new(2).await;
    rig.stop(1).await;
    rig.stop(0).await;
    rig.damage_table(0);
    rig.start(0).await;
    let asked = inner(rig.node(0)).answer_table().await;
    assert_eq!(asked.err(), Some(OpError::ShardUnavailable { maybe_applied: false }));
    rig.start(1).await;
    let node = inner(rig.node(0)).clone();
    until("it has its table again", || node.local.is_whole(SYSTEM_SLOT)).await;
    assert!(matches!(node.answer_table().await, Ok(Response::Admitted { .. })));
    rig.end().await;
}
