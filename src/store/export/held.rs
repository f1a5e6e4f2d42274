//! Which dots of a slot are held: what two replicas compare when clears that one of them missed are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::clock::Clock;
use crate::core::op::{Body, Dot};
use crate::core::slot::SlotId;
use crate::core::stamp::OriginId;
use crate::store::memtable::SharedMemtable;
use crate::store::segment::{ReadError, Segment};

/// What a snapshot holds of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldDots {
    /// All that is held, or known to be dropped. Taken from the same snapshot: what it covers and none of the others holds was
    /// cleared.
    pub covered: Clock,
    /// Parts and values; a clear that is held too may cover them.
    pub texts: Clock,
    pub clears: Clock,
    /// Of these a request id is left: the texts were cleared.
    pub spent: Clock,
}

/// Reads every block of the slot.
pub fn held_dots(memtables: &[SharedMemtable], segments: &[Arc<Segment>], slot: SlotId) -> Result<HeldDots, ReadError> {
    let mut held = HeldDots::default();
    let (mut texts, mut clears, mut spent) = (Dots::default(), Dots::default(), Dots::default());
    for memtable in memtables {
        let memtable = memtable.read();
        for head in memtable.heads_of_slot(slot, memtable.durable_groups()) {
            match head {
                head if head.is_part() || head.is_value() => texts.add(head.dot),
                head if head.is_clear() => clears.add(head.dot),
                head => spent.add(head.dot),
            }
        }
    }
    for dots in [&texts, &clears, &spent] {
        dots.join_into(&mut held.covered);
    }
    for segment in segments {
        let Some(covered) = segment.covered().get(slot) else {
            continue;
        };
        held.covered.join(covered);
        let mut scan = segment.scan(Some((slot, "", "")));
        while let Some((op, _)) = scan.next_op()?
            && op.dot.slot <= slot
        {
            match op.body {
                _ if op.dot.slot < slot => {}
                Body::Part(_) | Body::Value(_) => texts.add(op.dot),
                Body::Clear(_) => clears.add(op.dot),
                Body::Spent { .. } => spent.add(op.dot),
            }
        }
    }
    texts.join_into(&mut held.texts);
    clears.join_into(&mut held.clears);
    spent.join_into(&mut held.spent);
    Ok(held)
}

/// Sequences in the order they come, which is that of keys: put into a clock one by one, they would make and unmake its ranges.
#[derive(Default)]
struct Dots(BTreeMap<OriginId, Vec<u64>>);

impl Dots {
    fn add(&mut self, dot: Dot) {
        self.0.entry(dot.origin).or_default().push(dot.seq);
    }

    fn join_into(&self, clock: &mut Clock) {
        for (origin, seqs) in &self.0 {
            let mut seqs = seqs.clone();
            seqs.sort_unstable();
            for seq in seqs {
                clock.insert(*origin, seq);
            }
        }
    }
}
