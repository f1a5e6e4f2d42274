//! What this node knows of its peers' clocks, and of which slots it has everything that they had.

mod claim;
mod due;
mod lag;
mod moment;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::settled::Settled;
use super::told::{Finding, Told};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::SlotId;
use crate::types::NodeId;

use due::Due;
pub(in crate::node::cluster) use moment::Moment;

pub(in crate::node::cluster) struct ClockBook {
    /// The first copy of what the others hold did not come yet.
    is_new: AtomicBool,
    pages: Mutex<BTreeMap<NodeId, Page>>,
    damage: Mutex<Damage>,
    /// By the peer that is being asked for it: what is on its way here, and when something of it last came.
    claimed: Mutex<BTreeMap<NodeId, (SlotClocks, Instant)>>,
    /// What was copied may have made a slot, or this node, whole again.
    copied: Notify,
    started: Instant,
}

/// Counts how often damage was found, to tell whether a round with a peer began before or after.
#[derive(Default)]
struct Damage {
    /// What was lost when it was last looked.
    lost: SlotClocks,
    times: u64,
    /// Of each slot, the last of these times.
    last: BTreeMap<SlotId, u64>,
    /// The last of them at which the whole disk was found to be rolled back.
    set_back: u64,
}

/// Of one peer.
#[derive(Default)]
struct Page {
    /// Its durable clocks, as it last told them.
    clocks: SlotClocks,
    /// Slots of which this node has had all that the peer had, at some time since its start and since they were damaged.
    synced: BTreeSet<SlotId>,
    /// What has to be here before other slots are.
    due: Due,
    /// What this node lacked when the clocks of all slots were last compared, and what those of some slots alone have shown since.
    lacked: SlotClocks,
    /// When all were.
    compared_at: Option<Moment>,
    /// When they were last compared of those times of which all that was lacking has come.
    whole_at: Option<Moment>,
    settled: Option<Settled>,
    /// Slots of which what the peer had dropped was removed here, since this node's start and since they were damaged.
    reconciled: BTreeMap<SlotId, Reconciled>,
    told: Told,
}

struct Reconciled {
    /// What the peer had collected by then.
    collected: Clock,
    /// What this node had lost by then.
    lost: Clock,
}

impl Page {
    /// The peer's clock of the slot, as it tells it now.
    fn set_clock(&mut self, slot: SlotId, clock: &Clock) {
        if let Some(last) = self.clocks.remove_slot(slot) {
            self.told.change(slot, &last, clock);
        }
        self.clocks.join_slot(slot, clock);
    }
}

impl ClockBook {
    pub(in crate::node::cluster) fn new(is_new: bool) -> Self {
        Self {
            is_new: AtomicBool::new(is_new),
            pages: Mutex::default(),
            damage: Mutex::default(),
            claimed: Mutex::default(),
            copied: Notify::new(),
            started: Instant::now(),
        }
    }

    /// A copy has ended. Wakes who looks after the slots, where that may make a difference.
    pub(in crate::node::cluster) fn note_copied(&self) {
        if self.is_new() || !self.damage.lock().lost.is_empty() {
            self.copied.notify_one();
        }
    }

    pub(in crate::node::cluster) async fn copied(&self) {
        self.copied.notified().await;
    }

