//! What a merge reads: memtables and segments as streams of ops, in order.

use super::KeyName;
use crate::core::clock::SlotClocks;
use crate::core::op::{KeyedOp, Op};
use crate::store::memtable::{MemoryKey, SharedMemtable};
use crate::store::segment::{DamagedBlock, ReadError, Scan};

pub(super) enum Input {
    Memtable {
        memtable: SharedMemtable,
        keys: std::vec::IntoIter<MemoryKey>,
        ops: std::vec::IntoIter<Op>,
        current: Option<KeyName>,
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
    seen: SlotClocks,
}

impl Salvage {
    /// Of what the segment covered in the slots of its damaged blocks, all that was not read. Ops that had been dropped from the
    /// segment are counted as lost too: nothing on this disk tells them apart, and a peer can.
    pub(super) fn lost(&self, covered: &SlotClocks) -> SlotClocks {
        let mut lost = SlotClocks::default();
        for (slot, clock) in covered.slots() {
            if self
                .damaged
                .iter()
                .any(|block| block.slots.0 <= slot && slot <= block.slots.1)
            {
                let rest = self
                    .seen
                    .get(slot)
                    .map_or_else(|| clock.clone(), |seen| clock.minus(seen));
                lost.join_slot(slot, &rest);
            }
        }
        lost
    }
}

impl Input {
    pub(super) fn next(&mut self) -> Result<Option<(KeyName, Op)>, ReadError> {
        match self {
            Self::Segment { scan, salvage } => loop {
                match (scan.next(), &mut *salvage) {
                    (Err(ReadError::Damaged(_)), Some(salvage)) => salvage.damaged.extend(scan.skip_damaged()),
                    (Err(error), _) => return Err(error),
                    (Ok(None), _) => return Ok(None),
                    (Ok(Some(KeyedOp { user, key, op })), salvage) => {
                        if let Some(salvage) = salvage {
                            salvage.seen.insert(op.dot.slot, op.dot.origin, op.dot.seq);
                        }
                        return Ok(Some(((op.dot.slot, user, key), op)));
                    }
                }
            },
            Self::Memtable {
                memtable,
                keys,
                ops,
                current,
            } => loop {
                if let (Some(op), Some(name)) = (ops.next(), &current) {
                    return Ok(Some((name.clone(), op)));
                }
                let Some(key) = keys.next() else {
                    return Ok(None);
                };
                *ops = memtable.read().ops_of_sorted(&key).into_iter();
                *current = Some((key.slot, key.user, key.key));
            },
        }
    }
}

pub(super) struct Head {
    pub(super) input: Input,
    pub(super) next: Option<(KeyName, Op)>,
}

impl Head {
    pub(super) fn advance(&mut self) -> Result<Option<(KeyName, Op)>, ReadError> {
        let next = self.input.next()?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}
