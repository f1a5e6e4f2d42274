//! Catching up: this node asks each peer for what it lacks, by its clock. Live replication that failed, an absence, a damaged file, an empty
//! disk: all are the same question.
//!
//! Rounds with a peer that is in sync are left out while nothing is new (`settled`).
//!
//! One round with a peer:
//! 1. *compare*: the digest of all clocks of the slots that both hold. Equal: done;
//! 2. *clocks* of the slots that differ, mine and theirs. What the peer covers and I do not, I lack;
//! 3. *reconcile* a slot whose collected clock I do not cover: clears were collected that I never saw. I remove, by a clear of exactly
//!    these dots, what the peer covers and holds no more;
//! 4. *pull* the ops with the dots that I lack, page by page, each page durable before the next is asked for. At the end the peer names
//!    what it covers of them: what did not come was cleared.
//!
//! Flow control: one page is on its way at a time, and there is a pause between two, so that the clients of both come first. A round that
//! breaks off loses nothing: the next one asks for what is still lacking.
//!
//! *Introduction* (`lives`): on each new connection this node first names its life, and in each life it first tells each peer its clocks. A
//! peer that has met a later life, or was told more than is there now, tells that this disk is an older copy; the node then starts over as
//! a new one, whose word does not count until it has copied all that the others hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::settled::digest_of;
use super::{Inner, TICK, count};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::{SLOT_COUNT, SYSTEM_SLOT, SlotId};
use crate::node::OpError;
use crate::node::local::Wanted;
use crate::node::peers::Peer;
use crate::planted::{Bug, planted};
use crate::shard::{WriteContext, WriteKind};
use crate::types::{NodeId, WallMs};
use crate::wire::{Request, Response, WireClock, WireClocks};

/// Between two rounds with a peer.
const ROUND: Duration = Duration::from_millis(1000);
/// Text of one page of a pull, bytes: some milliseconds of work for either disk.
const PAGE_BYTES: u32 = 256 << 10;
/// Between two pages.
const PAGE_PAUSE: Duration = Duration::from_millis(3);
/// Slots whose clocks go into one message.
pub(super) const CLOCKS_MAX: usize = 256;
/// A request of a round that was not answered by then is given up, and the round with it.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Why a round ended early; the next one begins anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the peer does not answer")]
    Peer,
    #[error("the peer gave another answer than was asked for")]
    Answer,
    #[error(transparent)]
    Local(#[from] OpError),
}

