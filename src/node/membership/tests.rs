//! Clusters over a network in memory that loses, delays and parts, in tokio's paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::*;
use crate::env::{BoxFuture, Datagrams, Listener, Net, Stream};
use crate::net::{ClusterKey, Sealer};
use crate::store::memory_disk::MemoryDisk;

mod notices;

/// A datagram and where it comes from.
type Packet = (Vec<u8>, SocketAddr);

/// The network between all nodes of a test.
struct Wire {
    sockets: BTreeMap<SocketAddr, mpsc::UnboundedSender<Packet>>,
    rng: SmallRng,
    /// Of 100 datagrams, how many are lost.
    loss_percent: u32,
    delay_max: Duration,
    /// Addresses that nothing reaches or leaves.
    cut_off: BTreeSet<SocketAddr>,
    /// Every datagram that was sent, with its destination, while this is on.
    recorded: Option<Vec<(Vec<u8>, SocketAddr)>>,
    sent_bytes: u64,
}

#[derive(Clone)]
struct MemoryNet(Arc<parking_lot::Mutex<Wire>>);

impl MemoryNet {
    fn new(loss_percent: u32, delay_max: Duration) -> Self {
        Self(Arc::new(parking_lot::Mutex::new(Wire {
            sockets: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(7),
            loss_percent,
            delay_max,
            cut_off: BTreeSet::new(),
            recorded: None,
            sent_bytes: 0,
        })))
    }

    fn send(&self, bytes: &[u8], from: SocketAddr, to: SocketAddr) {
        let mut wire = self.0.lock();
        wire.sent_bytes += bytes.len() as u64 + 28 /* IPv4 and UDP headers */;
        if let Some(recorded) = &mut wire.recorded {
            recorded.push((bytes.to_vec(), to));
        }
        let parted = wire.cut_off.contains(&from) || wire.cut_off.contains(&to);
        let (percent, delay_max) = (wire.loss_percent, wire.delay_max);
        if parted || wire.rng.random_range(0..100) < percent {
            return;
        }
        let Some(socket) = wire.sockets.get(&to).cloned() else {
            return;
        };
        let delay = delay_max.mul_f64(wire.rng.random());
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            sleep(delay).await;
            let _ = socket.send((bytes, from));
        });
    }
}

impl Net for MemoryNet {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn datagrams(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::unbounded_channel();
            let mut wire = self.0.lock();
            if wire.sockets.get(&addr).is_some_and(|socket| !socket.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            wire.sockets.insert(addr, sender);
            Ok(Box::new(MemorySocket {
                net: self.clone(),
                addr,
                received: tokio::sync::Mutex::new(receiver),
            }) as Box<dyn Datagrams>)
        })
    }
}

struct MemorySocket {
    net: MemoryNet,
    addr: SocketAddr,
    received: tokio::sync::Mutex<mpsc::UnboundedReceiver<Packet>>,
}

impl Datagrams for MemorySocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn send_to<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>> {
        self.net.send(bytes, self.addr, to);
        Box::pin(async { Ok(()) })
    }

    fn recv_from<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async move {
            let packet = self.received.lock().await.recv().await;
            let (bytes, from) = packet.ok_or(io::ErrorKind::BrokenPipe)?;
            let length = bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            Ok((length, from))
        })
    }
}

fn env(net: &MemoryNet) -> Env {
    Env {
        disk: MemoryDisk::new().as_disk(),
        net: Arc::new(net.clone()),
        wall: Arc::new(crate::os::SystemClock),
        entropy: Arc::new(crate::os::OsEntropy),
        blocking: Arc::new(crate::os::RuntimeThreads::of_current_runtime()),
    }
}

fn addr(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], 7000))
}

fn about(node: u64) -> About {
    About {
        peer: SocketAddr::from(([10, 0, 0, node as u8], 7001)),
        http: SocketAddr::from(([10, 0, 0, node as u8], 8000)),
        zone: format!("zone-{node}"),
    }
}

fn ring(byte: u8) -> KeyRing {
    KeyRing::of(&ClusterKey::from_bytes([byte; 32]))
}

fn config(node: u64, generation: u64, seeds: &[u64]) -> MembershipConfig {
    MembershipConfig {
        node: NodeId(node),
        generation,
        cluster_name: "test".to_owned(),
        listen: addr(node),
        advertise: addr(node),
        seeds: seeds.iter().map(|seed| addr(*seed)).collect(),
        keys: ring(1),
        about: about(node),
    }
}

