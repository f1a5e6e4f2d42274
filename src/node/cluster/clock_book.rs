//! What this node knows of its peers' clocks, and of which slots it has everything that they had.

mod due;
mod moment;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::settled::Settled;
use super::told::{Finding, Told};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::SlotId;
use crate::types::{NodeId, WallMs};

use due::Due;
pub(super) use moment::Moment;

/// A comparison that is older than this says nothing of now. One with a peer that answers is made again within six seconds (`settled`).
const COMPARED_MAX: Duration = Duration::from_secs(20);
/// What a peer was asked for, and nothing of it came for so long, others are asked for as well: two copies on a slow line are better than none.
const CLAIM_MAX: Duration = Duration::from_secs(10);

pub(super) struct ClockBook {
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

/// How far this node is behind a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lag {
    /// Ops that the peer had when they last compared, and that did not come since, from whomever.
    pub ops: u64,
    /// Since this node last had all that the peer had, or since its start; zero when no ops are lacking.
    pub time: Duration,
}

/// Counts how often damage was found, to tell whether a round with a peer began before or after.
#[derive(Default)]
struct Damage {
    /// What was lost when it was last looked.
    lost: SlotClocks,
    times: u64,
    /// Of each slot, the last of these times.
    last: BTreeMap<SlotId, u64>,
    /// The last of them at which the whole disk was found to be set back.
    set_back: u64,
}

