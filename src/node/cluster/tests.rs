//! Whole members in one process, on real sockets and in real folders.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::*;
use crate::env::{BoxFuture, Datagrams, Listener, Net, Stream};
use crate::node::{Added, Node, NodeConfig, OpError, Terms};
use crate::os::RealNet;
use crate::shard::ShardConfig;
use crate::store::memory_disk::MemoryDisk;
use crate::types::{Consistency, Key, RequestId, UserId, WallMs};

mod bad_disk;
mod clears;
mod copying;
mod dropped;
mod founding;
mod gathering;
mod given_up;
mod healing;
mod introductions;
mod losses;
mod readers;
mod reads;
mod set_back;
mod standing_still;

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    dirs: Vec<TempDir>,
    addresses: Vec<SocketAddr>,
    nodes: Vec<Option<Node>>,
    /// How far each one's wall clock is ahead of the machine's.
    ahead_ms: Vec<u64>,
    replication: usize,
    /// The first node's disk, if that is to have faults.
    first_disk: Option<MemoryDisk>,
    /// Whether nodes can make connections.
    connects: watch::Sender<bool>,
}

/// Whoever would connect waits until that is possible.
struct Gated(watch::Sender<bool>);

impl Net for Gated {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        RealNet.listen(addr)
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let mut connects = self.0.subscribe();
        Box::pin(async move {
            let may = connects.wait_for(|may| *may).await.is_ok();
            assert!(may, "the sender is held here");
            RealNet.connect(addr).await
        })
    }

    fn datagrams(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        RealNet.datagrams(addr)
    }
}

struct Ahead(u64);

impl crate::env::WallClock for Ahead {
    fn now(&self) -> WallMs {
        WallMs(crate::os::SystemClock.now().0 + self.0)
    }
}