async fn start(net: &MemoryNet, config: MembershipConfig) -> Membership {
    Membership::start(&env(net), config).await.unwrap()
}

/// A number of nodes that know the first one, once they all see each other.
async fn cluster(net: &MemoryNet, count: u64) -> Vec<Membership> {
    let mut nodes = Vec::new();
    for node in 1..=count {
        nodes.push(start(net, config(node, 1, &[1])).await);
        // So that their rounds of gossip do not fall together.
        let phase = net.0.lock().rng.random_range(0..350);
        sleep(Duration::from_millis(phase)).await;
    }
    for node in &nodes {
        let all = |view: &ClusterView| alive(view).len() as u64 == count;
        wait(node, Duration::from_secs(10), all).await;
    }
    nodes
}

fn alive(view: &ClusterView) -> Vec<u64> {
    let nodes = view.nodes.iter().filter(|(_, node)| node.alive);
    nodes.map(|(node, _)| node.0).collect()
}

fn sees(node: &Membership) -> Vec<u64> {
    alive(&node.view().borrow())
}

/// How long it takes until the view is as it should be.
async fn wait(node: &Membership, most: Duration, right: impl FnMut(&ClusterView) -> bool) -> Duration {
    let started = Instant::now();
    let mut view = node.view();
    if timeout(most, view.wait_for(right)).await.is_err() {
        panic!("after {most:?}: {:?}", node.view().borrow());
    }
    started.elapsed()
}

/// Fails as soon as a view is not as it should be.
async fn stays(nodes: &[Membership], time: Duration, right: impl Fn(&ClusterView) -> bool) {
    let end = Instant::now() + time;
    let watch_one = |node: &Membership| {
        let (mut view, right) = (node.view(), &right);
        async move {
            loop {
                assert!(right(&view.borrow_and_update()), "{:?}", view.borrow());
                tokio::select! {
                    changed = view.changed() => changed.unwrap(),
                    () = tokio::time::sleep_until(end) => return,
                }
            }
        }
    };
    futures_util::future::join_all(nodes.iter().map(watch_one)).await;
}

const JITTER: Duration = Duration::from_millis(200);

