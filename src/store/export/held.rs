//! Which dots of a slot are held: what two replicas compare when one of them missed clears that were collected since.

use std::sync::Arc;

use super::OpScan;
use crate::core::clock::{Clock, SlotClocks};
use crate::core::dots::SlotDots;
use crate::core::op::{Body, KeyedOp};
use crate::core::slot::SlotId;
use crate::core::stamp::OriginId;
use crate::store::memtable::SharedMemtable;
use crate::store::segment::{ReadError, Segment};
use crate::types::{Key, UserId, WallMs};

const BATCH_BYTES: usize = 256 * 1024;

/// What a snapshot holds of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldDots {
    /// All that is held, or known to be dropped. Of the same snapshot: text that it covers and `texts` does not was cleared.
    pub covered: Clock,
    /// Parts and values that no clear removes.
    pub texts: Clock,
    pub clears: Clock,
    /// Dots of which only the request id is left.
    pub spent: Clock,
}

/// Reads every block of the slot.
pub fn held_dots(memtables: &[SharedMemtable], segments: &[Arc<Segment>], slot: SlotId) -> Result<HeldDots, ReadError> {
    let mut held = HeldDots::default();
    for memtable in memtables {
        let memtable = memtable.read();
        let mut dots = SlotDots::default();
        for head in memtable.heads_of_slot(slot, memtable.durable_groups()) {
            dots.add(head.dot.origin, head.dot.seq);
        }
        held.covered.join(&dots.into_clock());
    }
    for covered in segments.iter().filter_map(|segment| segment.covered().get(slot)) {
        held.covered.join(covered);
    }
    let mut wants = SlotClocks::default();
    wants.join_slot(slot, &held.covered);
    let mut scan = OpScan::new(memtables.to_vec(), segments.to_vec(), wants, WallMs(0)).with_cleared();
    let (mut texts, mut clears, mut spent) = (SlotDots::default(), SlotDots::default(), SlotDots::default());
    let mut of_key = TextsOfKey::default();
    while let Some(batch) = scan.next_batch(BATCH_BYTES)? {
        for KeyedOp { user, key, op } in batch {
            if of_key
                .name
                .as_ref()
                .is_none_or(|name| *name != (user.clone(), key.clone()))
            {
                std::mem::take(&mut of_key).add_standing(&mut texts);
                of_key.name = Some((user, key));
            }
            let (origin, seq) = (op.dot.origin, op.dot.seq);
            match op.body {
                Body::Part(_) | Body::Value(_) => of_key.dots.push((origin, seq)),
                Body::Clear(seen) => {
                    of_key.cleared.join(&seen);
                    clears.add(origin, seq);
                }
                Body::Spent { .. } => spent.add(origin, seq),
            }
        }
    }
    of_key.add_standing(&mut texts);
    held.texts = texts.into_clock();
    held.clears = clears.into_clock();
    held.spent = spent.into_clock();
    Ok(held)
}

/// The texts of the key that is being read.
#[derive(Default)]
struct TextsOfKey {
    name: Option<(UserId, Key)>,
    dots: Vec<(OriginId, u64)>,
    cleared: Clock,
}

impl TextsOfKey {
    fn add_standing(self, texts: &mut SlotDots) {
        for (origin, seq) in self.dots {
            if !self.cleared.contains(origin, seq) {
                texts.add(origin, seq);
            }
        }
    }
}
