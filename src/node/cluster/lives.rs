//! Which life of each member this node has met last, to tell an older copy of a member's disk from the disk itself.
//!
//! A member counts its starts on its disk, and each start is a life of its own, named by its origin. Whoever comes with a number of starts
//! that another life was met with, or with a smaller one, runs on an older copy: it must not vote by what that copy holds.
//!
//! The record is kept in `lives.json`, written before the answer, so that a node that restarts still knows.
//!
//! A node does not know of itself that its disk was put back, so after a start it does not vote before it has met all members, or, as one may
//! be away, all that it reaches within `MEETING`: one of them may know better.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Inner;
use super::sync::{Broken, ask};
use crate::env::Env;
use crate::node::local::Local;
use crate::node::peers::Peer;
use crate::node::whole_file;
use crate::types::NodeId;
use crate::wire::{Request, Response, WireError};

const FILE: &str = "lives.json";
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Many times what it takes to find all members that are up, and to be met by them.
const MEETING: Duration = Duration::from_secs(2);

/// A life of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    starts: u64,
    origin: u64,
}

pub(super) struct Lives {
    path: PathBuf,
    met: Arc<Mutex<BTreeMap<String, Life>>>,
    /// One write at a time.
    writing: tokio::sync::Mutex<()>,
    /// Peers that know this node's life.
    introduced: Mutex<BTreeSet<NodeId>>,
    /// Peers that were asked, and know of no later life.
    heard: Mutex<BTreeSet<NodeId>>,
    /// Starts of a later life that this one has begun anew for.
    older_than: AtomicU64,
    started: Instant,
    /// Enough peers know this node's life for its word to count.
    is_known: AtomicBool,
}

impl Lives {
    pub(super) async fn open(env: &Env, local: &Local) -> Self {
        let path = local.data_dir().join(FILE);
        let (disk, at) = (env.disk.clone(), path.clone());
        let read = env
            .run_blocking(move || whole_file::read(&*disk, &at, FILE_BYTES_MAX))
            .await;
        let met = match read {
            Ok(Ok(Some(bytes))) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "the record of members' lives is damaged; it begins anew");
                BTreeMap::new()
            }),
            Ok(Ok(None)) | Err(_) => BTreeMap::new(),
            Ok(Err(error)) => {
                tracing::error!(path = %path.display(), %error, "the record of members' lives cannot be read; it begins anew");
                BTreeMap::new()
            }
        };
        Self {
            path,
            met: Arc::new(Mutex::new(met)),
            writing: tokio::sync::Mutex::default(),
            introduced: Mutex::default(),
            heard: Mutex::default(),
            older_than: AtomicU64::new(0),
            started: Instant::now(),
            is_known: AtomicBool::new(false),
        }
    }

    /// Meets a member; durable before it is answered with `Done`.
    pub(super) async fn meet(&self, env: &Env, node: NodeId, starts: u64, origin: u64) -> Response {
        let life = Life { starts, origin };
        let name = node.to_string();
        let _one = self.writing.lock().await;
        match self.met.lock().get(&name) {
            Some(met) if *met == life => return Response::Done,
            Some(met) if met.starts >= starts => {
                tracing::warn!(%node, starts, met = met.starts, "a member came with an older copy of its disk");
                return Response::OlderCopy { starts: met.starts };
            }
            _ => {}
        }
        let bytes = {
            let mut all = self.met.lock().clone();
            all.insert(name.clone(), life);
            serde_json::to_vec(&all).unwrap_or_default()
        };
        let (disk, path) = (env.disk.clone(), self.path.clone());
        let written = env.run_blocking(move || whole_file::write(&*disk, &path, &bytes)).await;
        match written {
            Ok(Ok(())) => {
                self.met.lock().insert(name, life);
                Response::Done
            }
            Ok(Err(error)) => Response::Failed(WireError::Disk(error.to_string())),
            Err(_) => Response::Failed(WireError::ShuttingDown),
        }
    }

    /// Whether the peer knows this node's life, and finds nothing wrong with it.
    pub(super) fn is_introduced(&self, peer: NodeId) -> bool {
        self.introduced.lock().contains(&peer)
    }

    pub(super) fn set_introduced(&self, peer: NodeId) {
        self.set_heard(peer);
        self.introduced.lock().insert(peer);
    }

    pub(super) fn set_heard(&self, peer: NodeId) {
        self.heard.lock().insert(peer);
    }

    fn was_heard(&self, peer: NodeId) -> bool {
        self.heard.lock().contains(&peer)
    }

    /// Whether a later life with so many starts was not told of yet.
    pub(super) fn is_news(&self, starts: u64) -> bool {
        starts > self.older_than.load(Ordering::Acquire)
    }

    pub(super) fn note_older_than(&self, starts: u64) {
        self.older_than.fetch_max(starts, Ordering::AcqRel);
    }
}

impl Inner {
    /// Tells the peer this node's life.
    pub(super) async fn introduce(&self, peer: &Peer) -> Result<(), Broken> {
        let life = self.local.life();
        let request = Request::Introduce {
            starts: life.starts,
            life: life.origin.0,
        };
        match ask(peer, request).await? {
            Response::Done => {
                self.lives.set_introduced(peer.node());
                Ok(())
            }
            // This very life has begun anew for that already.
            Response::OlderCopy { starts } if !self.lives.is_news(starts) => {
                self.lives.set_introduced(peer.node());
                Ok(())
            }
            Response::OlderCopy { starts } => {
                tracing::error!(
                    peer = %peer.node(), starts, own = life.starts,
                    "this disk is an older copy of itself: all that the others hold is copied before it counts again"
                );
                self.clocks.set_new();
                self.local.set_new(starts).await?;
                self.lives.note_older_than(starts);
                // Its word does not count; the peer may hear it.
                self.lives.set_introduced(peer.node());
                Ok(())
            }
            // It cannot note this life now, and knows nothing against it.
            Response::Failed(WireError::Disk(_)) => {
                self.lives.set_heard(peer.node());
                Err(Broken::Answer)
            }
            _ => Err(Broken::Answer),
        }
    }

    /// Whether those who would know of a later life of this disk had the time to say so.
    pub(super) fn is_known(&self) -> bool {
        let lives = &self.lives;
        if lives.is_known.load(Ordering::Relaxed) {
            return true;
        }
        let layout = self.layouts.current();
        let mut others = layout.table.up().filter(|(node, _)| *node != self.me);
        if !layout.table.is_empty() && others.all(|(node, _)| lives.was_heard(node)) {
            lives.is_known.store(true, Ordering::Relaxed);
            return true;
        }
        // Not for good: whoever comes later may still know better.
        let peers = self.peers.all();
        let mut up = peers.iter().filter(|peer| peer.is_up());
        lives.started.elapsed() >= MEETING && up.all(|peer| lives.was_heard(peer.node()))
    }
}
