//! All ops of some dots, slot by slot: what a replica that catches up is sent.
//!
//! An op that a clear of its key removes is not sent, only its request id if it has one: who asks for it may know the clear already, as
//! one that was collected elsewhere, and would show the op again.
//!
//! Memory: a batch, one read of each segment that is in use, the keys of the wanted slots that are in memtables, and the clears of these
//! slots that were not collected yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{detached, left_by};
use crate::core::clock::{Clock, SlotClocks};
use crate::core::op::{Body, Dot, KeyedOp, Op};
use crate::core::slot::SlotId;
use crate::store::log::record_bytes;
use crate::store::memtable::{MemoryKey, SharedMemtable};
use crate::store::order::{Rank, rank_of};
use crate::store::segment::{DamagedBlock, ReadError, Scan, Segment};
use crate::types::{Key, UserId, WallMs};

/// What the clears of each key removed.
type Cleared = BTreeMap<(SlotId, UserId, Key), Clock>;

/// Gives every op of a snapshot whose dot is wanted, in the order of slot, user, key and stamp.
pub struct OpScan {
    wants: SlotClocks,
    now: WallMs,
    memtables: Vec<SharedMemtable>,
    segments: Vec<Arc<Segment>>,
    /// Learnt before the first op is given.
    cleared: Option<Cleared>,
    heads: Vec<Head>,
    /// The op that was given last: a copy of it is not given again.
    last: Option<Dot>,
    /// It did not fit into the last batch, and is the first of the next.
    held: Option<KeyedOp>,
}

impl OpScan {
    /// Reads nothing from the disk yet. Segments, and slots in them, that hold nothing that is wanted are never read.
    pub fn new(memtables: Vec<SharedMemtable>, segments: Vec<Arc<Segment>>, wants: SlotClocks, now: WallMs) -> Self {
        let mut heads = Vec::new();
        for table in memtables.iter().cloned() {
            let memtable = table.read();
            let keys = memtable.sorted_keys_of(|slot| wants.get(slot).is_some());
            let groups = memtable.durable_groups();
            drop(memtable);
            heads.push(Head::new(Input::Memtable {
                table,
                groups,
                keys: keys.into_iter(),
                key: None,
                ops: Vec::new().into_iter(),
            }));
        }
        for segment in &segments {
            let may_hold =
                |(slot, wanted): &(SlotId, &Clock)| segment.covered().get(*slot).is_some_and(|held| held.meets(wanted));
            let slots: Vec<SlotId> = wants.slots().filter(may_hold).map(|(slot, _)| slot).collect();
            if let Some(first) = slots.first() {
                let scan = Box::new(segment.scan(Some((*first, "", ""))));
                heads.push(Head::new(Input::Segment { scan, slots, at: 0 }));
            }
        }
        Self {
            wants,
            now,
            memtables,
            segments,
            cleared: None,
            heads,
            last: None,
            held: None,
        }
    }

    /// Gives ops that a clear removes as they are.
    pub fn with_cleared(mut self) -> Self {
        self.cleared = Some(Cleared::new());
        self
    }

