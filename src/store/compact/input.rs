//! What a merge reads: memtables and segments as streams of ops, in order.

use std::cmp::Ordering;

use super::KeyName;
use crate::core::clock::SlotClocks;
use crate::core::dots::Dots;
use crate::core::op::Op;
use crate::store::memtable::{MemoryKey, MemoryOp, SharedMemtable};
use crate::store::segment::{DamagedBlock, ReadError, Scan};
use crate::store::waiting::{Next, Waiting};

pub(super) enum Input {
    Memtable {
        memtable: SharedMemtable,
        keys: std::vec::IntoIter<MemoryKey>,
        ops: std::vec::IntoIter<MemoryOp>,
    },
    Segment {
        scan: Box<Scan>,
        salvage: Option<Salvage>,
    },
}

/// What a merge that steps over damage keeps, to tell what is lost.
#[derive(Default)]
pub(super) struct Salvage {
    damaged: Vec<DamagedBlock>,
    seen: Dots,
}

impl Salvage {
    /// Of what the segment covered in the slots of its damaged blocks, all that was not read. Ops that had been dropped from the
    /// segment are counted as lost too: nothing on this disk tells them apart, and a peer can.
    pub(super) fn lost(&mut self, covered: &SlotClocks) -> SlotClocks {
        let mut lost = SlotClocks::default();
        let seen = self.seen.clocks();
        for (slot, clock) in covered.slots() {
            if self
                .damaged
                .iter()
                .any(|block| block.slots.0 <= slot && slot <= block.slots.1)
            {
                let rest = seen.get(slot).map_or_else(|| clock.clone(), |seen| clock.minus(seen));
                lost.join_slot(slot, &rest);
            }
        }
        lost
    }
}

impl Input {
    /// The next op; `name` is set when it may be of another key than the one before it.
    pub(super) fn next(&mut self, name: &mut Option<KeyName>) -> Result<Option<Op>, ReadError> {
        match self {
            Self::Segment { scan, salvage } => loop {
                match (scan.next_op(), &mut *salvage) {
                    (Err(ReadError::Damaged(_)), Some(salvage)) => salvage.damaged.extend(scan.skip_damaged()),
                    (Err(error), _) => return Err(error),
                    (Ok(None), _) => return Ok(None),
                    (Ok(Some((op, is_new_run))), salvage) => {
                        if let Some(salvage) = salvage {
                            salvage.seen.add(op.dot);
                        }
                        if is_new_run {
                            *name = scan.name().map(|(user, key)| (op.dot.slot, user.clone(), key.clone()));
                        }
                        return Ok(Some(op));
                    }
                }
            },
            Self::Memtable { memtable, keys, ops } => loop {
                if let Some(op) = ops.next() {
                    match memtable.read().op_of_sorted(op) {
                        Some(op) => return Ok(Some(op)),
                        None => continue,
                    }
                }
                let Some(key) = keys.next() else {
                    return Ok(None);
                };
                *ops = memtable.read().ops_of_sorted(&key).into_iter();
                *name = Some((key.slot, key.user, key.key));
            },
        }
    }
}

pub(super) struct Head {
    pub(super) input: Input,
    /// The key of the next op, while there is one.
    name: Option<KeyName>,
    pub(super) next: Next,
    /// The next op is of the key that is being merged.
    pub(super) is_at_key: bool,
}

impl Head {
    pub(super) fn new(input: Input) -> Self {
        Self {
            input,
            name: None,
            next: Next::End,
            is_at_key: false,
        }
    }

    /// The key of the next op, if there is one.
    pub(super) fn name(&self) -> Option<&KeyName> {
        self.name.as_ref().filter(|_| !self.next.is_end())
    }

    /// Goes to the next op; gives the one before it.
    pub(super) fn advance(&mut self) -> Result<Option<Op>, ReadError> {
        if self.next.is_away() {
            self.next = self.input.next(&mut self.name)?.into();
        }
        let next = self.input.next(&mut self.name)?;
        Ok(self.next.replace(next))
    }
}

impl Waiting for Head {
    fn next(&mut self) -> &mut Next {
        &mut self.next
    }

    fn compare(&self, other: &Self) -> Ordering {
        (self.name(), self.next.rank()).cmp(&(other.name(), other.next.rank()))
    }

    fn step_back(&mut self) -> bool {
        match &mut self.input {
            // What was seen must not be lost: read again, it may be damaged.
            Input::Segment { scan, salvage: None } => scan.step_back(),
            // The texts of a memtable are in memory anyway.
            Input::Segment { .. } | Input::Memtable { .. } => false,
        }
    }
}
