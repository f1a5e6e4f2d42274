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
//! A slot counts as copied from a peer when all that the peer had at one comparison is here, whoever brought it (`clock_book::due`). With a peer
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

use super::compare::split;
use super::settled::digest_of;
use super::{Inner, TICK};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::slot::{SYSTEM_SLOT, SlotId};
use crate::node::OpError;
use crate::node::peers::{CallError, Peer};
use crate::planted::{Bug, planted};
use crate::types::{NodeId, WallMs};
use crate::wire::{NOT_NAMED, Request, Response, WireError};

/// Between two rounds with a peer.
const ROUND: Duration = Duration::from_millis(1000);
/// Text of one page of a pull, bytes: some milliseconds of work for either disk.
pub(super) const PAGE_BYTES: u32 = 256 << 10;
/// A request of a round that was not answered by then is given up, and the round with it.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Unless so much came from the peer meanwhile that it may be the answer, on a slow line: many times what keep-alives bring.
const SLOW_ANSWER_BYTES_MIN: u64 = 128 << 10;
/// And then so many times that long: the largest text has come by then.
const SLOW_ANSWER_TURNS: u32 = 60;

/// Why a round ended early; the next one begins anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the peer does not answer")]
    Peer,
    #[error("the peer takes too long to answer")]
    Late,
    #[error("the peer gave another answer than was asked for")]
    Answer,
    /// It will be no better the next time.
    #[error("the peer refuses the request: {0}")]
    Refused(String),
    #[error("a request takes {0} bytes, more than one message may")]
    TooLarge(usize),
    /// What was compared may not be this node's to hold any more.
    #[error("the members changed meanwhile")]
    Moved,
    #[error(transparent)]
    Local(#[from] OpError),
}

impl Broken {
    /// Waiting does not help.
    fn stays(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooLarge(_))
    }
}

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
pub(super) async fn run(inner: Arc<Inner>) {
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

pub(super) async fn ask(peer: &Peer, request: Request) -> Result<Response, Broken> {
    let call = peer.call(request).map_err(|error| match error {
        CallError::TooLarge { bytes } => Broken::TooLarge(bytes),
        _ => Broken::Peer,
    })?;
    match while_it_comes(call, || peer.bytes_received()).await {
        Some(Ok(Response::Failed(WireError::Refused(why)))) => Err(Broken::Refused(why)),
        Some(Ok(response)) => Ok(response),
        Some(Err(_)) => Err(Broken::Peer),
        None => Err(Broken::Late),
    }
}

/// What comes of it, if that does not take too long: longer than usual only while so much is `received` that it may be on its way.
async fn while_it_comes<T>(answer: impl Future<Output = T>, received: impl Fn() -> u64) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    for _ in 0..SLOW_ANSWER_TURNS {
        let before = received();
        if let Ok(answer) = tokio::time::timeout(ANSWER_MAX, &mut answer).await {
            return Some(answer);
        }
        if received() - before < SLOW_ANSWER_BYTES_MIN {
            break;
        }
    }
    None
}

fn joined(one: Option<&Clock>, other: Option<&Clock>) -> Clock {
    let mut both = one.cloned().unwrap_or_default();
    other.into_iter().for_each(|other| both.join(other));
    both
}

