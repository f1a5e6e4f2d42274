//! What damage took and no other replica holds, or does not hold yet.

use std::path::PathBuf;

use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::KeyedOp;
use crate::core::slot::SLOT_COUNT;
use crate::node::cluster::tests::*;
use crate::node::local::Wanted;
use crate::node::replica::place_of;
use crate::shard::{WriteContext, WriteKind};
use crate::store::recover::UNKNOWN_ORIGIN;
use crate::wire::{Response, WireOp};

const ADDS: usize = 5;

fn slot() -> SlotId {
    place_of(&user(), &key("k")).0
}

fn is_whole(node: &Node) -> bool {
    node.local().is_whole(slot())
}

/// Of what this node lost, what has a name.
fn named(node: &Node) -> Clock {
    let mut named = node.local().lost_of(slot()).unwrap();
    named.remove_origin(UNKNOWN_ORIGIN);
    named
}

async fn lists(rig: &Rig) -> Vec<Vec<String>> {
    let mut lists = Vec::new();
    for node in rig.running() {
        lists.push(list(node, "k", Consistency::One).await.unwrap());
    }
    lists
}

fn value(text: &str) -> WriteKind {
    WriteKind::Add {
        text: text.into(),
        finish: true,
    }
}

fn values() -> Vec<WriteKind> {
    vec![value("v"); ADDS]
}

async fn write(local: &Local, kind: WriteKind) {
    let wanted = Wanted {
        user: &user(),
        key: &key("k"),
        kind,
        request_id: None,
    };
    local.write(wanted, WriteContext::default()).await.unwrap();
}

impl Rig {
    async fn stop_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.stop(index).await;
        }
    }

    /// The files that hold the ops of users.
    #[expect(clippy::disallowed_methods, reason = "the nodes of these tests are on the real disk")]
    fn remove_files(&self, index: usize) {
        for path in self.files_of_shards(index, ".kv") {
            std::fs::remove_file(path).unwrap();
        }
    }

    /// Those files that hold the ops of users, or held them, whose names have this part.
    #[expect(clippy::disallowed_methods, reason = "the nodes of these tests are on the real disk")]
    fn files_of_shards(&self, index: usize, part: &str) -> Vec<PathBuf> {
        let data = self.dirs[index].path().join("data");
        let paths = |dir| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let has = |path: &PathBuf, part| path.file_name().unwrap().to_string_lossy().contains(part);
        let folders = paths(data).filter(|path| has(path, "shard-"));
        folders.flat_map(paths).filter(|path| has(path, part)).collect()
    }

    /// Nothing of these files can be read any more.
    #[expect(clippy::disallowed_methods, reason = "the nodes of these tests are on the real disk")]
    fn spoil_files(&self, index: usize) {
        for path in self.files_of_shards(index, ".kv") {
            let len = std::fs::metadata(&path).unwrap().len();
            std::fs::write(path, vec![0x5a; len as usize]).unwrap();
        }
    }

    fn is_anything_set_aside(&self, index: usize) -> bool {
        !self.files_of_shards(index, "quarantine-").is_empty()
    }

    /// This node, alone, carries these out, and then its disk loses all that it holds.
    async fn lose(&mut self, index: usize, kinds: Vec<WriteKind>) -> Vec<KeyedOp> {
        self.start(index).await;
        self.wait("its shards serve", |node| node.local().is_ready()).await;
        let local = self.node(index).local().clone();
        let before = local.clock(slot()).unwrap();
        for kind in kinds {
            write(&local, kind).await;
        }
        let mut wants = SlotClocks::default();
        wants.join_slot(slot(), &local.clock(slot()).unwrap().minus(&before));
        let ops = local.export(&wants).unwrap().next(1 << 20).await.unwrap().unwrap();
        assert!(!ops.is_empty());
        drop(local);
        self.stop(index).await;
        // It notes with its next start what it held.
        self.start(index).await;
        self.stop(index).await;
        self.remove_files(index);
        ops
    }

    /// All run, and this node has lost something that none of them holds.
    async fn start_with_lost(&mut self, index: usize) {
        self.start(index).await;
        self.wait("its shards serve", |node| node.local().is_ready()).await;
        assert!(!named(self.node(index)).is_empty());
    }
}