/// Below those that the system gives to connections, of which one may get it before its node starts, or starts again.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Other processes may run these tests at the same time.
    let of_process = std::process::id().wrapping_mul(211);
    loop {
        let number = of_process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from((LOOPBACK.0, 22_000 + (number % 10_000) as u16));
        if std::net::TcpListener::bind(address).is_ok() && std::net::UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

impl Rig {
    async fn new(count: usize) -> Self {
        Self::with_clocks(vec![0; count]).await
    }

    /// None of them runs yet.
    fn unstarted(count: usize) -> Self {
        Self {
            ahead_ms: vec![0; count],
            dirs: (0..count).map(|_| TempDir::new().unwrap()).collect(),
            addresses: (0..count).map(|_| free_port()).collect(),
            nodes: (0..count).map(|_| None).collect(),
            replication: 3,
            first_disk: None,
            connects: watch::Sender::new(true),
        }
    }

    async fn with_clocks(ahead_ms: Vec<u64>) -> Self {
        let rig = Self {
            ahead_ms: ahead_ms.clone(),
            ..Self::unstarted(ahead_ms.len())
        };
        rig.started().await
    }

    async fn started(mut self) -> Self {
        for index in 0..self.nodes.len() {
            self.start(index).await;
        }
        let rig = self;
        rig.wait("all are members", |node| {
            node.is_ready() && node.cluster().unwrap().inner.votes(SlotId(1))
        })
        .await;
        rig.wait_linked().await;
        rig
    }

    fn damage_name(&self, index: usize) {
        let file = self.dirs[index].path().join("data/node.json");
        crate::node::whole_file::write(&*crate::os::env().disk, &file, b"{").unwrap();
    }

    /// For one more node.
    fn make_room(&mut self) {
        self.dirs.push(TempDir::new().unwrap());
        self.addresses.push(free_port());
        self.ahead_ms.push(0);
        self.nodes.push(None);
    }

    async fn start(&mut self, index: usize) {
        self.start_as(index, self.addresses[index]).await;
    }

    async fn start_as(&mut self, index: usize, advertise: SocketAddr) {
        let cluster = ClusterConfig {
            listen: self.addresses[index],
            advertise,
            http: SocketAddr::from(LOOPBACK),
            join: self
                .addresses
                .iter()
                .copied()
                .filter(|address| *address != self.addresses[index])
                .collect(),
            founds: index == 0,
            keys: KeyRing::parse(&"ab".repeat(32)).unwrap(),
            tls: None,
            name: "test".to_owned(),
            zone: "z".to_owned(),
            weight: 100,
            replication: self.replication,
        };
        let mut config = NodeConfig::new(self.dirs[index].path().join("data"));
        config.shards = 2;
        config.shard = ShardConfig {
            log_bytes: 64 << 10,
            fill_bytes: 16 << 10,
            idle_ms: 1000,
            ..ShardConfig::default()
        };
        config.cluster = Some(cluster);
        let real = crate::os::env().disk;
        let first_disk = self.first_disk.as_ref().filter(|_| index == 0);
        let env = Env {
            disk: first_disk.map_or(real, MemoryDisk::as_disk),
            net: Arc::new(Gated(self.connects.clone())),
            wall: Arc::new(Ahead(self.ahead_ms[index])),
            ..crate::os::env()
        };
        self.nodes[index] = Some(Node::start(env, config).await.unwrap());
    }

    async fn stop(&mut self, index: usize) {
        if let Some(node) = self.nodes[index].take() {
            node.stop().await;
        }
    }

    fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().unwrap()
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    async fn wait(&self, what: &str, is_so: impl Fn(&Node) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !self.running().all(&is_so) {
            assert!(Instant::now() < until, "not in time: {what}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_linked(&self) {
        let others = self.running().count() - 1;
        self.wait("all are linked", |node| {
            let inner = &node.cluster().unwrap().inner;
            let members: Vec<_> = inner.layouts.current().table.up().map(|(node, _)| node).collect();
            inner.up_peers(&members).len() == others
        })
        .await;
    }

    async fn wait_equal(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut clocks: Vec<_> = self.running().map(|node| node.local().clocks()).collect();
            clocks.dedup();
            if clocks.len() == 1 {
                return;
            }
            assert!(Instant::now() < until, "the replicas do not become equal");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(mut self) {
        for index in 0..self.nodes.len() {
            self.stop(index).await;
        }
    }
}

fn user() -> UserId {
    UserId::new("u").unwrap()
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn at(consistency: Consistency) -> Terms {
    Terms {
        consistency,
        ..Terms::usual()
    }
}

async fn add(node: &Node, name: &str, text: &str) -> Result<Added, OpError> {
    node.add(&user(), &key(name), text.into(), true, None, Terms::usual())
        .await
}

async fn list(node: &Node, name: &str, consistency: Consistency) -> Result<Vec<String>, OpError> {
    let mut reader = node.get(&user(), &key(name), 0, u64::MAX, at(consistency)).await?;
    let (mut values, mut open) = (Vec::new(), String::new());
    loop {
        let fragments = reader.next(1 << 20).await?;
        if fragments.is_empty() {
            return Ok(values);
        }
        for fragment in fragments {
            open.push_str(fragment.text.as_ref());
            if fragment.ends_value {
                values.push(std::mem::take(&mut open));
            }
        }
    }
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

async fn change(node: &Node, change: MemberChange) -> Result<(), MemberRefused> {
    node.cluster().unwrap().change_members(change).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_of_a_member_that_is_done_may_be_asked_for_again() {
    let rig = Rig::new(3).await;
    let gone = rig.node(2).local().life().node;
    for index in [0, 0, 1, 1] {
        change(rig.node(index), MemberChange::Remove(gone)).await.unwrap();
    }
    let nobody = NodeId(7);
    let refused = change(rig.node(0), MemberChange::Remove(nobody)).await;
    assert_eq!(refused, Err(MemberRefused::Unknown(nobody)));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_member_stays() {
    let mut rig = Rig::new(1).await;
    let last = rig.node(0).local().life().node;
    let refused = change(rig.node(0), MemberChange::Remove(last)).await;
    assert_eq!(refused, Err(MemberRefused::Last(last)));
    add(rig.node(0), "k", "v").await.unwrap();
    rig.stop(0).await;
    let alone = Node::start(crate::os::env(), NodeConfig::new(rig.dirs[0].path().join("data"))).await;
    let refused = alone.err().expect("it is a member's folder").to_string();
    assert!(refused.contains("--cluster-listen"), "{refused}");
    rig.start(0).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_is_done_may_be_asked_for_again() {
    let mut rig = Rig::new(3).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.make_room();
    rig.start(3).await;
    let [old, other, new] = [1, 2, 3].map(|index| rig.node(index).local().life().node);
    rig.stop(1).await;
    let replace = MemberChange::Replace { old, new };
    let until = Instant::now() + PATIENCE;
    while let Err(refused) = change(rig.node(0), replace).await {
        assert!(Instant::now() < until, "{refused}");
        sleep(Duration::from_millis(50)).await;
    }
    change(rig.node(0), replace).await.unwrap();
    rig.wait("all are members again", |node| {
        node.is_ready() && node.cluster().unwrap().inner.votes(SlotId(1))
    })
    .await;
    for node in rig.running() {
        change(node, replace).await.unwrap();
        let refused = change(node, MemberChange::Replace { old: other, new }).await;
        assert_eq!(refused, Err(MemberRefused::Member(new)));
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_advertises_the_address_of_another_one_does_not_get_its_place() {
    let mut rig = Rig::new(3).await;
    add(rig.node(0), "k", "v").await.unwrap();
    rig.make_room();
    let (twin, away) = (rig.addresses[1], rig.node(1).local().life().node);
    rig.stop(1).await;
    rig.start_as(3, twin).await;
    let why = |node: &Node| node.why_not_ready().unwrap_or_default();
    let until = Instant::now() + PATIENCE;
    while !why(rig.node(3)).contains("which is the address of a member that is away, and nobody is: check") {
        assert!(Instant::now() < until, "{}", why(rig.node(3)));
        sleep(Duration::from_millis(50)).await;
    }
    rig.start(1).await;
    assert_eq!(rig.node(1).local().life().node, away);
    let until = Instant::now() + PATIENCE;
    while !why(rig.node(3)).contains(&format!("is that of the member {away}, which is there")) {
        assert!(Instant::now() < until, "{}", why(rig.node(3)));
        sleep(Duration::from_millis(50)).await;
    }
    rig.stop(3).await;
    rig.wait("the others go on", |node| {
        node.is_ready() && node.cluster().unwrap().inner.votes(SlotId(1))
    })
    .await;
    for node in rig.running() {
        assert_eq!(list(node, "k", Consistency::All).await.unwrap(), ["v"]);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_node_of_a_cluster_takes_its_place_again_when_it_lost_its_name() {
    let mut rig = Rig::new(1).await;
    add(rig.node(0), "k", "v").await.unwrap();
    for _ in 0..2 {
        let before = rig.node(0).local().life();
        rig.stop(0).await;
        rig.damage_name(0);
        rig.start(0).await;
        rig.wait("it is a member", Node::is_ready).await;
        let after = rig.node(0).local().life();
        assert!(after.node != before.node && after.origin != before.origin);
        rig.wait("it votes", |node| node.cluster().unwrap().inner.votes(SlotId(1)))
            .await;
        assert_eq!(list(rig.node(0), "k", Consistency::All).await.unwrap(), ["v"]);
    }
    assert_eq!(rig.node(0).cluster().unwrap().seen().0, 1);

    // Another one in the list may know better, and is silent.
    rig.make_room();
    rig.stop(0).await;
    rig.damage_name(0);
    rig.start(0).await;
    let why = || rig.node(0).why_not_ready().unwrap_or_default();
    let until = Instant::now() + PATIENCE;
    while !why().contains("if there is no other node, start it once without --join") {
        assert!(Instant::now() < until, "{}", why());
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert!(!rig.node(0).is_ready());
    rig.stop(0).await;
    rig.addresses.pop();
    rig.start(0).await;
    rig.wait("it is a member", Node::is_ready).await;
    assert_eq!(list(rig.node(0), "k", Consistency::All).await.unwrap(), ["v"]);
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
async fn an_empty_disk_at_the_same_address_is_filled_again() {
    let mut rig = Rig::new(3).await;
    for round in 0..50 {
        add(rig.node(round % 3), &format!("k{}", round % 5), &format!("{round}"))
            .await
            .unwrap();
    }
    rig.stop(2).await;
    rig.dirs[2] = TempDir::new().unwrap();
    rig.start(2).await;
    rig.wait("the new one counts", |node| {
        node.is_ready() && node.cluster().unwrap().inner.votes(SlotId(1))
    })
    .await;
    rig.wait_equal().await;
    for name in ["k0", "k4"] {
        let expected = list(rig.node(0), name, Consistency::One).await.unwrap();
        assert_eq!(expected.len(), 10);
        assert_eq!(list(rig.node(2), name, Consistency::One).await.unwrap(), expected);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_node_is_behind_and_whose_clock_is_wrong_is_told() {
    const ADDS: usize = 600;
    let mut rig = Rig::with_clocks(vec![0, 5000, 0]).await;
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

    let away = rig.node(2).local().life().node;
    rig.stop(2).await;
    let text = "x".repeat(4000);
    let adds = (0..ADDS).map(|number| {
        let (node, name) = (rig.node(number % 2), format!("key {}", number % 100));
        let text = &text;
        async move { add(node, &name, text).await }
    });
    let added: Vec<_> = futures_util::stream::iter(adds).buffer_unordered(32).collect().await;
    assert!(added.iter().all(Result::is_ok));
    let status = rig.node(0).cluster().unwrap().status().await;
    let member = status.members.iter().find(|member| member.node == away).unwrap();
    assert!(member.own.is_none() && member.clock_skew_ms.is_none() && member.slots == 1024);
    let figures = rig.node(0).cluster().unwrap().figures();
    let seen = figures.peers.iter().find(|peer| peer.node == away).unwrap();
    assert!(seen.lag.is_none() && seen.clock_skew_ms.is_none(), "{seen:?}");

    rig.start(2).await;
    let mut most: Option<LagFigures> = None;
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "it does not come back: {most:?}");
        let figures = rig.node(2).cluster().unwrap().figures();
        let lags: Vec<_> = figures.peers.iter().map(|peer| peer.lag).collect();
        if lags.len() == 2
            && most.is_some()
            && lags.iter().all(|lag| {
                *lag == Some(LagFigures {
                    bytes: Some(0),
                    ..LagFigures::default()
                })
            })
        {
            break;
        }
        let lags = lags.into_iter().flatten().filter(|lag| lag.ops > 0);
        most = lags.chain(most).max_by_key(|lag| lag.ops);
        sleep(Duration::from_millis(2)).await;
    }
    let most = most.unwrap();
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
    let layout = rig.node(0).cluster().unwrap().inner.layouts.current();
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
