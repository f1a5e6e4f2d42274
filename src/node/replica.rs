//! This node as one replica of its slots: what others ask of it, answered from its own shards alone.

use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::oneshot;

use super::OpError;
use super::local::{Local, damaged, report};
use super::shards::messages::ShardMessage;
use super::shards::news::News;
use super::shards::supervisor::{ShardDoor, SupervisorMessage};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::KeyedOp;
use crate::core::slot::{KeyHash, SlotId};
use crate::core::stamp::{HybridTime, Stamp};
use crate::shard::{RequestHeld, ShardReader};
use crate::store::export::{HeldDots, OpScan};
use crate::store::segment::ReadError;
use crate::store::source::KeySource;
use crate::types::{Key, RequestId, UserId, WallMs};

/// How often, and how far apart, to look for an op that is still in an open group.
const OPEN_GROUP_TRIES: usize = 200;
const OPEN_GROUP_PAUSE: Duration = Duration::from_millis(2);

/// Ops with certain dots, batch by batch, of all shards.
pub struct Export {
    local: Local,
    /// Those still to be read, the last one first.
    scans: Vec<(usize, OpScan)>,
    /// The wanted dots that are covered here.
    covered: SlotClocks,
}

impl Local {
    /// Those of all shards that serve now.
    pub(super) fn readers(&self) -> impl Iterator<Item = ShardReader> + '_ {
        self.doors().iter().filter_map(|door| door.reader().ok())
    }

    /// Those of all shards; fails while one of them is being reopened, whose slots must not look empty.
    pub(super) fn all_readers(&self) -> Result<Vec<ShardReader>, OpError> {
        self.doors().iter().map(ShardDoor::reader).collect()
    }

    /// Whether what this disk holds of the slot is all that it ever held.
    pub fn is_whole(&self, slot: SlotId) -> bool {
        let door = &self.doors()[self.door_of(slot)];
        door.with_reader(|reader| reader.is_whole(slot)).unwrap_or(false)
    }

    /// See `ShardReader::highest_time`, of the slot's shard.
    pub fn highest_time(&self, slot: SlotId) -> Result<HybridTime, OpError> {
        self.doors()[self.door_of(slot)].with_reader(ShardReader::highest_time)
    }

    /// What is stamped from now on in the slot's shard is later than this.
    pub fn come_after(&self, slot: SlotId, time: HybridTime) -> Result<(), OpError> {
        self.doors()[self.door_of(slot)].with_reader(|reader| reader.come_after(time))
    }

    pub fn digest(&self, slot: SlotId) -> Result<u64, OpError> {
        self.doors()[self.door_of(slot)].with_reader(|reader| reader.durable_digest(slot))
    }

    pub fn clock(&self, slot: SlotId) -> Result<Clock, OpError> {
        self.doors()[self.door_of(slot)].with_reader(|reader| reader.durable_clock(slot))
    }

    pub fn collected(&self, slot: SlotId) -> Result<Clock, OpError> {
        self.doors()[self.door_of(slot)].with_reader(|reader| reader.collected(slot))
    }

    /// The durable clocks of all slots; fails while a shard is being reopened.
    pub fn all_clocks(&self) -> Result<SlotClocks, OpError> {
        let mut clocks = SlotClocks::default();
        for reader in self.all_readers()? {
            clocks.join(&reader.durable_clocks());
        }
        Ok(clocks)
    }

    /// The durable clocks of all slots of the shards that serve now.
    pub fn clocks(&self) -> SlotClocks {
        let mut clocks = SlotClocks::default();
        for reader in self.readers() {
            clocks.join(&reader.durable_clocks());
        }
        clocks
    }

    /// Like [`clocks`](Self::clocks); and takes those slots out of `slots` whose shards do not serve now, as they must not look empty.
    pub fn open_clocks(&self, slots: &mut Vec<SlotId>) -> SlotClocks {
        let readers: Vec<Option<ShardReader>> = self.doors().iter().map(|door| door.reader().ok()).collect();
        slots.retain(|slot| readers[self.door_of(*slot)].is_some());
        let mut clocks = SlotClocks::default();
        for reader in readers.iter().flatten() {
            clocks.join(&reader.durable_clocks());
        }
        clocks
    }

    /// Whether any user's op is or was here. False only when nothing can be.
    pub fn holds_user_data(&self) -> bool {
        let (_, shards) = self.doors().split_last().unzip();
        let shards = shards.unwrap_or_default();
        shards.iter().any(|door| {
            let is_empty = door.with_reader(|reader| reader.durable_clocks().is_empty());
            !is_empty.unwrap_or(false)
        })
    }

    /// Dots that this disk lost.
    pub fn lost(&self) -> SlotClocks {
        let mut lost = SlotClocks::default();
        self.readers().for_each(|reader| lost.join(&reader.lost()));
        lost
    }

    /// Dots of the slot that this disk lost.
    pub fn lost_of(&self, slot: SlotId) -> Result<Clock, OpError> {
        let lost = self.doors()[self.door_of(slot)].with_reader(ShardReader::lost)?;
        Ok(lost.get(slot).cloned().unwrap_or_default())
    }

    /// A snapshot of a key, and the digest of the slot's clock that it was taken at.
    pub fn source_at_digest(&self, user: &UserId, key: &Key) -> Result<(KeySource, u64), OpError> {
        self.source_at(user, key, |clock| clock.map_or(0, Clock::digest))
    }

    /// Like [`source_at_digest`](Self::source_at_digest), with the clock itself.
    pub fn source_at_clock(&self, user: &UserId, key: &Key) -> Result<(KeySource, Clock), OpError> {
        self.source_at(user, key, |clock| clock.cloned().unwrap_or_default())
    }

    fn source_at<T>(
        &self,
        user: &UserId,
        key: &Key,
        told: impl FnOnce(Option<&Clock>) -> T,
    ) -> Result<(KeySource, T), OpError> {
        let (slot, hash, index) = self.locate(user, key);
        let source = self.doors()[index].with_reader(|reader| reader.key_at((slot, hash), user, key, told))?;
        source.map_err(damaged)
    }

    /// The highest stamp of any op of a snapshot.
    pub async fn last_stamp(&self, source: KeySource) -> Result<Option<Stamp>, OpError> {
        if source.segments.is_empty() {
            return Ok(source.memory.last_stamp());
        }
        let index = self.door_of(source.slot);
        let last = self.look_up(move || source.last_stamp()).await?;
        last.map_err(|error| self.report(index, error))
    }

    /// Whether the request id may have been taken, by what memory and filters say.
    pub fn may_hold_request(&self, user: &UserId, key: &Key, id: RequestId) -> Result<bool, OpError> {
        let (slot, hash, index) = self.locate(user, key);
        self.doors()[index].with_reader(|reader| reader.request((slot, hash), user, key, id) != RequestHeld::No)
    }

    /// The op that took the request id, be it durable or not; where a clear removed it, what is left of it.
    pub async fn op_of_request(&self, user: &UserId, key: &Key, id: RequestId) -> Result<Option<KeyedOp>, OpError> {
        let (slot, hash, index) = self.locate(user, key);
        for _ in 0..OPEN_GROUP_TRIES {
            let reader = self.doors()[index].reader()?;
            let held = reader.request((slot, hash), user, key, id);
            if held == RequestHeld::No {
                return Ok(None);
            }
            let (user, key) = (user.clone(), key.clone());
            let now = self.env().wall.now();
            let look_up = move || reader.op_of_request(slot, hash, &user, &key, id, now);
            let found = self.look_up(look_up).await?;
            let found = found.map_err(|error| self.report(index, error))?;
            if found.is_some() || held == RequestHeld::MayBeOnDisk {
                return Ok(found);
            }
            // It lies in the group that is open right now, and shows when that goes to the disk.
            tokio::time::sleep(OPEN_GROUP_PAUSE).await;
        }
        Err(OpError::ShardUnavailable { maybe_applied: false })
    }

    /// The dots of all ops that are held of a slot.
    pub async fn held_dots(&self, slot: SlotId) -> Result<HeldDots, OpError> {
        let index = self.door_of(slot);
        let reader = self.doors()[index].reader()?;
        let held = self.look_up(move || reader.held_dots(slot)).await?;
        held.map_err(|error| self.report(index, error))
    }

    /// The ops with these dots, and before them all clears that saw one of the dots: for a peer, which takes what it is not given for
    /// dropped.
    pub fn export(&self, wants: &SlotClocks) -> Result<Export, OpError> {
        self.exported(wants, |scan| scan)
    }

    /// The ops with these dots, and no others.
    pub fn ops_with(&self, dots: &SlotClocks) -> Result<Export, OpError> {
        self.exported(dots, OpScan::only_wanted)
    }

    fn exported(&self, wants: &SlotClocks, made: impl Fn(OpScan) -> OpScan) -> Result<Export, OpError> {
        let (mut scans, mut covered) = (Vec::new(), SlotClocks::default());
        for (index, door) in self.doors().iter().enumerate().rev() {
            let mut wanted = wants.clone();
            wanted.retain_slots(|slot| self.door_of(slot) == index);
            if !wanted.is_empty() {
                let (scan, known) = door.reader()?.scan(wanted, self.env().wall.now());
                covered.join(&known);
                scans.push((index, made(scan)));
            }
        }
        Ok(Export {
            local: self.clone(),
            scans,
            covered,
        })
    }

    /// See `Shard::know_dropped`.
    pub fn know_dropped(&self, dots: &SlotClocks) {
        self.tell_shards(dots, |news, dots| news.dropped.join(&dots));
    }

    /// What clears wait for here, of all shards that serve now.
    pub fn awaited(&self) -> SlotClocks {
        let mut awaited = SlotClocks::default();
        self.readers().for_each(|reader| awaited.join(&reader.awaited()));
        awaited
    }

    /// Refuses these ops from here on, unless they are allowed again; returns those that are not here.
    pub async fn refuse(&self, slot: SlotId, dots: &Clock) -> Result<Clock, OpError> {
        let mut wanted = SlotClocks::default();
        wanted.join_slot(slot, dots);
        let door = &self.doors()[self.door_of(slot)];
        let mut lacking = ask_shard(door, |sender| ShardMessage::Refuse(wanted, sender)).await?;
        Ok(lacking.remove_slot(slot).unwrap_or_default())
    }

    /// Whether files record all dots that shards take for dropped: what shards were only told, a restart forgets. If not, the files soon
    /// will.
    pub async fn dropped_are_noted(&self) -> Result<bool, OpError> {
        let mut all = true;
        for door in self.doors() {
            all &= ask_shard(door, ShardMessage::NoteDropped).await?;
        }
        Ok(all)
    }

    /// These may be taken: a peer holds them.
    pub fn allow(&self, dots: &SlotClocks) {
        self.doors().iter().for_each(|door| door.refused.allow(dots));
    }

    /// See `Shard::set_stable`.
    pub fn set_stable(&self, stable: &SlotClocks, heard: Option<WallMs>) {
        self.tell_shards(stable, |news, stable| news.stable = Some((stable, heard)));
    }

    /// See `Shard::heal`.
    pub fn heal(&self, lost: &SlotClocks) {
        self.tell_shards(lost, |news, lost| news.healed.join(&lost));
    }

    /// Notes that what the others held was copied for the first time; durable on Ok.
    pub async fn set_whole(&self) -> Result<(), OpError> {
        self.ask_supervisor(|done| SupervisorMessage::SetNew {
            is_new: Some(false),
            starts: 0,
            done,
        })
        .await
    }

    /// Notes that this disk is not what it was: it does not vote, nor does it after a restart, until what the others hold was copied.
    /// `starts` of it were seen.
    pub async fn set_new(&self, starts: u64) -> Result<(), OpError> {
        self.ask_supervisor(|done| SupervisorMessage::SetNew {
            is_new: Some(true),
            starts,
            done,
        })
        .await
    }

    /// The next start is to be a later one than these; durable on Ok.
    pub async fn note_starts(&self, starts: u64) -> Result<(), OpError> {
        self.ask_supervisor(|done| SupervisorMessage::SetNew {
            is_new: None,
            starts,
            done,
        })
        .await
    }

    /// Has all shards take new origins: dots like those that this process gives out may be in use elsewhere.
    pub fn renew_origins(&self) {
        // Fails only when the node is going down.
        let _ = self.supervisor().cast(SupervisorMessage::RenewOrigins);
    }

    async fn ask_supervisor(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<(), String>>) -> SupervisorMessage,
    ) -> Result<(), OpError> {
        let (done, answer) = oneshot::channel();
        let supervisor: &ActorRef<SupervisorMessage> = self.supervisor();
        supervisor.cast(message(done)).map_err(|_| OpError::ShuttingDown)?;
        answer.await.map_err(|_| OpError::ShuttingDown)?.map_err(OpError::Disk)
    }

    /// Tells each shard of its own slots.
    fn tell_shards(&self, clocks: &SlotClocks, tell: impl Fn(&mut News, SlotClocks)) {
        let mut of_doors = vec![SlotClocks::default(); self.doors().len()];
        for (slot, clock) in clocks.slots() {
            of_doors[self.door_of(slot)].join_slot(slot, clock);
        }
        for (door, clocks) in self.doors().iter().zip(of_doors) {
            if let Some(serving) = &*door.serving()
                && serving.news.put(|news| tell(news, clocks))
            {
                // One that is ending is reopened, and hears of it again.
                let _ = serving.actor.cast(ShardMessage::News);
            }
        }
    }

    pub(super) fn report(&self, index: usize, error: ReadError) -> OpError {
        report(self.doors()[index].serving().as_deref(), error)
    }
}