/// As long as another one may be about to bring it, or to make it durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_damage_took_is_not_given_up_while_it_may_be_on_its_way_to_another_one() {
    let mut rig = Rig::new(3).await;
    rig.stop_all().await;
    let ops = rig.lose(1, values()).await;
    for index in [0, 2] {
        rig.start(index).await;
    }
    // It got some of them before they were lost, and is about to send them on.
    let at_work = inner(rig.node(2)).at_work.begin();
    rig.start_with_lost(1).await;
    let lost = named(rig.node(1));
    let is_lost = |keyed: &&KeyedOp| lost.contains(keyed.op.dot.origin, keyed.op.dot.seq);
    let late = ops.iter().find(is_lost).unwrap();
    let others = [0, 2].map(|index| rig.node(index).local().life().node);
    let unsynced = || rig.node(1).cluster().unwrap().figures().unsynced_slots;
    let has_all = || inner(rig.node(1)).clocks.has_all_of(slot(), others);
    until("it gets what the others have", has_all).await;
    until("its word counts but in this slot", || unsynced() == 1).await;
    sleep(3 * TICK).await;
    assert!(!is_whole(rig.node(1)), "it gave up what may come to another one");
    assert_eq!(unsynced(), 1);
    let sent = inner(rig.node(0))
        .answer_append(others[1], vec![WireOp::of(late)])
        .await;
    let is_held = matches!(sent, Response::Done);
    drop(at_work);
    rig.wait("it is whole again", is_whole).await;
    rig.wait_equal().await;
    for list in lists(&rig).await {
        assert_eq!(list.len(), usize::from(is_held));
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_another_one_has_taken_and_not_made_durable_is_not_given_up() {
    let disk = MemoryDisk::new();
    let rig = Rig {
        first_disk: Some(disk.clone()),
        ..Rig::unstarted(3)
    };
    let mut rig = rig.started().await;
    add(rig.node(0), "k", "cleared").await.unwrap();
    rig.wait_equal().await;
    rig.stop_all().await;
    let ops = rig.lose(1, vec![WriteKind::Clear]).await;
    for index in [0, 2] {
        rig.start(index).await;
    }
    rig.wait("they serve", |node| node.local().is_ready()).await;
    // It has a log to write to.
    write(rig.node(0).local(), value("kept")).await;
    let slow = disk.hold_syncs("shard-");
    let taking = tokio::spawn({
        let (local, op) = (rig.node(0).local().clone(), ops[0].clone());
        async move { local.apply(vec![op]).await }
    });
    rig.start_with_lost(1).await;
    sleep(6 * TICK).await;
    assert!(
        !is_whole(rig.node(1)),
        "it gave up what another one has in its open group"
    );
    drop(slow);
    taking.await.unwrap().unwrap();
    rig.wait("it is whole again", is_whole).await;
    rig.wait_equal().await;
    for list in lists(&rig).await {
        assert_eq!(list, ["kept"]);
    }
    rig.end().await;
}

/// Neither of them votes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_lost_something_do_not_wait_for_each_other() {
    let mut rig = Rig::new(3).await;
    rig.stop_all().await;
    for index in [1, 2] {
        rig.lose(index, values()).await;
    }
    rig.start(0).await;
    for index in [1, 2] {
        rig.start_with_lost(index).await;
    }
    rig.wait("they are whole again", is_whole).await;
    rig.wait_equal().await;
    let lists = lists(&rig).await;
    assert!(lists.iter().all(Vec::is_empty), "{lists:?}");
    rig.end().await;
}

/// Where nobody can say what was lost, it is all slots; and of those that are others', this node copies nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_others_does_not_stay_damaged() {
    let rig = Rig {
        replication: 2,
        ..Rig::unstarted(3)
    };
    let mut rig = rig.started().await;
    for name in 0..20 {
        add(rig.node(0), &format!("k{name}"), "v").await.unwrap();
    }
    rig.stop(0).await;
    rig.spoil_files(0);
    rig.start(0).await;
    rig.wait("its shards serve", |node| node.local().is_ready()).await;
    rig.wait("all is whole", |node| node.local().lost().is_empty()).await;
    rig.wait_linked().await;
    until("what was damaged is set aside", || rig.is_anything_set_aside(0)).await;
    let keys = rig
        .node(0)
        .list_all_keys(&user(), None, 100, at(Consistency::All))
        .await;
    assert_eq!(keys.unwrap().keys.len(), 20);
    rig.end().await;
}

/// The table is read anew a moment after its records came: until then it may lack what damage took of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_others_only_by_the_table_as_it_is_on_the_disk_now() {
    let rig = Rig {
        replication: 2,
        ..Rig::unstarted(3)
    };
    let rig = rig.started().await;
    rig.wait_equal().await;
    for task in [SYNC, LAYOUT] {
        stop_task(rig.node(0), task).await;
    }
    let node = inner(rig.node(0));
    node.load_table().await.unwrap();
    let sources = node.sources(false).await;
    let is_foreign = |slot: &SlotId| !sources.layout.placement.replicas(*slot).contains(&node.me);
    let foreign = (0..SLOT_COUNT).map(SlotId).find(is_foreign).unwrap();
    assert!(node.is_of_others(foreign, &sources));
    // A record comes, of whatever kind.
    node.add_alone(&key("record"), "of a node".to_owned(), Terms::usual())
        .await
        .unwrap();
    assert!(!node.is_of_others(foreign, &sources));
    node.load_table().await.unwrap();
    assert!(node.is_of_others(foreign, &sources));
    rig.end().await;
}