    pub(in crate::node::cluster) fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Acquire)
    }

    /// From here on, everything has to be copied again before this node's word counts.
    pub(in crate::node::cluster) fn set_new(&self) {
        self.is_new.store(true, Ordering::Release);
        // In this order: a round that begins after this knows that the node is new, and what was found in one that began before counts no more.
        let mut damage = self.damage.lock();
        damage.times += 1;
        damage.set_back = damage.times;
        for page in self.pages.lock().values_mut() {
            page.synced.clear();
            page.due = Due::default();
            page.reconciled.clear();
            page.settled = None;
        }
    }

    pub(in crate::node::cluster) fn set_whole(&self) {
        self.is_new.store(false, Ordering::Release);
    }

    /// The peer's clock of the slot, as it tells it.
    pub(in crate::node::cluster) fn note(&self, peer: NodeId, slot: SlotId, clock: &Clock) {
        let mut pages = self.pages.lock();
        pages.entry(peer).or_default().set_clock(slot, clock);
    }

    /// The same, told on this connection of the peer.
    pub(in crate::node::cluster) fn hear(&self, peer: NodeId, connection: u64, slot: SlotId, clock: &Clock) {
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        page.told.hear(connection, slot, clock);
        page.set_clock(slot, clock);
    }

    /// The peer comes in this life. Whether that was found to be on a disk that was rolled back.
    pub(in crate::node::cluster) fn begin_life(&self, peer: NodeId, life: u64, connection: u64) -> bool {
        let mut pages = self.pages.lock();
        let Page { clocks, told, .. } = pages.entry(peer).or_default();
        told.begin(life, connection, clocks)
    }

    /// A copy of the peer's disk from an earlier life comes on this connection.
    pub(in crate::node::cluster) fn meet_older_copy(&self, peer: NodeId, connection: u64) {
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        if page.told.begin_older(connection) {
            page.clocks = SlotClocks::default();
        }
    }

    /// The slots of which the peer told more in its life before than `own` covers.
    pub(super) fn beyond(&self, peer: NodeId, own: impl FnOnce() -> SlotClocks) -> Vec<SlotId> {
        let pages = self.pages.lock();
        pages.get(&peer).map(|page| page.told.beyond(own)).unwrap_or_default()
    }

    /// What the peer, which has told its clocks, does not tell any more.
    pub(in crate::node::cluster) fn finding(&self, peer: NodeId, connection: u64) -> Finding {
        self.pages.lock().entry(peer).or_default().told.finding(connection)
    }

    /// The peer's life was found sound, or to be on a disk that was rolled back: then what it has told is not so any more.
    pub(in crate::node::cluster) fn end_review(&self, peer: NodeId, is_set_back: bool) {
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        page.told.end(is_set_back);
        if is_set_back {
            page.clocks = SlotClocks::default();
        }
    }

    /// The peer's clocks of these slots are the ones given.
    pub(in crate::node::cluster) fn note_same(
        &self,
        peer: NodeId,
        slots: Vec<SlotId>,
        clocks: &SlotClocks,
        as_of: u64,
    ) {
        {
            let mut pages = self.pages.lock();
            let page = pages.entry(peer).or_default();
            let nothing = Clock::default();
            for slot in &slots {
                page.set_clock(*slot, clocks.get(*slot).unwrap_or(&nothing));
            }
        }
        self.note_synced(peer, slots, as_of);
    }

    /// This node has all that the peer had of these slots; unless they were damaged since `as_of`, which `damages` gave.
    pub(super) fn note_synced(&self, peer: NodeId, slots: impl IntoIterator<Item = SlotId>, as_of: u64) {
        let damage = self.damage.lock();
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        for slot in slots.into_iter().filter(|slot| damage.none_since(*slot, as_of)) {
            page.synced.insert(slot);
            page.due.slots.remove(&slot);
        }
    }

    /// Notes that the slot was reconciled with the peer, unless it was damaged since `as_of`.
    pub(in crate::node::cluster) fn note_reconciled(
        &self,
        peer: NodeId,
        slot: SlotId,
        collected: Clock,
        lost: Clock,
        as_of: u64,
    ) {
        let damage = self.damage.lock();
        if damage.none_since(slot, as_of) {
            let mut pages = self.pages.lock();
            let reconciled = &mut pages.entry(peer).or_default().reconciled;
            reconciled.insert(slot, Reconciled { collected, lost });
        }
    }

    /// Whether it was, since the peer collected this and this was lost.
    pub(in crate::node::cluster) fn was_reconciled(
        &self,
        peer: NodeId,
        slot: SlotId,
        collected: &Clock,
        lost: &Clock,
    ) -> bool {
        let pages = self.pages.lock();
        let noted = pages.get(&peer).and_then(|page| page.reconciled.get(&slot));
        noted.is_some_and(|noted| noted.collected.covers(collected) && noted.lost.covers(lost))
    }

    /// How often damage was found so far.
    pub(in crate::node::cluster) fn damages(&self) -> u64 {
        self.damage.lock().times
    }

    /// The peer had the same; unless something was damaged since `as_of`.
    pub(super) fn settle(&self, peer: NodeId, settled: Settled, as_of: u64) {
        let damage = self.damage.lock();
        if damage.times == as_of {
            self.pages.lock().entry(peer).or_default().settled = Some(settled);
        }
    }

    pub(in crate::node::cluster) fn unsettle(&self, peer: NodeId) {
        self.pages.lock().entry(peer).or_default().settled = None;
    }

    pub(super) fn settled(&self, peer: NodeId) -> Option<Settled> {
        self.pages.lock().get(&peer)?.settled.clone()
    }

    /// Notes what is lost; what was synced before a slot lost anything counts no more.
    pub(in crate::node::cluster) fn note_damaged(&self, lost: &SlotClocks) {
        let mut damage = self.damage.lock();
        let news = lost.minus(&damage.lost);
        damage.lost = lost.clone();
        if news.is_empty() {
            return;
        }
        damage.times += 1;
        let times = damage.times;
        damage.last.extend(news.slots().map(|(slot, _)| (slot, times)));
        for page in self.pages.lock().values_mut() {
            for (slot, _) in news.slots() {
                page.synced.remove(&slot);
                page.due.slots.remove(&slot);
                page.reconciled.remove(&slot);
            }
            page.settled = None;
        }
    }

    /// Whether all that each of these peers had of the slot is here.
    pub(in crate::node::cluster) fn has_all_of(&self, slot: SlotId, peers: impl IntoIterator<Item = NodeId>) -> bool {
        let pages = self.pages.lock();
        let has = |peer| pages.get(&peer).is_some_and(|page| page.synced.contains(&slot));
        peers.into_iter().all(has)
    }

    /// The peer's clock of the slot, as it last told it.
    pub(in crate::node::cluster) fn told(&self, peer: NodeId, slot: SlotId) -> Option<Clock> {
        self.pages.lock().get(&peer)?.clocks.get(slot).cloned()
    }

    /// Of each slot, what the clocks of all its `others`, its other replicas, cover.
    pub(in crate::node::cluster) fn stable<I>(&self, others: impl Fn(SlotId) -> I) -> SlotClocks
    where
        I: Iterator<Item = NodeId>,
    {
        let pages = self.pages.lock();
        let mut stable = SlotClocks::default();
        let told = pages
            .iter()
            .flat_map(|(peer, page)| page.clocks.slots().map(move |told| (*peer, told)));
        for (peer, (slot, first)) in told {
            let mut others = others(slot);
            // Once for each slot: what the first of them has not told, not all cover.
            if others.next() != Some(peer) {
                continue;
            }
            let all = others.try_fold(first.clone(), |all, other| {
                Some(all.meet(pages.get(&other)?.clocks.get(slot)?))
            });
            if let Some(all) = all {
                stable.join_slot(slot, &all);
            }
        }
        stable
    }
}

#[cfg(test)]
mod tests;
