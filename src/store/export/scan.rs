//! All ops of some dots: what a replica that catches up is sent.
//!
//! An op that a clear of its key removes is not sent, only its request id if it has one: the receiver may know the clear already, as one
//! that was collected elsewhere, and would show the op again.
//!
//! A receiver takes an op that it is not sent for dropped, so it must hold the clear that removed it before. Every clear that saw a wanted
//! dot is therefore given first, be it wanted or not. Of which key a dot was that a merge has dropped, nobody can tell any more, so this
//! goes by what the clear saw of its slot. A clear that stands for others saw what these saw. What was dropped by a clear that has been
//! collected since is known to all replicas but those that reconcile (`node::cluster::catch_up::compare`).
//!
//! Memory: a batch, one read of each segment that is in use, the keys of the wanted slots that are in memtables, and which of the wanted
//! dots each clear saw that was not collected yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{detached, left_by};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Body, Dot, KeyedOp, Op};
use crate::core::slot::SlotId;
use crate::store::log::{RecordHeader, record_bytes};
use crate::store::memtable::{MemoryKey, SharedMemtable};
use crate::store::order::{Rank, rank_of};
use crate::store::segment::{DamagedBlock, ReadError, Scan, Segment};
use crate::types::{Key, UserId, WallMs};

/// What one call looks through, bytes (see `Scan::bytes_looked_at`), before it says that there is nothing yet, so that the receiver does
/// not wait for ever: a disk that reads a few MB a second is done in time. It is more than fills a batch.
pub(super) const LOOK_BYTES_MAX: u64 = 4 << 20;
/// What looking at a key in a memtable is taken for.
const MEMORY_KEY_LOOK_BYTES: u64 = 256;
/// What it is to compare a clear with one range of what is wanted.
const RANGE_LOOK_BYTES: u64 = 16;

/// Where an op lies.
type Name = (SlotId, UserId, Key);

/// What is given one after the other; of each pass, in the order of slot, user, key and stamp.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Those that are wanted or saw something wanted.
    Clears,
    /// All other wanted ops.
    Others,
    /// Every wanted op at once, as it is.
    All,
}

/// Gives every op of a snapshot whose dot is wanted.
pub struct OpScan {
    wants: SlotClocks,
    /// Gives no clear that is not wanted.
    only_wanted: bool,
    now: WallMs,
    look_bytes_max: u64,
    /// With how many of their groups are of the snapshot.
    memtables: Vec<(SharedMemtable, usize)>,
    segments: Vec<Arc<Segment>>,
    pass: Pass,
    /// The wanted dots that the clears of each key saw.
    cleared: BTreeMap<Name, Clock>,
    heads: Vec<Head>,
    /// The op that was given last: a copy of it is not given again.
    last: Option<Dot>,
    /// It did not fit into the last batch, and is the first of the next.
    held: Option<KeyedOp>,
}

impl OpScan {
    /// Reads nothing from the disk yet. Segments, and slots in them, that hold neither anything that is wanted nor clears are never read.
    pub fn new(memtables: Vec<SharedMemtable>, segments: Vec<Arc<Segment>>, wants: SlotClocks, now: WallMs) -> Self {
        let durable = |table: SharedMemtable| {
            let groups = table.read().durable_groups();
            (table, groups)
        };
        let mut scan = Self {
            wants,
            only_wanted: false,
            now,
            look_bytes_max: LOOK_BYTES_MAX,
            memtables: memtables.into_iter().map(durable).collect(),
            segments,
            pass: Pass::Clears,
            cleared: BTreeMap::new(),
            heads: Vec::new(),
            last: None,
            held: None,
        };
        scan.begin(Pass::Clears);
        scan
    }

    /// Gives ops that a clear removes as they are, and no clear that is not wanted.
    pub fn with_cleared(mut self) -> Self {
        self.begin(Pass::All);
        self
    }

    /// Gives no clear that is not wanted: for callers that do not conclude from it that something was dropped.
    pub fn only_wanted(mut self) -> Self {
        self.only_wanted = true;
        self
    }

    /// Looks at so much in one call, and at least at one block or key.
    #[cfg(test)]
    pub(super) fn looking_at(mut self, bytes: u64) -> Self {
        self.look_bytes_max = bytes;
        self
    }

