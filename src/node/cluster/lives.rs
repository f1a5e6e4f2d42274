//! Which life of each member this node has met last, to tell an older copy of a member's disk from the disk itself.
//!
//! A member counts its starts on its disk, and each start is a life of its own, named by its origin. Whoever comes with a number of starts
//! that another life was met with, or with a smaller one, runs on an older copy: it must not vote by what that copy holds.
//!
//! A copy that was taken while the member ran counts no start less, and shows by what it lacks (`told`).
//!
//! The record is on the disk before the answer (`lives_file`), so that a node that restarts still knows.
//!
//! A node does not know of itself that its disk was put back, so after a start it does not vote before it has met all members, or, as one may
//! be away, all that it reaches within `MEETING`: one of them may know better. To have met one is to have told it the life and the clocks.
//!
//! A peer that is there and does not answer, for its disk hangs or a shard of it does not open, is passed over after `HEARING_MAX`. It is then
//! no better and no worse than one that is away: what it knows against this disk it cannot say, and says as soon as it can, for it is asked again. Nothing
//! is counted between the two meanwhile: neither votes, takes or lists for the other before it has told its life and that is recorded, so no
//! acknowledgement rests on a life of this node of which a peer that helped with it has no record.
//!
//! A shard that does not open is not waited for either. What it holds was told to nobody, and nobody was asked whether that is less than
//! before; so when it opens after all, its slots vote once all that all other replicas hold is here, as if the disk were known to be set back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Inner;
use super::compare::Portions;
use super::lives_file::{Life, LivesFile};
use super::observe::connection_of;
use super::settled::digest_of;
use super::strangers::SHOWING_MAX;
use super::sync::{Broken, ask};
use super::told::Finding;
use crate::core::clock::SlotClocks;
use crate::core::slot::SlotId;
use crate::env::Env;
use crate::node::OpError;
use crate::node::local::Local;
use crate::node::peers::Peer;
use crate::planted::{Bug, planted};
use crate::types::NodeId;
use crate::wire::{Request, Response, WireError};

/// Many times what it takes to find all members that are up, and to be met by them.
const MEETING: Duration = Duration::from_secs(2);
/// After its start a node waits for so long for peers that are there and cannot say whether it told them more before; and for its own shards.
pub(super) const HEARING_MAX: Duration = Duration::from_secs(10);

pub(super) type Judged = Arc<tokio::sync::Mutex<Option<(SlotClocks, bool)>>>;