impl Export {
    /// The next ops, about so many bytes of them; `None` at the end. A batch may be empty although there are more: it reads no more at once
    /// than `OpScan::next_batch` does, so that nobody waits long for the answer, and one that nobody waits for any more soon ends.
    pub async fn next(&mut self, budget_bytes: usize) -> Result<Option<Vec<KeyedOp>>, OpError> {
        if let Some((index, mut scan)) = self.scans.pop() {
            let (mut scan, batch) = self
                .local
                .env()
                .run_blocking(move || {
                    let batch = scan.next_batch(budget_bytes);
                    (scan, batch)
                })
                .await?;
            match batch {
                // The next shard's turn comes with the next call.
                Ok(None) => {}
                Ok(Some(ops)) => {
                    self.scans.push((index, scan));
                    return Ok(Some(ops));
                }
                Err(ReadError::Damaged(block)) => {
                    // What lay there is not sent, and so must not be taken for cleared.
                    for slot in block.slots.0.0..=block.slots.1.0 {
                        self.covered.remove_slot(SlotId(slot));
                    }
                    scan.skip_damaged();
                    self.scans.push((index, scan));
                    self.local.report(index, ReadError::Damaged(block));
                }
                Err(error) => return Err(self.local.report(index, error)),
            }
            return Ok(Some(Vec::new()));
        }
        Ok(None)
    }

    /// The wanted dots that are covered here: those of them that were not given by the end were cleared.
    pub fn covered(&self) -> &SlotClocks {
        &self.covered
    }
}

async fn ask_shard<T>(
    door: &ShardDoor,
    message: impl FnOnce(oneshot::Sender<T>) -> ShardMessage,
) -> Result<T, OpError> {
    let gone = || OpError::ShardUnavailable { maybe_applied: false };
    let (sender, answer) = oneshot::channel();
    {
        let serving = door.serving();
        let actor = &serving.as_ref().ok_or_else(gone)?.actor;
        actor.cast(message(sender)).map_err(|_| gone())?;
    }
    answer.await.map_err(|_| gone())
}

/// Where a key lies in the hash space.
pub fn place_of(user: &UserId, key: &Key) -> (SlotId, KeyHash) {
    let hash = KeyHash::of(user, key);
    (crate::core::slot::slot_of(user, hash), hash)
}