#[tokio::test(start_paused = true)]
async fn nodes_find_each_other_through_one_of_them_and_know_what_each_says_of_itself() {
    let net = MemoryNet::new(0, Duration::from_millis(1));
    let nodes = cluster(&net, 5).await;
    for node in &nodes {
        let view = node.view().borrow().clone();
        for other in 1..=5 {
            let expected = NodeView {
                about: about(other),
                generation: 1,
                alive: true,
            };
            assert_eq!(view.nodes[&NodeId(other)], expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_declared_dead_in_an_hour_of_loss_and_jitter_and_who_is_killed_is_noticed_within_3_s() {
    hour_and_kills(7, 20).await;
}

/// The same for many seeds: `KV_SEEDS=100..120 cargo test --release --lib membership -- --ignored`
#[tokio::test(start_paused = true)]
#[ignore = "takes minutes"]
async fn nobody_is_declared_dead_whatever_the_seed() {
    let seeds = std::env::var("KV_SEEDS").unwrap_or("100..110".to_owned());
    let (first, end) = seeds.split_once("..").unwrap();
    for seed in first.parse::<u64>().unwrap()..end.parse().unwrap() {
        hour_and_kills(seed, 100).await;
    }
}

async fn hour_and_kills(seed: u64, rounds: u64) {
    let net = MemoryNet::new(5, JITTER);
    net.0.lock().rng = SmallRng::seed_from_u64(seed);
    let mut nodes = cluster(&net, 3).await;
    let started = (Instant::now(), net.0.lock().sent_bytes);
    stays(&nodes, Duration::from_secs(3600), |view| alive(view) == [1, 2, 3]).await;
    let bytes = net.0.lock().sent_bytes - started.1;
    let per_pair_and_second = bytes as f64 / 3.0 / started.0.elapsed().as_secs_f64();
    assert!(per_pair_and_second < 1400.0, "{per_pair_and_second} B/s");

    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let killed = Instant::now();
        drop(nodes.remove(0));
        for node in &nodes {
            wait(node, Duration::from_secs(3), |view| alive(view) == [2, 3]).await;
            longest = longest.max(killed.elapsed());
        }
        // It does not come back, and the others go on. The time is no multiple of a round of gossip.
        stays(&nodes, Duration::from_millis(3217), |view| alive(view) == [2, 3]).await;
        nodes.insert(0, start(&net, config(1, 2 + round, &[2, 3])).await);
        for node in &nodes {
            wait(node, Duration::from_secs(10), |view| alive(view) == [1, 2, 3]).await;
        }
    }
    println!("{per_pair_and_second:.0} B/s for each pair; noticed after at most {longest:?}");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_stays_in_the_view_long_after_gossip_forgot_it_and_is_alive_again_when_it_returns() {
    let net = MemoryNet::new(0, JITTER);
    let mut nodes = cluster(&net, 3).await;
    nodes.pop().unwrap().stop().await;
    sleep(Duration::from_secs(600)).await;
    for node in &nodes {
        let view = node.view().borrow().clone();
        assert_eq!(alive(&view), [1, 2]);
        assert_eq!(view.nodes[&NodeId(3)].about, about(3));
    }
    // Without seeds: the others call it.
    nodes.push(start(&net, config(3, 2, &[])).await);
    for node in &nodes {
        wait(node, Duration::from_secs(10), |view| alive(view) == [1, 2, 3]).await;
        assert_eq!(node.view().borrow().nodes[&NodeId(3)].generation, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn halves_that_were_parted_for_long_meet_again() {
    let net = MemoryNet::new(0, JITTER);
    let nodes = cluster(&net, 3).await;
    net.0.lock().cut_off.insert(addr(3));
    wait(&nodes[0], Duration::from_secs(3), |view| alive(view) == [1, 2]).await;
    wait(&nodes[2], Duration::from_secs(3), |view| alive(view) == [3]).await;
    sleep(Duration::from_secs(3600)).await;
    net.0.lock().cut_off.clear();
    for node in &nodes {
        wait(node, Duration::from_secs(10), |view| alive(view) == [1, 2, 3]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_is_never_seen_dead_when_it_is_quick() {
    let net = MemoryNet::new(0, Duration::from_millis(5));
    let mut nodes = cluster(&net, 3).await;
    nodes.pop().unwrap().stop().await;
    nodes.push(start(&net, config(3, 2, &[1, 2])).await);
    let third = nodes.pop().unwrap();
    stays(&nodes, Duration::from_secs(60), |view| alive(view) == [1, 2, 3]).await;
    for node in &nodes {
        assert_eq!(node.view().borrow().nodes[&NodeId(3)].generation, 2);
    }
    assert_eq!(sees(&third), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn another_key_another_cluster_and_garbage_are_refused_and_harmless() {
    let net = MemoryNet::new(0, Duration::from_millis(1));
    let nodes = cluster(&net, 2).await;
    let other_key = MembershipConfig {
        keys: ring(2),
        ..config(3, 1, &[1, 2])
    };
    let other_name = MembershipConfig {
        cluster_name: "other".to_owned(),
        ..config(4, 1, &[1, 2])
    };
    let strangers = [start(&net, other_key).await, start(&net, other_name).await];
    for length in 0..300 {
        net.send(&vec![length as u8; length], addr(9), addr(1));
    }
    // Sealed with the key, but no message.
    let mut sealer = Sealer::new(&ring(1), NodeId(9), 1, Arc::new(crate::os::OsEntropy));
    let mut datagram = Vec::new();
    for payload in [&b""[..], b"\0", b"\0\x01\x02\x03", b"\x02short", b"\x03"] {
        sealer.seal(payload, &mut datagram);
        net.send(&datagram, addr(9), addr(1));
    }
    stays(&nodes, Duration::from_secs(30), |view| alive(view) == [1, 2]).await;
    assert_eq!((sees(&strangers[0]), sees(&strangers[1])), (vec![3], vec![4]));
    let counters = nodes[0].counters();
    let refused: BTreeMap<_, _> = counters.refused.by_reason().collect();
    assert_eq!(refused["malformed"], 5);
    assert!(refused["unknown_key"] > 10 && refused["too_short"] > 10 && refused["version"] > 10);
}

#[tokio::test(start_paused = true)]
async fn replayed_datagrams_change_nothing_and_are_counted() {
    let net = MemoryNet::new(0, Duration::from_millis(1));
    let mut nodes = cluster(&net, 3).await;
    net.0.lock().recorded = Some(Vec::new());
    sleep(Duration::from_secs(5)).await;
    let recorded = net.0.lock().recorded.take().unwrap();
    nodes.pop().unwrap().stop().await;
    for node in &nodes {
        wait(node, Duration::from_secs(3), |view| alive(view) == [1, 2]).await;
    }
    // Played again, to everyone and again and again, they do not make the dead one live.
    for _ in 0..20 {
        for (bytes, _) in &recorded {
            net.send(bytes, addr(3), addr(1));
            net.send(bytes, addr(3), addr(2));
        }
        stays(&nodes, Duration::from_secs(1), |view| alive(view) == [1, 2]).await;
    }
    for node in &nodes {
        let counters = node.counters();
        let refused: BTreeMap<_, _> = counters.refused.by_reason().collect();
        assert!(refused["replayed"] as usize > recorded.len() * 10, "{refused:?}");
        assert_eq!(*node.outdated().borrow(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_generation_was_set_back_learns_so() {
    let net = MemoryNet::new(0, Duration::from_millis(1));
    let mut nodes = cluster(&net, 3).await;
    nodes.pop().unwrap().stop().await;
    nodes.push(start(&net, config(3, 9, &[1])).await);
    wait(&nodes[0], Duration::from_secs(10), |view| {
        view.nodes[&NodeId(3)].generation == 9
    })
    .await;
    // An older generation, and the same one anew.
    for generation in [4, 9] {
        sleep(Duration::from_secs(20)).await;
        nodes.pop().unwrap().stop().await;
        // Long enough that gossip has forgotten it: only the replay windows remember.
        sleep(Duration::from_secs(300)).await;
        let restored = start(&net, config(3, generation, &[1])).await;
        let mut outdated = restored.outdated();
        timeout(Duration::from_secs(10), outdated.wait_for(|known| *known == Some(9)))
            .await
            .unwrap()
            .unwrap();
        nodes.push(restored);
    }
    nodes.pop().unwrap().stop().await;
    nodes.push(start(&net, config(3, 10, &[1])).await);
    for node in &nodes {
        wait(node, Duration::from_secs(10), |view| alive(view) == [1, 2, 3]).await;
    }
    assert_eq!(*nodes[2].outdated().borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn who_was_paused_blames_nobody_and_does_not_flood_the_others() {
    let net = MemoryNet::new(5, JITTER);
    let mut nodes = cluster(&net, 3).await;
    for pause in [1, 2, 10, 3600] {
        let mut views: Vec<_> = nodes.iter().map(Membership::view).collect();
        views.iter_mut().for_each(|view| view.mark_unchanged());
        net.0.lock().recorded = Some(Vec::new());
        // Every timer fires late, as it does after the process was stopped and went on.
        tokio::time::advance(Duration::from_secs(pause)).await;
        sleep(Duration::from_millis(50)).await;
        let sent = net.0.lock().recorded.take().unwrap().len();
        assert!(sent < 50, "{sent} datagrams at once after {pause} s");
        stays(&nodes, Duration::from_secs(20), |view| alive(view) == [1, 2, 3]).await;
        assert!(views.iter().all(|view| !view.has_changed().unwrap()));
    }
    // Who died meanwhile is noticed a little later.
    tokio::time::advance(Duration::from_secs(10)).await;
    drop(nodes.pop());
    for node in &nodes {
        wait(node, CATCH_UP + Duration::from_secs(3), |view| alive(view) == [1, 2]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_in_use_and_names_too_long_are_told() {
    let net = MemoryNet::new(0, Duration::ZERO);
    let node = start(&net, config(1, 1, &[])).await;
    let error = Membership::start(&env(&net), config(1, 2, &[])).await.err().unwrap();
    assert!(matches!(error, MembershipError::Listen { .. }), "{error}");
    node.stop().await;
    let node = start(&net, config(1, 2, &[])).await;
    drop(node);
    let mut long = config(2, 1, &[]);
    long.about.zone = "z".repeat(ZONE_BYTES_MAX + 1);
    let error = Membership::start(&env(&net), long).await.err().unwrap();
    assert_eq!(error.to_string(), "the name of the zone has 65 bytes, 64 are allowed");
}