pub(super) struct Lives {
    file: LivesFile,
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
    pub(super) async fn open(env: &Env, local: &Local) -> Self {
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

    pub(super) fn is_known_for_good(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    pub(super) fn all_met_are(&self, is_so: impl Fn(NodeId) -> bool) -> bool {
        self.file.all_met_are(is_so)
    }

    pub(super) fn waited(&self) -> Duration {
        self.started.lock().elapsed()
    }

    /// There are others than were known: they are waited for as after a start.
    pub(super) fn meet_anew(&self) {
        *self.started.lock() = Instant::now();
        self.is_known.store(false, Ordering::Relaxed);
    }

    /// Nobody can know of a later life: this node has just founded its cluster.
    pub(super) fn set_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Whether the peer knows this node's life, and finds nothing wrong with it.
    pub(super) fn is_introduced(&self, peer: NodeId) -> bool {
        self.introduced.lock().contains(&peer)
    }

    fn set_introduced(&self, peer: NodeId) {
        self.introduced.lock().insert(peer);
    }

    pub(super) fn set_heard(&self, peer: NodeId) {
        self.heard.lock().insert(peer);
    }

    fn was_heard(&self, peer: NodeId) -> bool {
        self.heard.lock().contains(&peer)
    }

    /// Whether a node that was just started has waited for others, and for its own shards, as long as it does.
    fn has_waited(&self) -> bool {
        self.waited() >= HEARING_MAX
    }

    /// The peer is not waited for any more on this connection. Whether that is news.
    fn pass_over(&self, peer: NodeId, connection: u64) -> bool {
        self.passed_over.lock().insert(peer, connection) != Some(connection)
    }

    fn is_passed_over(&self, peer: &Peer) -> bool {
        self.passed_over.lock().get(&peer.node()) == Some(&connection_of(peer))
    }

    fn note_untold(&self, slots: Vec<SlotId>) {
        self.has_untold.fetch_or(!slots.is_empty(), Ordering::Release);
        self.untold.lock().extend(slots);
    }

    /// Whether a later life with so many starts was not told of yet.
    fn is_news(&self, starts: u64) -> bool {
        starts > self.older_than.load(Ordering::Acquire)
    }

    /// Whether, others having heard more of this very generation than was sent, the machine was put back with its memory, or runs twice. An older
    /// copy that was started as often shows the same, but as soon as it meets them; and its origin is a new one.
    pub(super) fn is_put_back(&self, generation: u64) -> bool {
        self.is_news(generation) && (self.is_known_for_good() || self.has_waited())
    }

    fn note_older_than(&self, starts: u64) {
        self.older_than.fetch_max(starts, Ordering::AcqRel);
    }
}

impl Inner {
    /// Tells the peer this node's life; and once in each life, what is durable here.
    pub(super) async fn introduce(&self, peer: &Peer) -> Result<(), Broken> {
        let connection = connection_of(peer);
        let introduced = self.tell_peer(peer).await;
        match &introduced {
            // What is in the way is here: the peer might answer.
            Ok(()) | Err(Broken::Local(_)) => {}
            Err(error) => self.pass_over(peer, connection, error),
        }
        introduced
    }

    fn pass_over(&self, peer: &Peer, connection: u64, error: &Broken) {
        if self.lives.has_waited() && self.lives.pass_over(peer.node(), connection) {
            tracing::warn!(peer = %peer.node(), %error, "a member cannot say what it knows of this node; it is not waited for");
        }
    }

    async fn tell_peer(&self, peer: &Peer) -> Result<(), Broken> {
        let (node, connection) = (peer.node(), connection_of(peer));
        let is_noted = self.tell_life(peer).await?;
        if !self.lives.was_heard(node) {
            match self.tell_clocks(peer).await {
                // It has a shard that does not open, and nothing that it could say now would come before the node has to go on.
                Err(error @ Broken::Answer) if self.lives.has_waited() => self.pass_over(peer, connection, &error),
                Err(error) => return Err(error),
                Ok(()) => self.lives.set_heard(node),
            }
        }
        if !is_noted {
            return Err(Broken::Answer);
        }
        self.lives.set_introduced(node);
        Ok(())
    }

    /// Whether the peer knows this life from now on; if not, it cannot note it, and knows nothing against it.
    async fn tell_life(&self, peer: &Peer) -> Result<bool, Broken> {
        let life = self.local.life();
        let request = Request::Introduce {
            starts: life.starts,
            life: life.origin.0,
        };
        match ask(peer, request).await? {
            Response::Done => Ok(true),
            Response::OlderCopy { starts } => self.start_over(peer, starts).await.map(|()| true),
            Response::Failed(WireError::Disk(_)) => Ok(false),
            _ => Err(Broken::Answer),
        }
    }

    /// Tells the peer the clocks of all slots in which nothing is known to be lost, and hears whether it was told more before.
    async fn tell_clocks(&self, peer: &Peer) -> Result<(), Broken> {
        // Of a node that is new nothing is expected.
        if !self.clocks.is_new() {
            let lost = self.local.lost();
            let shared = self.shared_slots(peer.node()).into_iter();
            let (open, closed): (Vec<SlotId>, Vec<SlotId>) = shared.partition(|slot| self.local.digest(*slot).is_ok());
            let mut slots = match closed.is_empty() {
                true => self.ask_what_differs(peer, open).await?,
                // It mostly opens within a moment, and is told with the others.
                false if !self.lives.has_waited() => {
                    return Err(OpError::ShardUnavailable { maybe_applied: false }.into());
                }
                false => open,
            };
            self.lives.note_untold(closed);
            slots.retain(|slot| lost.get(*slot).is_none());
            let mut left = Portions::of(&slots);
            while self.exchange_clocks(peer, &mut left).await?.is_some() {}
        }
        match ask(peer, Request::Clocks { slots: Vec::new() }).await? {
            Response::Clocks(_) => Ok(()),
            Response::OlderCopy { starts } => self.start_over(peer, starts).await,
            _ => Err(Broken::Answer),
        }
    }

    /// Those of the slots, all of which this node and the peer share, whose clocks differ by their digests.
    async fn ask_what_differs(&self, peer: &Peer, mut slots: Vec<SlotId>) -> Result<Vec<SlotId>, Broken> {
        let mine = self.digests(&slots)?;
        let request = Request::Compare {
            digest: digest_of(&mine),
        };
        match ask(peer, request).await? {
            Response::Same => slots.clear(),
            Response::Differ(theirs) => {
                let theirs: BTreeMap<u16, u64> = theirs.into_iter().collect();
                slots.retain(|slot| mine.get(slot) != theirs.get(&slot.0));
            }
            _ => return Err(Broken::Answer),
        }
        Ok(slots)
    }

    /// This disk is an older copy of itself, the peer says: unless this very life has begun anew for that already, it does so now.
    async fn start_over(&self, peer: &Peer, starts: u64) -> Result<(), Broken> {
        // The peer may not have been able to note this one.
        let starts = starts.max(self.local.life().starts);
        if self.lives.is_news(starts) {
            tracing::error!(
                peer = %peer.node(), starts, own = self.local.life().starts,
                "this disk is an older copy of itself: all that the others hold is copied before it counts again"
            );
            self.clocks.set_new();
            self.local.set_new(starts).await?;
            self.lives.note_older_than(starts);
        }
        Ok(())
    }

    /// A peer comes in this life, on a new connection.
    pub(super) async fn meet(&self, (from, connection): (NodeId, u64), starts: u64, life: u64) -> Response {
        self.note_introduced(from);
        let table = self.layouts.current().table.clone();
        let named = Life { starts, origin: life };
        let is_gone = |node| node != from && table.is_removed(node);
        let met = self.lives.file.meet(&self.env, from, named, is_gone).await;
        if matches!(met, Response::OlderCopy { .. }) {
            self.clocks.meet_older_copy(from, connection);
            return met;
        }
        match self.clocks.begin_life(from, life, connection) {
            true => Response::OlderCopy { starts },
            false => met,
        }
    }

    /// A peer has told its clocks, and asks whether it told more before.
    pub(super) async fn judge(&self, (from, connection): (NodeId, u64)) -> Result<Response, OpError> {
        let sound = Response::Clocks(Vec::new());
        let missing = match self.clocks.finding(from, connection) {
            Finding::Sound => SlotClocks::default(),
            Finding::Lacks(missing) => missing,
            Finding::Untold => return Err(OpError::ShardUnavailable { maybe_applied: false }),
        };
        let is_set_back = !planted(Bug::SetBackUnnoticed) && self.lacks_what_it_should_hold(from, &missing).await?;
        // What was found may be of a life before the one that came meanwhile.
        match self.clocks.finding(from, connection) {
            Finding::Untold => return Err(OpError::ShardUnavailable { maybe_applied: false }),
            Finding::Lacks(now) if now != missing => return Err(OpError::ShardUnavailable { maybe_applied: false }),
            _ => {}
        }
        self.clocks.end_review(from, is_set_back);
        self.lives.judged.lock().remove(&from);
        if !is_set_back {
            return Ok(sound);
        }
        tracing::warn!(node = %from, ops = missing.count(), "a member's disk was set back: it lacks what it told to be durable");
        let starts = self.lives.file.starts_of(from);
        Ok(Response::OlderCopy { starts })
    }

    /// The same as `should_be_held`, looked at once for the peer: it asks again long before a large disk is read, and must not have it read by several at once.
    pub(super) async fn lacks_what_it_should_hold(&self, peer: NodeId, missing: &SlotClocks) -> Result<bool, OpError> {
        // It waits for nothing that is looked at for its former life.
        if missing.is_empty() {
            return Ok(false);
        }
        let judged = self.lives.judged.lock().entry(peer).or_default().clone();
        let mut judged = judged.lock().await;
        if let Some((before, is_held)) = &*judged
            && before == missing
        {
            return Ok(*is_held);
        }
        let is_held = self.should_be_held(missing).await?;
        *judged = Some((missing.clone(), is_held));
        Ok(is_held)
    }

    /// Whether one who held these dots has to hold one of them still. What it took for dropped, because others had cleared it, it may
    /// not have noted durably; that is covered here, and gone.
    pub(super) async fn should_be_held(&self, dots: &SlotClocks) -> Result<bool, OpError> {
        if dots.is_empty() {
            return Ok(false);
        }
        let mut held = self.local.ops_with(dots)?;
        while let Some(ops) = held.next(1).await? {
            if !ops.is_empty() {
                return Ok(true);
            }
        }
        Ok(!self.local.all_clocks()?.covers(dots))
    }

    /// Whether those who would know of a later life of this disk had the time to say so.
    pub(super) fn is_known(&self) -> bool {
        let lives = &self.lives;
        if lives.is_known_for_good() {
            return true;
        }
        // Whom the table lacks, because it is much too old, may know as well; and it may lack all of them.
        if self.may_be_unknown() && !lives.has_waited() {
            return false;
        }
        let layout = self.layouts.current();
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
    pub(super) fn was_told(&self, slot: SlotId) -> bool {
        let lives = &self.lives;
        if !lives.has_untold.load(Ordering::Acquire) || !lives.untold.lock().contains(&slot) {
            return true;
        }
        let layout = self.layouts.current();
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