/// Keeps one task per peer, for as long as the node runs.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut running: BTreeMap<NodeId, JoinHandle<()>> = BTreeMap::new();
    loop {
        let peers = inner.peers.all();
        let known: BTreeSet<NodeId> = peers.iter().map(Peer::node).collect();
        running.retain(|node, task| {
            let stays = known.contains(node) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for peer in peers {
            let task = || tokio::spawn(follow(inner.clone(), peer.clone()));
            running.entry(peer.node()).or_insert_with(task);
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
                    Ok(()) => first_rounds = 0,
                    Err(error) => tracing::debug!(peer = %peer.node(), %error, "a round of catching up broke off"),
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

pub(super) async fn ask(peer: &Peer, request: Request) -> Result<Response, Broken> {
    let call = peer.call(request).map_err(|_| Broken::Peer)?;
    match tokio::time::timeout(ANSWER_MAX, call).await {
        Ok(Ok(response)) => Ok(response),
        _ => Err(Broken::Peer),
    }
}

impl Inner {
    /// The slots that both this node and the peer hold.
    pub(super) fn shared_slots(&self, peer: NodeId) -> Vec<SlotId> {
        let layout = self.layouts.current();
        let holds = |slot: &SlotId| {
            let replicas = layout.placement.replicas(*slot);
            replicas.contains(&self.me) && replicas.contains(&peer)
        };
        let mut slots: Vec<SlotId> = (0..SLOT_COUNT).map(SlotId).filter(holds).collect();
        // Everybody holds the system's slot; a member that is not in the table yet finds the table there.
        slots.push(SYSTEM_SLOT);
        slots
    }

    pub(super) fn digests(&self, slots: &[SlotId]) -> BTreeMap<SlotId, u64> {
        let wanted: BTreeSet<SlotId> = slots.iter().copied().collect();
        let digests = self.local.readers().flat_map(|reader| reader.durable_digests());
        digests.filter(|(slot, _)| wanted.contains(slot)).collect()
    }

    /// One round with a peer. `at_once`: what is lacking is asked for although it may be on its way.
    async fn round(&self, peer: &Peer, at_once: bool) -> Result<(), Broken> {
        let node = peer.node();
        if !at_once && self.is_settled(node) {
            return Ok(());
        }
        let layout = self.layouts.current();
        let slots = self.shared_slots(node);
        // Before this node's own clocks are looked at: what is damaged after that may be missing from them.
        let as_of = self.clocks.damages();
        self.check_all_serve()?;
        let clocks = self.local.clocks();
        let digests: BTreeMap<SlotId, u64> = slots
            .iter()
            .filter_map(|slot| Some((*slot, clocks.get(*slot)?.digest())))
            .collect();
        let digest = digest_of(&digests);
        let theirs = match ask(peer, Request::Compare { digest }).await? {
            Response::Same => {
                self.settle(node, layout, &clocks, digest, as_of);
                self.clocks.note_same(node, slots, &clocks, as_of);
                self.clocks.lacked_before(node, SlotClocks::default());
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
        let (same, differing) = split(&slots, &digests, &theirs);
        self.clocks.note_same(node, same, &clocks, as_of);
        let mut lacking = SlotClocks::default();
        for some in differing.chunks(CLOCKS_MAX) {
            self.compare_clocks(peer, some, &mut lacking).await?;
        }
        let lacked_before = self.clocks.lacked_before(node, lacking.clone());
        let wants = if at_once { &lacking } else { &lacked_before };
        let claim = self.clocks.claim(node, wants, || self.local.clocks());
        self.pull(peer, &claim.wants).await?;
        let whole = differing.into_iter().filter(|slot| match lacking.get(*slot) {
            None => true,
            Some(lacking) => claim.wants.get(*slot).is_some_and(|wanted| wanted.covers(lacking)),
        });
        self.clocks.note_synced(node, whole, as_of);
        self.clocks.note_copied();
        Ok(())
    }

    /// Exchanges the clocks of some slots, and adds what this node lacks.
    async fn compare_clocks(&self, peer: &Peer, slots: &[SlotId], lacking: &mut SlotClocks) -> Result<(), Broken> {
        let mut mine = BTreeMap::new();
        for slot in slots {
            mine.insert(*slot, self.local.clock(*slot)?);
        }
        let request = Request::Clocks {
            slots: mine
                .iter()
                .map(|(slot, clock)| (slot.0, WireClock::of(clock)))
                .collect(),
        };
        let Response::Clocks(theirs) = ask(peer, request).await? else {
            return Err(Broken::Answer);
        };
        for (slot, clock, collected) in theirs {
            let slot = SlotId(slot);
            let (clock, collected) = (clock.into_clock(), collected.into_clock());
            let Some(mine) = mine.get(&slot) else {
                continue;
            };
            if !mine.covers(&collected) && !planted(Bug::ReconcileSkipped) {
                self.reconcile(peer, slot).await?;
            }
            self.clocks.note(peer.node(), slot, &clock);
            lacking.join_slot(slot, &clock.minus(mine));
        }
        Ok(())
    }

    /// Removes what the peer covers of the slot and holds no more: it was cleared, and the clears were collected.
    async fn reconcile(&self, peer: &Peer, slot: SlotId) -> Result<(), Broken> {
        let Response::HeldDots { texts, covered } = ask(peer, Request::HeldDots { slot: slot.0 }).await? else {
            return Err(Broken::Answer);
        };
        let dropped = covered.into_clock().minus(&texts.into_clock());
        let gone = self.local.held_dots(slot).await?.texts.meet(&dropped);
        if gone.is_empty() {
            return Ok(());
        }
        count(&self.counters.reconciled_slots);
        tracing::warn!(peer = %peer.node(), slot = slot.0, ops = gone.count(), "ops that all others have dropped are removed");
        let mut wants = SlotClocks::default();
        wants.join_slot(slot, &gone);
        let mut export = self.local.export(&wants)?;
        let mut by_key: BTreeMap<_, Clock> = BTreeMap::new();
        loop {
            let ops = export.next(PAGE_BYTES as usize).await?;
            if ops.is_empty() {
                break;
            }
            for keyed in ops {
                let dots = by_key.entry((keyed.user, keyed.key)).or_default();
                dots.insert(keyed.op.dot.origin, keyed.op.dot.seq);
            }
        }
        for ((user, key), dots) in by_key {
            let wanted = Wanted {
                user: &user,
                key: &key,
                kind: WriteKind::ClearDots(dots),
                request_id: None,
            };
            self.local.write(wanted, WriteContext::default(), None).await?;
        }
        Ok(())
    }

    /// Takes the ops with these dots from the peer.
    async fn pull(&self, peer: &Peer, wants: &SlotClocks) -> Result<(), Broken> {
        if wants.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let pull = self.next_number.fetch_add(1, Ordering::Relaxed);
        let request = Request::Pull {
            pull,
            wants: WireClocks::of(wants),
        };
        if !matches!(ask(peer, request).await?, Response::Done) {
            return Err(Broken::Answer);
        }
        let mut ops_pulled = 0;
        loop {
            let request = Request::PullNext {
                pull,
                budget_bytes: PAGE_BYTES,
            };
            let Response::Pulled { ops, covered } = ask(peer, request).await? else {
                return Err(Broken::Answer);
            };
            ops_pulled += ops.len() as u64;
            self.note_pulled(peer, &ops);
            self.take_ops(ops).await?;
            if let Some(covered) = covered {
                // All that the peer still holds of them is durable here, the clears too.
                let covered = covered.into_clocks().meet(wants);
                // A clear may be among those that were not sent: the peer collected it since the clocks were compared.
                let unsent = covered.minus(&self.local.clocks());
                let slots: Vec<SlotId> = unsent.slots().map(|(slot, _)| slot).collect();
                for some in slots.chunks(CLOCKS_MAX) {
                    self.compare_clocks(peer, some, &mut SlotClocks::default()).await?;
                }
                self.local.know_dropped(&covered);
                break;
            }
            tokio::time::sleep(PAGE_PAUSE).await;
        }
        let took_ms = started.elapsed().as_millis() as u64;
        tracing::info!(peer = %peer.node(), ops = ops_pulled, took_ms, "caught up with a peer");
        Ok(())
    }

    /// Heals what is whole again, and tells the shards what all replicas know.
    async fn look_after_slots(&self) {
        let lost = self.local.lost();
        self.clocks.note_damaged(&lost);
        let layout = self.layouts.current();
        let others = |slot: SlotId| -> Vec<NodeId> {
            let replicas = layout.placement.replicas(slot).iter();
            replicas.copied().filter(|node| *node != self.me).collect()
        };
        // Of whom nothing is left nothing is waited for.
        let waits = self.clocks.is_new() || !lost.is_empty();
        let gone = if waits {
            self.lost_members().await
        } else {
            BTreeSet::new()
        };
        let sources = |slot: SlotId| others(slot).into_iter().filter(|node| !gone.contains(node));
        // What nobody is left of was copied from nobody.
        let has_all = |slot| sources(slot).next().is_some() && self.clocks.has_all_of(slot, sources(slot));
        let mut healed = lost;
        healed.retain_slots(has_all);
        if !healed.is_empty() {
            self.local.heal(&healed);
        }
        // With nobody else in the table there is nobody to copy from: who founds a cluster says so itself.
        let has_others = layout.table.up().count() > 1;
        if self.clocks.is_new() && layout.table.is_up(self.me) && has_others {
            let mut own = layout.placement.slots_of(self.me).chain([SYSTEM_SLOT]);
            let is_whole = own.all(|slot| others(slot).is_empty() || has_all(slot));
            if (is_whole || planted(Bug::VotesUnsynced)) && self.local.set_whole().await.is_ok() {
                self.clocks.set_whole();
                tracing::info!("all that the other members hold is here: this node's word counts from now on");
            }
        }
        let slots: Vec<(SlotId, Vec<NodeId>)> = (0..=SYSTEM_SLOT.0)
            .map(|slot| (SlotId(slot), others(SlotId(slot))))
            .collect();
        let with_peers = slots.iter().map(|(slot, peers)| (*slot, peers.iter().collect()));
        let (own, mut stable) = (self.local.clocks(), self.clocks.stable(with_peers));
        // Alone with a slot, it need not wait for others to know of a clear.
        let alone = own
            .slots()
            .filter(|(slot, _)| layout.placement.replicas(*slot) == [self.me]);
        alone.for_each(|(slot, clock)| stable.join_slot(slot, clock));
        let neighbours: BTreeSet<NodeId> = slots.iter().flat_map(|(_, others)| others).copied().collect();
        let heard = self.clocks.heard(neighbours, &own);
        let heard = heard.map(|ago| WallMs(self.env.wall.now().0.saturating_sub(ago.as_millis() as u64)));
        self.local.set_stable(&stable, heard);
    }
}

/// The slots whose digests are equal, and the others.
fn split(slots: &[SlotId], mine: &BTreeMap<SlotId, u64>, theirs: &BTreeMap<SlotId, u64>) -> (Vec<SlotId>, Vec<SlotId>) {
    slots.iter().partition(|slot| mine.get(slot) == theirs.get(slot))
}
