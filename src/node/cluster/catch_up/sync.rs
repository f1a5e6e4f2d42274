//! Catching up: this node asks each peer for what it lacks, by its clock. Live replication that failed, an absence, a damaged file, an empty
//! disk: all are the same question.
//!
//! Rounds with a peer that is in sync are left out while nothing is new (`settled`).
//!
//! One round with a peer:
//! 1. *compare*: the digest of all clocks of the slots that both hold. Equal: done;
//! 2. *clocks* of the slots that differ, mine and theirs. What the peer covers and I do not, I lack;
//! 3. *reconcile* a slot whose collected clock I do not cover, or of which I lost something: clears were collected that I never saw. I
//!    remove, by a clear of exactly these dots, what the peer covers and holds no more (`compare`);
//! 4. *pull* the ops with the dots that I lack, page by page, each page durable before the next is asked for. First come all clears that
//!    saw one of them, also those that I do not know to lack. At the end the peer names what it covers: what did not come was cleared (`pull`).
//!
//! A slot counts as copied from a peer when all that the peer had at one comparison is here, whoever brought it (`clocks::book::due`). With a peer
//! whose member table does not name this node it does not: that one may still count the node whose seat this one took, and acknowledge with it
//! what this one never sees.
//!
//! Flow control: one page is on its way at a time, and there is a pause between two, so that the clients of both come first. A round that
//! breaks off loses nothing: the next one asks for what is still lacking.
//!
//! *Introduction* (`lives`): on each new connection this node first names its life, and in each life it first tells each peer its clocks. A
//! peer that has met a later life, or was told more than is there now, tells that this disk is an older copy; the node then starts over as
//! a new one, whose word does not count until it has copied all that the others hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::node::cluster::calls::{Broken, ask};
use crate::node::cluster::clocks::{Moment, digest_of, split};
use crate::node::cluster::{Inner, TICK};
use crate::node::peers::Peer;
use crate::planted::{Bug, planted};
use crate::types::NodeId;
use crate::wire::{NOT_NAMED, Request, Response};

/// Between two rounds with a peer.
const ROUND: Duration = Duration::from_millis(1000);