/// When all was heard that there is, by the wall clock, where that is so long ago: a request id of what was cleared since is not forgotten.
fn heard_at(now: WallMs, ago: Duration) -> WallMs {
    WallMs(now.0.saturating_sub(ago.as_millis() as u64))
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
        let layout = self.layouts.current();
        let mut slots = self.shared_slots(node);
        // Before this node's own clocks are looked at: what is damaged after that may be missing from them.
        let as_of = self.clocks.damages();
        // A shard that does not open keeps none of the others from catching up.
        let clocks = self.local.open_clocks(&mut slots);
        let digests: BTreeMap<SlotId, u64> = slots
            .iter()
            .filter_map(|slot| Some((*slot, clocks.get(*slot)?.digest())))
            .collect();
        let digest = digest_of(&digests);
        let theirs: BTreeMap<SlotId, u64> = match ask(peer, Request::Compare { digest }).await? {
            Response::Same => {
                self.named.note(node);
                self.settle(node, layout.clone(), &clocks, digest, as_of);
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
        let is_named = !theirs.contains_key(&SlotId(NOT_NAMED));
        if is_named {
            self.named.note(node);
        }
        let (same, differing) = split(&slots, &digests, &theirs);
        self.clocks.note_same(node, same, &clocks, as_of);
        let mut compared = self.compare_clocks(peer, &differing, None).await?;
        let lacking = compared.lacking;
        let lacked_before = self.clocks.lacked_before(node, lacking.clone());
        let mut wants = if at_once { lacking.clone() } else { lacked_before };
        wants.retain_slots(|slot| !compared.left_out.contains_key(&slot));
        let claim = self.clocks.claim(node, &wants, || self.local.clocks());
        if !Arc::ptr_eq(&layout, &self.layouts.current()) {
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
        if self.clocks.note_here(node, &self.layouts.current(), &here, as_of) {
            self.clocks.note_copied();
        }
    }

    /// Whether the next start will find all that this node has told its peers it knows. While it is new, what it takes for dropped may be a clear
    /// that another member still holds: were that forgotten once its word counts, the disk would pass for one that was set back.
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
        let others = |slot: SlotId| sources.others(slot).collect::<Vec<NodeId>>();
        let has_all = |slot| self.has_all(slot, &sources);
        // With nobody else in the table there is nobody to copy from: who founds a cluster says so itself.
        let has_others = layout.table.up().count() > 1;
        if self.clocks.is_new() && layout.table.is_up(self.me) && has_others {
            let mut own = layout.placement.slots_of(self.me).chain([SYSTEM_SLOT]);
            let is_whole = own.all(|slot| others(slot).is_empty() || has_all(slot));
            if (is_whole || planted(Bug::VotesUnsynced))
                && self.keeps_what_it_told().await
                && self.local.set_whole().await.is_ok()
            {
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
        let heard = heard.map(|ago| heard_at(self.env.wall.now(), ago));
        self.local.set_stable(&stable, heard);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Whether an answer is waited for that takes so long while so much comes in a second; and for how long it was waited.
    async fn wait_for(answer_s: u64, bytes_per_s: u64) -> (bool, u64) {
        let begun = Instant::now();
        let received = || begun.elapsed().as_secs() * bytes_per_s;
        let answer = sleep(Duration::from_secs(answer_s));
        let answered = while_it_comes(answer, received).await.is_some();
        (answered, begun.elapsed().as_secs())
    }

    #[test]
    fn what_was_heard_long_ago_was_heard_then() {
        let now = WallMs(10_000);
        assert_eq!(heard_at(now, Duration::ZERO), now);
        assert_eq!(heard_at(now, Duration::from_millis(2_500)), WallMs(7_500));
        assert_eq!(
            heard_at(now, Duration::from_secs(3600)),
            WallMs(0),
            "longer than there is a clock"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_as_long_as_it_comes() {
        assert_eq!(wait_for(9, 0).await, (true, 9));
        assert_eq!(wait_for(11, 0).await, (false, 10));
        assert_eq!(wait_for(11, 500).await, (false, 10), "these are keep-alives");
        assert_eq!(wait_for(500, 16 << 10).await, (true, 500));
        assert_eq!(wait_for(100_000, 1 << 30).await, (false, 600), "something else comes");
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_once_does_not_count_again() {
        let begun = Instant::now();
        let burst = || if begun.elapsed().is_zero() { 0 } else { 1 << 20 };
        let never = std::future::pending::<()>();
        assert!(while_it_comes(never, burst).await.is_none());
        assert_eq!(begun.elapsed().as_secs(), 20);
    }
}