    /// The next ops, together at most `budget_bytes` of log records; at least one unless at the end, so one that is larger comes alone:
    /// a batch has to fit into one message, as each op does.
    ///
    /// After `Err(Damaged)` the same error comes again until `skip_damaged` was called; after any other, the next call tries again.
    pub fn next_batch(&mut self, budget_bytes: usize) -> Result<Vec<KeyedOp>, ReadError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < budget_bytes.max(1) {
            match self.next() {
                Ok(Some(op)) => {
                    bytes += record_bytes(op.user.as_str(), op.key.as_str(), &op.op);
                    if bytes > budget_bytes && !batch.is_empty() {
                        self.held = Some(op);
                        break;
                    }
                    batch.push(op);
                }
                Ok(None) => break,
                // What was read before is not lost, and the error comes again.
                Err(_) if !batch.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(batch)
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

    /// Of the wanted slots. A clear that cannot be read removes nothing.
    fn learn_clears(&self) -> Result<Cleared, ReadError> {
        let mut cleared = Cleared::new();
        for table in &self.memtables {
            let memtable = table.read();
            for (name, seen) in memtable.cleared_keys(memtable.durable_groups()) {
                if self.wants.get(name.0).is_some() {
                    cleared.entry(name).or_default().join(&seen);
                }
            }
        }
        for segment in self.segments.iter().filter(|segment| segment.stats().clears > 0) {
            let slots = self.wants.slots().map(|(slot, _)| slot);
            for slot in slots.filter(|slot| segment.covered().get(*slot).is_some()) {
                let mut scan = segment.scan(Some((slot, "", "")));
                loop {
                    match scan.next_op() {
                        Ok(Some((op, _))) if op.dot.slot <= slot => {
                            if let (Body::Clear(seen), Some((user, key))) = (&op.body, scan.name()) {
                                let name = (op.dot.slot, user.clone(), key.clone());
                                cleared.entry(name).or_default().join(seen);
                            }
                        }
                        Ok(_) => break,
                        Err(ReadError::Damaged(_)) if scan.skip_damaged().is_some() => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(cleared)
    }

    fn next(&mut self) -> Result<Option<KeyedOp>, ReadError> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        if self.cleared.is_none() {
            self.cleared = Some(self.learn_clears()?);
        }
        loop {
            // Before anything is taken, so that an error loses nothing.
            for head in &mut self.heads {
                head.fill(&self.wants)?;
            }
            self.heads.retain(|head| head.next.is_some());
            let lowest = self.heads.iter_mut().min_by(|a, b| a.place().cmp(&b.place()));
            let Some(Next { user, key, op }) = lowest.and_then(|head| head.next.take()) else {
                return Ok(None);
            };
            if self.last.replace(op.dot) == Some(op.dot) {
                continue;
            }
            let name = (op.dot.slot, user, key);
            let cleared = self.cleared.as_ref().and_then(|cleared| cleared.get(&name));
            let op = match cleared {
                Some(cleared) => left_by(cleared, op, self.now),
                None => Some(op),
            };
            if let Some(op) = op {
                let ((_, user, key), op) = (name, detached(op));
                return Ok(Some(KeyedOp { user, key, op }));
            }
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
        /// That hold something wanted; the scan is in the one at `at`, or before it.
        slots: Vec<SlotId>,
        at: usize,
    },
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

    fn fill(&mut self, wants: &SlotClocks) -> Result<(), ReadError> {
        if self.next.is_none() {
            let next = self.input.next(wants);
            self.is_damaged = matches!(next, Err(ReadError::Damaged(_)));
            self.next = next?;
        }
        Ok(())
    }
}

impl Input {
    fn next(&mut self, wants: &SlotClocks) -> Result<Option<Next>, ReadError> {
        let wanted = |dot: &Dot| wants.contains(dot.slot, dot.origin, dot.seq);
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
                    return Ok(Some(Next { user, key, op }));
                }
                let Some(next) = keys.next() else { return Ok(None) };
                *ops = table.read().some_ops_of_sorted(&next, *groups, wanted).into_iter();
                *key = Some(next);
            },
            Self::Segment { scan, slots, at } => {
                while *at < slots.len() {
                    let Some((op, _)) = scan.next_op()? else {
                        return Ok(None);
                    };
                    let here = op.dot.slot;
                    *at += slots
                        .get(*at..)
                        .unwrap_or_default()
                        .partition_point(|slot| *slot < here);
                    match slots.get(*at) {
                        Some(slot) if *slot > here => scan.seek(*slot, "", ""),
                        Some(_) if wanted(&op.dot) => {
                            let name = scan.name().map(|(user, key)| (user.clone(), key.clone()));
                            return Ok(name.map(|(user, key)| Next { user, key, op }));
                        }
                        _ => {}
                    }
                }
                Ok(None)
            }
        }
    }
}