/// What one peer is asked for, and no other one meanwhile; until it is dropped, or nothing comes of it for `CLAIM_MAX`.
pub(super) struct Claim<'a> {
    book: &'a ClockBook,
    peer: NodeId,
    pub wants: SlotClocks,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.book.claimed.lock().remove(&self.peer);
    }
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
    /// What this node lacked when the clocks were last compared.
    lacked: SlotClocks,
    /// When that was.
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
    pub(super) fn new(is_new: bool) -> Self {
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
    pub(super) fn note_copied(&self) {
        if self.is_new() || !self.damage.lock().lost.is_empty() {
            self.copied.notify_one();
        }
    }

    pub(super) async fn copied(&self) {
        self.copied.notified().await;
    }

    /// Of `wants`, what no other peer is being asked for and is not here by now: a node that comes back lacks the same of all of them, and
    /// it need come only once. If the other one fails, the next round asks this one; also where it says
    /// nothing more of it, for its disk may hang while it serves everybody else.
    pub(super) fn claim(&self, peer: NodeId, wants: &SlotClocks, held: impl FnOnce() -> SlotClocks) -> Claim<'_> {
        let mut claimed = self.claimed.lock();
        let comes = |(other, (_, at)): &(&NodeId, &(SlotClocks, Instant))| **other != peer && at.elapsed() < CLAIM_MAX;
        let others = claimed.iter().filter(comes);
        let mut wants = others.fold(wants.clone(), |left, (_, (claim, _))| left.minus(claim));
        if !wants.is_empty() {
            // What another one has sent since.
            wants = wants.minus(&held());
            claimed.insert(peer, (wants.clone(), Instant::now()));
        }
        Claim {
            book: self,
            peer,
            wants,
        }
    }

    /// The peer answers what it is asked for.
    pub(super) fn note_coming(&self, peer: NodeId) {
        if let Some((_, at)) = self.claimed.lock().get_mut(&peer) {
            *at = Instant::now();
        }
    }

    pub(super) fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Acquire)
    }

    /// From here on, everything has to be copied again before this node's word counts.
    pub(super) fn set_new(&self) {
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

    pub(super) fn set_whole(&self) {
        self.is_new.store(false, Ordering::Release);
    }

    /// The peer's clock of the slot, as it tells it.
    pub(super) fn note(&self, peer: NodeId, slot: SlotId, clock: &Clock) {
        let mut pages = self.pages.lock();
        pages.entry(peer).or_default().set_clock(slot, clock);
    }

    /// The same, told on this connection of the peer.
    pub(super) fn hear(&self, peer: NodeId, connection: u64, slot: SlotId, clock: &Clock) {
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        page.told.hear(connection, slot, clock);
        page.set_clock(slot, clock);
    }

    /// The peer comes in this life. Whether that was found to be on a disk that was set back.
    pub(super) fn begin_life(&self, peer: NodeId, life: u64, connection: u64) -> bool {
        let mut pages = self.pages.lock();
        let Page { clocks, told, .. } = pages.entry(peer).or_default();
        told.begin(life, connection, clocks)
    }

    /// A copy of the peer's disk from an earlier life comes on this connection.
    pub(super) fn meet_older_copy(&self, peer: NodeId, connection: u64) {
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
    pub(super) fn finding(&self, peer: NodeId, connection: u64) -> Finding {
        self.pages.lock().entry(peer).or_default().told.finding(connection)
    }

    /// The peer's life was found sound, or to be on a disk that was set back: then what it has told is not so any more.
    pub(super) fn end_review(&self, peer: NodeId, is_set_back: bool) {
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        page.told.end(is_set_back);
        if is_set_back {
            page.clocks = SlotClocks::default();
        }
    }

    /// The peer's clocks of these slots are the ones given.
    pub(super) fn note_same(&self, peer: NodeId, slots: Vec<SlotId>, clocks: &SlotClocks, as_of: u64) {
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
    pub(super) fn note_reconciled(&self, peer: NodeId, slot: SlotId, collected: Clock, lost: Clock, as_of: u64) {
        let damage = self.damage.lock();
        if damage.none_since(slot, as_of) {
            let mut pages = self.pages.lock();
            let reconciled = &mut pages.entry(peer).or_default().reconciled;
            reconciled.insert(slot, Reconciled { collected, lost });
        }
    }

    /// Whether it was, since the peer collected this and this was lost.
    pub(super) fn was_reconciled(&self, peer: NodeId, slot: SlotId, collected: &Clock, lost: &Clock) -> bool {
        let pages = self.pages.lock();
        let noted = pages.get(&peer).and_then(|page| page.reconciled.get(&slot));
        noted.is_some_and(|noted| noted.collected.covers(collected) && noted.lost.covers(lost))
    }

    /// How often damage was found so far.
    pub(super) fn damages(&self) -> u64 {
        self.damage.lock().times
    }

    /// The peer had the same; unless something was damaged since `as_of`.
    pub(super) fn settle(&self, peer: NodeId, settled: Settled, as_of: u64) {
        let damage = self.damage.lock();
        if damage.times == as_of {
            self.pages.lock().entry(peer).or_default().settled = Some(settled);
        }
    }

    pub(super) fn unsettle(&self, peer: NodeId) {
        self.pages.lock().entry(peer).or_default().settled = None;
    }

    pub(super) fn settled(&self, peer: NodeId) -> Option<Settled> {
        self.pages.lock().get(&peer)?.settled.clone()
    }

    /// Of what this node lacks now, what it also lacked when they were last compared: all else may just be on its way. `at`: before the peer answered.
    pub(super) fn lacked_before(&self, peer: NodeId, lacking: SlotClocks, at: Moment) -> SlotClocks {
        let mut pages = self.pages.lock();
        let page = pages.entry(peer).or_default();
        let both = page.lacked.meet(&lacking);
        if lacking.is_empty() {
            page.whole_at = Some(at);
        } else if both.is_empty() {
            page.whole_at = page.compared_at;
        }
        page.compared_at = Some(at);
        page.lacked = lacking;
        both
    }

    /// How far this node, which holds this now, is behind the peer. Unknown before they first compared; and that it lacks nothing is unknown
    /// when that was too long ago.
    pub(super) fn lag(&self, peer: NodeId, held: &SlotClocks) -> Option<Lag> {
        let lag = self.lag_when_compared(peer, held)?;
        let compared_at = self.pages.lock().get(&peer)?.compared_at?;
        (lag.ops > 0 || compared_at.elapsed() < COMPARED_MAX).then_some(lag)
    }

    /// The same, however long ago that was.
    fn lag_when_compared(&self, peer: NodeId, held: &SlotClocks) -> Option<Lag> {
        let mut pages = self.pages.lock();
        let page = pages.get_mut(&peer)?;
        page.compared_at?;
        let ops = page.lacked.minus(held).count();
        if ops == 0 {
            page.whole_at = page.compared_at;
            return Some(Lag::default());
        }
        let time = page.whole_at.map_or(self.started.elapsed(), |at| at.elapsed());
        Some(Lag { ops, time })
    }

    /// When this node, which holds this now, had all that each of these peers had, as far as they compared. None where that never was.
    pub(super) fn heard(&self, peers: impl Iterator<Item = NodeId>, held: &SlotClocks, now: WallMs) -> Option<WallMs> {
        let heard_of = |peer| {
            self.lag_when_compared(peer, held)?;
            Some(self.pages.lock().get(&peer)?.whole_at?.by_wall(now))
        };
        let mut peers = peers;
        peers.try_fold(now, |first, peer| Some(first.min(heard_of(peer)?)))
    }

    /// Notes what is lost; what was synced before a slot lost anything counts no more.
    pub(super) fn note_damaged(&self, lost: &SlotClocks) {
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
    pub(super) fn has_all_of(&self, slot: SlotId, peers: impl IntoIterator<Item = NodeId>) -> bool {
        let pages = self.pages.lock();
        let has = |peer| pages.get(&peer).is_some_and(|page| page.synced.contains(&slot));
        peers.into_iter().all(has)
    }

    /// The peer's clock of the slot, as it last told it.
    pub(super) fn told(&self, peer: NodeId, slot: SlotId) -> Option<Clock> {
        self.pages.lock().get(&peer)?.clocks.get(slot).cloned()
    }

    /// Of each slot, what the clocks of all its other replicas cover.
    pub(super) fn stable<'a>(&self, slots: impl Iterator<Item = (SlotId, Vec<&'a NodeId>)>) -> SlotClocks {
        let pages = self.pages.lock();
        let mut stable = SlotClocks::default();
        for (slot, peers) in slots {
            let mut clocks = peers.iter().map(|peer| pages.get(peer)?.clocks.get(slot));
            let Some(Some(first)) = clocks.next() else {
                continue;
            };
            let all = clocks.try_fold(first.clone(), |all, clock| Some(all.meet(clock?)));
            if let Some(all) = all {
                stable.join_slot(slot, &all);
            }
        }
        stable
    }
}

#[cfg(test)]
mod tests;