    fn begin(&mut self, pass: Pass) {
        self.pass = pass;
        self.heads.clear();
        for (table, groups) in &self.memtables {
            let memtable = table.read();
            if pass == Pass::Clears && memtable.cleared_keys(*groups).next().is_none() {
                continue;
            }
            let keys = memtable.sorted_keys_of(|slot| self.wants.get(slot).is_some());
            self.heads.push(Head::new(Input::Memtable {
                table: table.clone(),
                groups: *groups,
                keys: keys.into_iter(),
                key: None,
                ops: Vec::new().into_iter(),
            }));
        }
        for segment in &self.segments {
            let may_hold = |(slot, wanted): &(SlotId, &Clock)| {
                let covered = segment.covered().get(*slot);
                covered.is_some_and(|held| match pass {
                    Pass::Clears => segment.stats().clears > 0,
                    Pass::Others | Pass::All => held.meets(wanted),
                })
            };
            let slots: Vec<SlotId> = self.wants.slots().filter(may_hold).map(|(slot, _)| slot).collect();
            if let Some(first) = slots.first() {
                let scan = Box::new(segment.scan(Some((*first, "", ""))));
                self.heads.push(Head::new(Input::Segment { scan, slots, at: 0 }));
            }
        }
    }

    /// The next ops, together at most `budget_bytes` of log records, and one that is larger alone: a batch has to fit into one message, as
    /// each op does. An empty batch says nothing but that so much was looked at as one call may; `None` is the end.
    ///
    /// After `Err(Damaged)` the same error comes again until `skip_damaged` was called; after any other, the next call tries again.
    pub fn next_batch(&mut self, budget_bytes: usize) -> Result<Option<Vec<KeyedOp>>, ReadError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut look = self.look_bytes_max;
        while bytes < budget_bytes.max(1) {
            match self.next(&mut look) {
                Ok(Step::Given(op)) => {
                    bytes += record_bytes(op.user.as_str(), op.key.as_str(), &op.op);
                    if bytes > budget_bytes && !batch.is_empty() {
                        self.held = Some(op);
                        break;
                    }
                    batch.push(op);
                }
                Ok(Step::End) if batch.is_empty() => return Ok(None),
                Ok(Step::End | Step::Pause) => break,
                // What was read before is not lost, and the error comes again.
                Err(_) if !batch.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Some(batch))
    }

    /// After `Err(Damaged)`: goes on behind the bad block, whose slots may have held more wanted ops.
    pub fn skip_damaged(&mut self) -> Option<DamagedBlock> {
        let head = self.heads.iter_mut().find(|head| head.is_damaged)?;
        let Input::Segment { scan, .. } = &mut head.input else {
            return None;
        };
        head.is_damaged = false;
        scan.skip_damaged()
    }

    fn next(&mut self, look: &mut u64) -> Result<Step<KeyedOp>, ReadError> {
        if let Some(held) = self.held.take() {
            return Ok(Step::Given(held));
        }
        loop {
            // Before anything is taken, so that an error or a pause loses nothing.
            for head in &mut self.heads {
                if !head.fill(self.pass, &self.wants, look)? {
                    return Ok(Step::Pause);
                }
            }
            self.heads.retain(|head| head.next.is_some());
            let lowest = self.heads.iter_mut().min_by(|a, b| a.place().cmp(&b.place()));
            let Some(Next { user, key, op }) = lowest.and_then(|head| head.next.take()) else {
                if self.pass != Pass::Clears {
                    return Ok(Step::End);
                }
                self.begin(Pass::Others);
                continue;
            };
            if self.last.replace(op.dot) == Some(op.dot) {
                continue;
            }
            let name = (op.dot.slot, user, key);
            let given = match (self.pass, self.cleared.get(&name)) {
                (Pass::Clears, _) => self.heed(&name, op, look),
                (Pass::Others, Some(cleared)) => left_by(cleared, op, self.now),
                (Pass::Others, None) | (Pass::All, _) => Some(op),
            };
            if let Some(op) = given {
                let ((_, user, key), op) = (name, detached(op));
                return Ok(Step::Given(KeyedOp { user, key, op }));
            }
        }
    }

    /// Notes which wanted dots of its key the clear removes. Returns the clear if it is to be given.
    fn heed(&mut self, name: &Name, clear: Op, look: &mut u64) -> Option<Op> {
        let (Body::Clear(seen), Some(wanted)) = (&clear.body, self.wants.get(name.0)) else {
            return None;
        };
        let is_wanted = wanted.contains(clear.dot.origin, clear.dot.seq);
        let ranges: usize = wanted.origins().map(|(_, set)| set.ranges().len()).sum();
        *look = look.saturating_sub(ranges as u64 * RANGE_LOOK_BYTES);
        let seen = seen.meet(wanted);
        if seen.is_empty() {
            return is_wanted.then_some(clear);
        }
        self.cleared.entry(name.clone()).or_default().join(&seen);
        (is_wanted || !self.only_wanted).then_some(clear)
    }
}

