//! Nodes that answer with what they were asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::Semaphore;

use super::memory_net::MemoryNet;
use crate::env::{Blocking, BoxFuture, Entropy, Env, Net, WallClock};
use crate::net::{ClusterKey, Hello, KeyRing};
use crate::node::peers::{Peer, PeerService, Peers, PeersConfig};
use crate::store::memory_disk::MemoryDisk;
use crate::types::{NodeId, WallMs};
use crate::wire::{Ask, Request, Response, WireTerms};

/// Answers `Digest` on the spot, everything else when its time has come; see the requests below.
pub struct Echo {
    pub ended: Mutex<Vec<(NodeId, u64)>>,
    pub begun: AtomicU64,
    /// None until a test adds some.
    pub turns: Arc<Semaphore>,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            ended: Mutex::default(),
            begun: AtomicU64::new(0),
            turns: Arc::new(Semaphore::new(0)),
        }
    }
}

pub fn digest(slot: u16) -> Request {
    Request::Digest { slot }
}

/// Answered with `Count(number)` after so long.
pub fn count(number: u64, after: Duration) -> Request {
    Request::Count {
        user: number.to_string(),
        key: String::new(),
        terms: WireTerms {
            level: 0,
            left_ms: after.as_millis() as u32,
        },
    }
}

/// The same, by what counts as a page.
pub fn page(number: u64, after: Duration) -> Request {
    Request::ReadNext {
        reader: number,
        budget_bytes: after.as_millis() as u32,
    }
}

/// Answered with the time that is left for it when it is begun.
pub fn read(left_ms: u32) -> Request {
    Request::Read {
        reader: 1,
        user: String::new(),
        key: String::new(),
        offset: 0,
        limit: 0,
        terms: WireTerms { level: 0, left_ms },
    }
}

/// Answered with the same digest after as many milliseconds, by the connection's own task.
pub fn compare(digest: u64) -> Request {
    Request::Compare { digest }
}

/// Makes the service panic: in a task of its own, or in the connection's.
pub fn panic_apart() -> Request {
    Request::HasData
}

pub fn panic_here() -> Request {
    Request::Append(Vec::new())
}

/// So many bytes, answered with their number.
pub fn bytes(bytes: usize) -> Request {
    of_key(bytes, 0)
}

/// The same after as many milliseconds.
pub fn of_key(bytes: usize, after_ms: u16) -> Request {
    Request::SyncKey {
        slot: after_ms,
        user: "x".repeat(bytes),
        key: String::new(),
        known: Default::default(),
    }
}

/// Answered with so many bytes.
pub fn text(bytes: usize) -> Request {
    Request::Count {
        user: bytes.to_string(),
        key: TEXT.to_owned(),
        terms: WireTerms { level: 0, left_ms: 0 },
    }
}

const TEXT: &str = "text";

/// Answered once [`Echo::turns`] has a turn.
pub fn ask() -> Request {
    Request::Ask(Ask {
        slot: 0,
        request: None,
        clock: false,
        time: 0,
    })
}

impl PeerService for Echo {
    fn answer_now(&self, _: NodeId, request: &Request) -> Option<Response> {
        match request {
            Request::Digest { slot } => Some(Response::Digest {
                votes: true,
                digest: u64::from(*slot),
            }),
            _ => None,
        }
    }

    fn answer(&self, _: NodeId, _: u64, request: Request) -> BoxFuture<'static, Response> {
        self.begun.fetch_add(1, Relaxed);
        let turns = self.turns.clone();
        Box::pin(async move {
            match request {
                Request::Count { user, key, .. } if key == TEXT => Response::Status("x".repeat(user.parse().unwrap())),
                Request::Ask(_) => {
                    drop(turns.acquire().await.unwrap());
                    Response::Done
                }
                Request::Count { user, terms, .. } => {
                    tokio::time::sleep(Duration::from_millis(u64::from(terms.left_ms))).await;
                    Response::Count(user.parse().unwrap())
                }
                Request::ReadNext { reader, budget_bytes } => {
                    tokio::time::sleep(Duration::from_millis(u64::from(budget_bytes))).await;
                    Response::Count(reader)
                }
                Request::Compare { digest } => {
                    tokio::time::sleep(Duration::from_millis(digest)).await;
                    Response::Count(digest)
                }
                Request::SyncKey { slot, user, .. } => {
                    tokio::time::sleep(Duration::from_millis(u64::from(slot))).await;
                    Response::Count(user.len() as u64)
                }
                Request::Read { terms, .. } => Response::Count(u64::from(terms.left_ms)),
                Request::HasData | Request::Append(_) => panic!("as the test asked"),
                _ => Response::Done,
            }
        })
    }

    fn connection_ended(&self, from: NodeId, connection: u64) {
        self.ended.lock().push((from, connection));
    }
}

struct Nothing;

impl WallClock for Nothing {
    fn now(&self) -> WallMs {
        WallMs(0)
    }
}

impl Blocking for Nothing {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

struct Top;

impl Actor for Top {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

pub async fn top() -> ActorCell {
    Actor::spawn(None, Top, ()).await.unwrap().0.get_cell()
}

pub fn env(net: Arc<dyn Net>) -> Env {
    Env {
        disk: MemoryDisk::new().as_disk(),
        net,
        wall: Arc::new(Nothing),
        entropy: Arc::new(crate::os::entropy::OsEntropy) as Arc<dyn Entropy>,
        blocking: Arc::new(Nothing),
    }
}

pub fn keys(byte: u8) -> KeyRing {
    KeyRing::of(&ClusterKey::from_bytes([byte; 32]))
}

pub fn address(number: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8], 7000))
}

pub struct TestNode {
    pub peers: Peers,
    pub service: Arc<Echo>,
}

/// Node `number` at `address(number)`, cluster 5, key 7.
pub fn config(number: u64) -> PeersConfig {
    PeersConfig {
        listen: address(number),
        join: Vec::new(),
        keys: keys(7),
        tls: None,
        hello: Hello {
            node: NodeId(number),
            generation: 1,
            cluster: 5,
        },
        calls_max: crate::node::peers::CALLS_MAX,
    }
}

pub async fn start(net: Arc<dyn Net>, config: PeersConfig) -> TestNode {
    let service = Arc::new(Echo::default());
    let peers = Peers::start(env(net), config, service.clone(), top().await);
    let peers = peers.await.unwrap();
    TestNode { peers, service }
}

pub struct Rig {
    pub net: Arc<MemoryNet>,
    pub one: TestNode,
    pub two: TestNode,
}

impl Rig {
    /// Nodes 1 and 2, of which the first has a connection to the second.
    pub async fn new() -> Self {
        Self::on(MemoryNet::default()).await
    }

    pub async fn on(net: MemoryNet) -> Self {
        let net = Arc::new(net);
        let rig = Self {
            one: start(net.clone(), config(1)).await,
            two: start(net.clone(), config(2)).await,
            net,
        };
        rig.one.know(&[(2, address(2))]);
        rig.peer().connections().wait_for(|count| *count == 1).await.unwrap();
        rig
    }

    pub fn peer(&self) -> Peer {
        self.one.peer(2)
    }
}

impl TestNode {
    pub fn know(&self, members: &[(u64, SocketAddr)]) {
        let members: BTreeMap<_, _> = members
            .iter()
            .map(|(node, address)| (NodeId(*node), *address))
            .collect();
        self.peers.set_members(&members);
    }

    pub fn peer(&self, node: u64) -> Peer {
        self.peers.get(NodeId(node)).unwrap()
    }
}

pub async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