/// A task that ends with whoever holds this: nothing is asked of peers any more once `run` has ended.
struct Follower {
    /// A peer that leaves the member table and comes back has another link: nobody dials the former one any more.
    peer: Peer,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps one task per peer, for as long as the node runs.
pub(in crate::node::cluster) async fn run(inner: Arc<Inner>) {
    let mut running: BTreeMap<NodeId, Follower> = BTreeMap::new();
    loop {
        running.retain(|node, follower| {
            let peer = inner.peers.get(*node);
            peer.is_some_and(|peer| peer.is_same(&follower.peer)) && !follower.task.is_finished()
        });
        for peer in inner.peers.all() {
            let task = || tokio::spawn(follow(inner.clone(), peer.clone()));
            running.entry(peer.node()).or_insert_with(|| Follower {
                task: task(),
                peer: peer.clone(),
            });
        }
        inner.look_after_slots().await;
        // Right after a copy it may be said, and counts, that nothing is lacking any more.
        let _ = tokio::time::timeout(TICK, inner.clocks.copied()).await;
    }
}

/// Round after round with one peer.
async fn follow(inner: Arc<Inner>, peer: Peer) {
    let mut connections = peer.connections();
    let mut introduced = 0;
    let mut first_rounds = 0;
    let mut warned_of = None;
    let mut offered = None;
    loop {
        let connection = *connections.borrow_and_update();
        if peer.is_up() {
            if introduced != connection && inner.introduce(&peer).await.is_ok() {
                introduced = connection;
                // Right after it came back nothing that is lacking is merely on its way.
                first_rounds = 1;
            }
            if introduced == connection {
                match inner.round(&peer, first_rounds > 0).await {
                    Ok(()) => {
                        first_rounds = 0;
                        warned_of = None;
                    }
                    // Once: it is the same each second.
                    Err(error) if error.stays() && warned_of != Some(std::mem::discriminant(&error)) => {
                        warned_of = Some(std::mem::discriminant(&error));
                        tracing::warn!(peer = %peer.node(), %error, "this node cannot catch up with a peer");
                    }
                    Err(error) => tracing::debug!(peer = %peer.node(), %error, "a round of catching up broke off"),
                }
                if let Err(error) = inner.offer(&peer, &mut offered).await {
                    tracing::debug!(peer = %peer.node(), %error, "what other members are to hold could not be brought to one of them");
                }
            }
        }
        tokio::select! {
            biased;
            changed = connections.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

fn joined(one: Option<&Clock>, other: Option<&Clock>) -> Clock {
    let mut both = one.cloned().unwrap_or_default();
    other.into_iter().for_each(|other| both.join(other));
    both
}

impl Inner {
    /// One round with a peer. `at_once`: what is lacking is asked for although it may be on its way.
    pub(super) async fn round(&self, peer: &Peer, at_once: bool) -> Result<(), Broken> {
        let node = peer.node();
        let _at_work = self.at_work.begin();
        // What was on its way when they compared last is here by now.
        self.look_for_due(node, &SlotClocks::default(), self.clocks.damages());
        if !at_once && self.is_settled(node) {
            return Ok(());
        }
        let layout = self.layout();
        let mut slots = self.shared_slots(node);
        let shared = slots.len();
        // Before this node's own clocks are looked at: what is damaged after that may be missing from them.
        let as_of = self.clocks.damages();
        // A shard that does not open keeps none of the others from catching up.
        let clocks = self.local.open_clocks(&mut slots);
        let digests: BTreeMap<SlotId, u64> = slots
            .iter()
            .filter_map(|slot| Some((*slot, clocks.get(*slot)?.digest())))
            .collect();
        let digest = digest_of(&digests);
        // Whatever happens until the answer is here, the peer may have more by then.
        // And what it has of slots that are left out here does not show.
        let compared_at = (slots.len() == shared).then(|| Moment::now(self.env.wall.now()));
        let theirs: BTreeMap<SlotId, u64> = match ask(peer, Request::Compare { digest }).await? {
            Response::Same => {
                self.named.note(node);
                self.settle(node, layout.clone(), &clocks, digest, as_of);
                self.clocks.note_same(node, slots, &clocks, as_of);
                self.clocks.lacked_before(node, SlotClocks::default(), compared_at);
                self.clocks.note_copied();
                return Ok(());
            }
            Response::Differ(digests) => digests
                .into_iter()
                .map(|(slot, digest)| (SlotId(slot), digest))
                .collect(),
            _ => return Err(Broken::Answer),
        };
        self.clocks.unsettle(node);
        let is_named = !theirs.contains_key(&SlotId(NOT_NAMED));
        if is_named {
            self.named.note(node);
        }
        let (same, differing) = split(&slots, &digests, &theirs);
        self.clocks.note_same(node, same, &clocks, as_of);
        let mut compared = self.compare_clocks(peer, &differing, None).await?;
        let lacking = compared.lacking;
        let lacked_before = self.clocks.lacked_before(node, lacking.clone(), compared_at);
        let mut wants = if at_once { lacking.clone() } else { lacked_before };
        wants.retain_slots(|slot| !compared.left_out.contains_key(&slot));
        let claim = self.clocks.claim(node, &wants, || self.local.clocks());
        if !Arc::ptr_eq(&layout, &self.layout()) {
            return Err(Broken::Moved);
        }
        let (mine, left_out) = (&compared.mine, &compared.left_out);
        let counts = differing
            .into_iter()
            .filter(|slot| is_named && !left_out.contains_key(slot));
        let had = |slot| joined(mine.get(slot), lacking.get(slot));
        self.clocks.note_due(node, &layout, counts, had, as_of);
        let covered = self.pull(peer, &claim.wants, mine).await?;
        self.look_for_due(node, &covered, as_of);
        self.clocks.note_copied();
        compared.left_out.pop_first().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Notes what of what is due from the peer this node's durable clocks show to be here, and what a pull `covered`. What is damaged after `as_of`
    /// may be missing by now.
    fn look_for_due(&self, node: NodeId, covered: &SlotClocks, as_of: u64) {
        let due = self.clocks.due(node);
        if due.is_empty() {
            return;
        }
        let here = |slot| {
            let own = self.local.clock(slot).ok()?;
            Some((slot, joined(Some(&own), covered.get(slot))))
        };
        let here: BTreeMap<SlotId, Clock> = due.into_iter().filter_map(here).collect();
        if self.clocks.note_here(node, &self.layout(), &here, as_of) {
            self.clocks.note_copied();
        }
    }

    /// Whether the next start will find all that this node has told its peers it knows. While it is new, what it takes for dropped may be a clear
    /// that another member still holds: were that forgotten once its word counts, the disk would pass for one that was rolled back.
    async fn keeps_what_it_told(&self) -> bool {
        let noted = tokio::time::timeout(TICK, self.local.dropped_are_noted()).await;
        matches!(noted, Ok(Ok(true)))
    }

    /// Heals what is whole again, and tells the shards what all replicas know.
    pub(super) async fn look_after_slots(&self) {
        let lost = self.local.lost();
        self.clocks.note_damaged(&lost);
        // Also from one whose round takes long: others may have brought it.
        for peer in self.peers.all() {
            self.look_for_due(peer.node(), &SlotClocks::default(), self.clocks.damages());
        }
        let sources = self.sources(self.clocks.is_new() || !lost.is_empty()).await;
        self.heal_unnamed(lost, &sources);
        let layout = &sources.layout;
        // With nobody else in the table there is nobody to copy from: who founds a cluster says so itself.
        let has_others = layout.table.up().count() > 1;
        if self.clocks.is_new() && layout.table.is_up(self.me) && has_others {
            let mut own = layout.shared_with(self.me).iter().copied().chain([SYSTEM_SLOT]);
            let is_whole = own.all(|slot| sources.others(slot).next().is_none() || self.has_all(slot, &sources));
            let takes_a_place = || layout.table.get(self.me).is_some_and(|own| own.replaces.is_some());
            let counts_unfilled = planted(Bug::VotesUnsynced) || planted(Bug::PlaceUnfilled) && takes_a_place();
            if (is_whole || counts_unfilled) && self.keeps_what_it_told().await && self.local.set_whole().await.is_ok()
            {
                self.clocks.set_whole();
                tracing::info!("all that the other members hold is here: this node's word counts from now on");
            }
        }
        let others = |slot| sources.others(slot);
        let (own, mut stable) = (self.local.clocks(), self.clocks.stable(others));
        // Alone with a slot, it need not wait for others to know of a clear.
        let alone = own
            .slots()
            .filter(|(slot, _)| layout.placement.replicas(*slot) == [self.me]);
        alone.for_each(|(slot, clock)| stable.join_slot(slot, clock));
        // Of the system's slot, everybody is a replica.
        let neighbours: BTreeSet<NodeId> = others(SYSTEM_SLOT).collect();
        // A request id of what was cleared since is not forgotten.
        let heard = self.clocks.heard(neighbours, &own, self.env.wall.now());
        self.local.set_stable(&stable, heard);
    }
}