impl Pass {
    fn takes(self, wants: &SlotClocks, dot: &Dot, is_clear: bool) -> bool {
        let is_wanted = || wants.contains(dot.slot, dot.origin, dot.seq);
        match self {
            // What it saw is looked at when it is read.
            Self::Clears => is_clear && wants.get(dot.slot).is_some(),
            Self::Others => !is_clear && is_wanted(),
            Self::All => is_wanted(),
        }
    }
}

enum Input {
    Memtable {
        table: SharedMemtable,
        groups: usize,
        keys: std::vec::IntoIter<MemoryKey>,
        /// That `ops` are of.
        key: Option<MemoryKey>,
        ops: std::vec::IntoIter<Op>,
    },
    Segment {
        scan: Box<Scan>,
        /// That may hold something of the pass; the scan is in the one at `at`, or before it.
        slots: Vec<SlotId>,
        at: usize,
    },
}

enum Step<T> {
    Given(T),
    /// Nothing yet, and no more may be looked at in this call.
    Pause,
    End,
}

struct Next {
    user: UserId,
    key: Key,
    op: Op,
}

struct Head {
    input: Input,
    /// None when it was taken, and for good when there is no more.
    next: Option<Next>,
    is_damaged: bool,
}

impl Head {
    fn new(input: Input) -> Self {
        Self {
            input,
            next: None,
            is_damaged: false,
        }
    }

    fn place(&self) -> Option<(SlotId, &UserId, &Key, Rank)> {
        let Next { user, key, op } = self.next.as_ref()?;
        Some((op.dot.slot, user, key, rank_of(op)))
    }

    /// False when it has to go on in another call.
    fn fill(&mut self, pass: Pass, wants: &SlotClocks, look: &mut u64) -> Result<bool, ReadError> {
        if self.next.is_some() {
            return Ok(true);
        }
        let step = self.input.next(pass, wants, look);
        self.is_damaged = matches!(step, Err(ReadError::Damaged(_)));
        match step? {
            Step::Given(next) => self.next = Some(next),
            Step::End => {}
            Step::Pause => return Ok(false),
        }
        Ok(true)
    }
}

impl Input {
    /// Takes from `look` what it looks at; gives nothing when that is used up.
    fn next(&mut self, pass: Pass, wants: &SlotClocks, look: &mut u64) -> Result<Step<Next>, ReadError> {
        match self {
            Self::Memtable {
                table,
                groups,
                keys,
                key,
                ops,
            } => loop {
                if let (Some(MemoryKey { user, key, .. }), Some(op)) = (&key, ops.next()) {
                    let (user, key) = (user.clone(), key.clone());
                    return Ok(Step::Given(Next { user, key, op }));
                }
                if *look == 0 {
                    return Ok(Step::Pause);
                }
                let Some(next) = keys.next() else { return Ok(Step::End) };
                *look = look.saturating_sub(MEMORY_KEY_LOOK_BYTES);
                let taken = |head: &RecordHeader| pass.takes(wants, &head.dot, head.is_clear());
                *ops = table.read().some_ops_of_sorted(&next, *groups, taken).into_iter();
                *key = Some(next);
            },
            Self::Segment { scan, slots, at } => {
                while *at < slots.len() {
                    if *look == 0 {
                        return Ok(Step::Pause);
                    }
                    let before = scan.bytes_looked_at();
                    let next = scan.next_op();
                    *look = look.saturating_sub(scan.bytes_looked_at() - before);
                    let Some((op, _)) = next? else {
                        return Ok(Step::End);
                    };
                    let here = op.dot.slot;
                    *at += slots
                        .get(*at..)
                        .unwrap_or_default()
                        .partition_point(|slot| *slot < here);
                    match slots.get(*at) {
                        Some(slot) if *slot > here => scan.seek(*slot, "", ""),
                        Some(_) if pass.takes(wants, &op.dot, matches!(op.body, Body::Clear(_))) => {
                            let named = |(user, key): (&UserId, &Key)| Next {
                                user: user.clone(),
                                key: key.clone(),
                                op,
                            };
                            return Ok(scan.name().map_or(Step::End, |name| Step::Given(named(name))));
                        }
                        _ => {}
                    }
                }
                Ok(Step::End)
            }
        }
    }
}
