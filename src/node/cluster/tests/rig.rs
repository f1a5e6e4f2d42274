//! Nodes on loopback, each with a folder of its own.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::env::{BoxFuture, Datagrams, Listener, Net, Stream};
use crate::node::ValueReader;
use crate::os::RealNet;
use crate::shard::ShardConfig;
use crate::types::WallMs;

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// Only what fails takes so long.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Among a member's tasks, as `start` numbers them.
pub const LAYOUT: usize = 1;
pub const JOIN: usize = 2;
pub const SYNC: usize = 3;
pub const GATHERING: usize = 8;

pub struct Rig {
    pub dirs: Vec<TempDir>,
    pub addresses: Vec<SocketAddr>,
    pub nodes: Vec<Option<Node>>,
    /// How far each one's wall clock is ahead of the machine's.
    pub ahead_ms: Vec<u64>,
    pub replication: usize,
    /// What is changed of the settings of a node.
    pub settings: fn(usize, &mut ClusterConfig),
    pub value_bytes_max: u64,
    pub pages: Pages,
    /// Of a shard's log, and how far ahead it is filled.
    pub log_bytes: (u64, u64),
    /// The first node's disk, if that is to have faults.
    pub first_disk: Option<MemoryDisk>,
    /// Whether nodes can make connections.
    pub connects: watch::Sender<bool>,
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
pub fn free_port() -> SocketAddr {
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
    pub async fn new(count: usize) -> Self {
        Self::with_clocks(vec![0; count]).await
    }

    /// None of them runs yet.
    pub fn unstarted(count: usize) -> Self {
        Self {
            ahead_ms: vec![0; count],
            dirs: (0..count).map(|_| TempDir::new().unwrap()).collect(),
            addresses: (0..count).map(|_| free_port()).collect(),
            nodes: (0..count).map(|_| None).collect(),
            replication: 3,
            settings: |_, _| {},
            value_bytes_max: crate::types::VALUE_BYTES_MAX,
            pages: Pages::default(),
            log_bytes: (64 << 10, 16 << 10),
            first_disk: None,
            connects: watch::Sender::new(true),
        }
    }

    pub async fn with_clocks(ahead_ms: Vec<u64>) -> Self {
        let rig = Self {
            ahead_ms: ahead_ms.clone(),
            ..Self::unstarted(ahead_ms.len())
        };
        rig.started().await
    }

    pub async fn started(mut self) -> Self {
        for index in 0..self.nodes.len() {
            self.start(index).await;
        }
        let rig = self;
        rig.wait("all are members", is_member).await;
        rig.wait_linked().await;
        rig
    }

    pub fn damage_name(&self, index: usize) {
        let file = self.dirs[index].path().join("data/node.json");
        crate::store::whole_file::write(&*crate::os::env().disk, &file, b"{").unwrap();
    }

    /// For one more node.
    pub fn make_room(&mut self) {
        self.dirs.push(TempDir::new().unwrap());
        self.addresses.push(free_port());
        self.ahead_ms.push(0);
        self.nodes.push(None);
    }

    pub async fn start(&mut self, index: usize) {
        self.start_as(index, self.addresses[index]).await;
    }

    pub async fn start_as(&mut self, index: usize, advertise: SocketAddr) {
        let mut cluster = ClusterConfig {
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
        (self.settings)(index, &mut cluster);
        let mut config = NodeConfig::new(self.dirs[index].path().join("data"));
        config.shards = 2;
        config.shard = ShardConfig {
            log_bytes: self.log_bytes.0,
            fill_bytes: self.log_bytes.1,
            idle_ms: 1000,
            value_bytes_max: self.value_bytes_max,
            ..ShardConfig::default()
        };
        config.limits.pages = self.pages;
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

    pub async fn stop(&mut self, index: usize) {
        if let Some(node) = self.nodes[index].take() {
            node.stop().await;
        }
    }

    pub fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().unwrap()
    }

    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    pub async fn wait(&self, what: &str, is_so: impl Fn(&Node) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !self.running().all(&is_so) {
            assert!(Instant::now() < until, "not in time: {what}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until the node says this of why it is not ready.
    pub async fn wait_why(&self, index: usize, part: &str) {
        let why = || self.node(index).why_not_ready().unwrap_or_default();
        let until = Instant::now() + PATIENCE;
        while !why().contains(part) {
            assert!(Instant::now() < until, "{}", why());
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn wait_linked(&self) {
        let others = self.running().count() - 1;
        self.wait("all are linked", |node| {
            let inner = &node.cluster().unwrap().inner;
            let members: Vec<_> = inner.layout().table.up().map(|(node, _)| node).collect();
            inner.up_peers(&members).len() == others
        })
        .await;
    }

    pub async fn wait_equal(&self) {
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

    pub async fn end(mut self) {
        for index in 0..self.nodes.len() {
            self.stop(index).await;
        }
    }
}

/// It serves, and has a say in what a quorum is.
pub fn is_member(node: &Node) -> bool {
    node.is_ready() && node.cluster().unwrap().inner.votes(SlotId(1))
}

pub fn user() -> UserId {
    UserId::new("u").unwrap()
}

pub fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// At the usual level, also on a machine that has much else to do.
pub fn patient() -> Terms {
    Terms {
        deadline: Instant::now() + PATIENCE,
        ..Terms::usual()
    }
}

pub fn at(consistency: Consistency) -> Terms {
    Terms {
        consistency,
        ..Terms::usual()
    }
}

pub async fn add(node: &Node, name: &str, text: &str) -> Result<Added, OpError> {
    node.add(&user(), &key(name), text.into(), true, None, Terms::usual())
        .await
}

pub async fn list(node: &Node, name: &str, consistency: Consistency) -> Result<Vec<String>, OpError> {
    let mut reader = node.get(&user(), &key(name), 0, u64::MAX, at(consistency)).await?;
    reader.until_sent();
    rest_of(&mut reader).await
}

pub async fn rest_of(reader: &mut ValueReader) -> Result<Vec<String>, OpError> {
    let (mut values, mut open) = (Vec::new(), String::new());
    loop {
        let fragments = reader.next(1 << 20).await?;
        if reader.began_anew() {
            (values, open) = Default::default();
        }
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

pub async fn change(node: &Node, change: MemberChange) -> Result<(), MemberRefused> {
    node.cluster().unwrap().change_members(change).await
}

pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub fn inner(node: &Node) -> &Arc<Inner> {
    &node.cluster().unwrap().inner
}

pub fn id(node: &Node) -> NodeId {
    node.local().life().node
}

/// Nothing of it runs any more.
pub async fn stop_task(node: &Node, task: usize) {
    inner(node).tasks.lock()[task].abort();
    until("it has ended", || inner(node).tasks.lock()[task].is_finished()).await;
}

/// It does not look at the member table any more, nor lets anybody in, before which it would.
pub async fn stop_looking(node: &Node) {
    stop_task(node, LAYOUT).await;
    let inner = inner(node).clone();
    let (held, is_held) = tokio::sync::oneshot::channel();
    let holds = tokio::spawn({
        let inner = inner.clone();
        async move {
            let _changing = inner.members.changing.lock().await;
            let _ = held.send(());
            std::future::pending::<()>().await;
        }
    });
    // It is stopped with the node.
    inner.tasks.lock()[LAYOUT] = holds;
    is_held.await.unwrap();
}

/// The end of [`stop_looking`], or of a stop of that task alone.
pub fn look_again(node: &Node) {
    let inner = inner(node).clone();
    let mut tasks = inner.tasks.lock();
    tasks[LAYOUT].abort();
    let watched = members::layout::watch(inner.clone(), inner.members.view.subscribe());
    tasks[LAYOUT] = tokio::spawn(watched);
}

/// Every request so far, whether or not somebody still wants the answer.
pub async fn wait_answered(peers: &[Peer]) {
    let until = Instant::now() + PATIENCE;
    while peers.iter().any(|peer| peer.waiting() > Duration::ZERO) {
        assert!(Instant::now() < until);
        sleep(Duration::from_millis(5)).await;
    }
}

/// By its own disk.
pub async fn count_at(node: &Node, name: &str) -> u64 {
    node.local().count(&user(), &key(name)).await.unwrap()
}

/// A node that runs may rename or remove a file just then: the copy begins anew.
#[expect(clippy::disallowed_methods, reason = "the nodes of these tests are on the real disk")]
pub fn copy(from: &Path, to: &Path) {
    while let Err(error) = try_copy(from, to) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        std::fs::remove_dir_all(to).unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the nodes of these tests are on the real disk")]
fn try_copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => try_copy(&path, &to)?,
            false => _ = std::fs::copy(&path, &to)?,
        }
    }
    Ok(())
}
