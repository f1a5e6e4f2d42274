//! Stub.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::sync::watch;
use crate::env::Env;
use crate::net::KeyRing;
use crate::types::NodeId;
pub struct MembershipConfig { pub node: NodeId, pub generation: u64, pub cluster_name: String, pub listen: SocketAddr, pub advertise: SocketAddr, pub seeds: Vec<SocketAddr>, pub keys: KeyRing, pub about: About }
#[derive(Debug, Clone, PartialEq)]
pub struct About { pub peer: SocketAddr, pub http: SocketAddr, pub zone: String }
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClusterView { pub nodes: BTreeMap<NodeId, NodeView> }
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView { pub about: About, pub generation: u64, pub alive: bool }
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct MembershipError;
pub struct Membership { tx: watch::Sender<ClusterView>, rx: watch::Receiver<ClusterView> }
impl Membership {
    pub async fn start(_: &Env, _: MembershipConfig) -> Result<Self, MembershipError> { let (tx, rx) = watch::channel(ClusterView::default()); Ok(Self { tx, rx }) }
    pub fn view(&self) -> watch::Receiver<ClusterView> { self.rx.clone() }
    pub fn refused(&self) -> Vec<(&'static str, u64)> { Vec::new() }
    pub async fn stop(self) { drop(self.tx); }
}
