//! What is known of lives: that of this node at its peers, and those of its peers here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::file::LivesFile;
use crate::core::clock::SlotClocks;
use crate::core::slot::SlotId;
use crate::env::Env;
use crate::node::cluster::Inner;
use crate::node::cluster::calls::connection_of;
use crate::node::cluster::members::SHOWING_MAX;
use crate::node::local::Local;
use crate::node::peers::Peer;
use crate::types::NodeId;

/// Many times what it takes to find all members that are up, and to be met by them.
const MEETING: Duration = Duration::from_secs(2);
/// After its start a node waits for so long for peers that are there and cannot say whether it told them more before; and for its own shards.
pub(super) const HEARING_MAX: Duration = Duration::from_secs(10);

pub(super) type Judged = Arc<tokio::sync::Mutex<Option<(SlotClocks, bool)>>>;

pub(in crate::node::cluster) struct Lives {
    pub(super) file: LivesFile,
    /// Peers that know this node's life.
    introduced: Mutex<BTreeSet<NodeId>>,
    /// Peers that were told this node's life and clocks, and what they know against it is heeded.
    heard: Mutex<BTreeSet<NodeId>>,
    /// Peers that are not waited for any more, and the connection on which they did not answer: on another one they may.
    passed_over: Mutex<BTreeMap<NodeId, u64>>,
    /// Slots of shards that did not open in time to be told.
    untold: Mutex<BTreeSet<SlotId>>,
    /// Whether there are any.
    has_untold: AtomicBool,
    /// Starts of a later life that this one has begun anew for.
    older_than: AtomicU64,
    /// When it began to wait for the others: at its start, mostly.
    started: Mutex<Instant>,
    /// What peers were found to lack, and whether they have to hold it; locked while that is looked at.
    pub(super) judged: Mutex<BTreeMap<NodeId, Judged>>,
    /// Enough peers know this node's life for its word to count.
    is_known: AtomicBool,
}

impl Lives {
    pub(in crate::node::cluster) async fn open(env: &Env, local: &Local) -> Self {
        let file = LivesFile::open(env, local.data_dir().to_owned(), local.files().clone());
        Self {
            file: file.await,
            introduced: Mutex::default(),
            heard: Mutex::default(),
            passed_over: Mutex::default(),
            untold: Mutex::default(),
            has_untold: AtomicBool::new(false),
            older_than: AtomicU64::new(0),
            started: Mutex::new(Instant::now()),
            judged: Mutex::default(),
            is_known: AtomicBool::new(false),
        }
    }

    pub(in crate::node::cluster) fn is_known_for_good(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    pub(super) fn all_met_are(&self, is_so: impl Fn(NodeId) -> bool) -> bool {
        self.file.all_met_are(is_so)
    }

    pub(super) fn waited(&self) -> Duration {
        self.started.lock().elapsed()
    }

    /// There are others than were known: they are waited for as after a start.
    pub(in crate::node::cluster) fn meet_anew(&self) {
        *self.started.lock() = Instant::now();
        self.is_known.store(false, Ordering::Relaxed);
    }

    /// Nobody can know of a later life: this node has just founded its cluster.
    pub(in crate::node::cluster) fn set_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Whether the peer knows this node's life, and finds nothing wrong with it.
    pub(in crate::node::cluster) fn is_introduced(&self, peer: NodeId) -> bool {
        self.introduced.lock().contains(&peer)
    }

    pub(super) fn set_introduced(&self, peer: NodeId) {
        self.introduced.lock().insert(peer);
    }

    pub(super) fn set_heard(&self, peer: NodeId) {
        self.heard.lock().insert(peer);
    }

    pub(super) fn was_heard(&self, peer: NodeId) -> bool {
        self.heard.lock().contains(&peer)
    }

    /// Whether a node that was just started has waited for others, and for its own shards, as long as it does.
    pub(super) fn has_waited(&self) -> bool {
        self.waited() >= HEARING_MAX
    }

    /// The peer is not waited for any more on this connection. Whether that is news.
    pub(super) fn pass_over(&self, peer: NodeId, connection: u64) -> bool {
        self.passed_over.lock().insert(peer, connection) != Some(connection)
    }

    fn is_passed_over(&self, peer: &Peer) -> bool {
        self.passed_over.lock().get(&peer.node()) == Some(&connection_of(peer))
    }

    pub(super) fn note_untold(&self, slots: Vec<SlotId>) {
        self.has_untold.fetch_or(!slots.is_empty(), Ordering::Release);
        self.untold.lock().extend(slots);
    }

    /// Whether a later life with so many starts was not told of yet.
    pub(super) fn is_news(&self, starts: u64) -> bool {
        starts > self.older_than.load(Ordering::Acquire)
    }

    /// Whether, others having heard more of this very generation than was sent, the machine was rolled back with its memory, or runs twice. An older
    /// copy that was started as often shows the same, but as soon as it meets them; and its origin is a new one.
    pub(in crate::node::cluster) fn is_put_back(&self, generation: u64) -> bool {
        self.is_news(generation) && (self.is_known_for_good() || self.has_waited())
    }

    pub(super) fn note_older_than(&self, starts: u64) {
        self.older_than.fetch_max(starts, Ordering::AcqRel);
    }
}

impl Inner {
    /// Whether those who would know of a later life of this disk had the time to say so.
    pub(in crate::node::cluster) fn is_known(&self) -> bool {
        let lives = &self.lives;
        if lives.is_known_for_good() {
            return true;
        }
        // Whom the table lacks, because it is much too old, may know as well; and it may lack all of them.
        if self.may_be_unknown() && !lives.has_waited() {
            return false;
        }
        let layout = self.layout();
        let mut others = layout.table.up().filter(|(node, _)| *node != self.me).peekable();
        let is_alone = others.peek().is_none();
        let have_shown = !is_alone || lives.waited() >= SHOWING_MAX;
        if !layout.table.is_empty() && have_shown && others.all(|(node, _)| lives.was_heard(node)) {
            lives.is_known.store(true, Ordering::Relaxed);
            return true;
        }
        // Not for good: whoever comes later may still know better.
        let peers = self.peers.all();
        let mut up = peers.iter().filter(|peer| peer.is_up());
        !is_alone
            && lives.waited() >= MEETING
            && up.all(|peer| lives.was_heard(peer.node()) || lives.is_passed_over(peer))
    }

    /// Whether those who would know of a later state of the slot had the chance to say so, or all that they hold of it is here.
    pub(in crate::node::cluster) fn was_told(&self, slot: SlotId) -> bool {
        let lives = &self.lives;
        if !lives.has_untold.load(Ordering::Acquire) || !lives.untold.lock().contains(&slot) {
            return true;
        }
        let layout = self.layout();
        let others = layout.placement.replicas(slot).iter().copied();
        self.clocks.has_all_of(slot, others.filter(|node| *node != self.me))
    }

    /// The same of all slots.
    pub(super) fn told_all(&self) -> bool {
        let lives = &self.lives;
        let untold = || lives.untold.lock().clone();
        !lives.has_untold.load(Ordering::Acquire) || untold().into_iter().all(|slot| self.was_told(slot))
    }
}
