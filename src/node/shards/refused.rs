//! Ops that a shard takes from nobody: this node promised so (`cluster::catch_up::give_up`). It holds for as long as the node runs, however often the shard is
//! reopened.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::clock::SlotClocks;
use crate::core::op::KeyedOp;

/// Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Refused(Arc<Mutex<SlotClocks>>);

impl Refused {
    pub fn add(&self, dots: &SlotClocks) {
        self.0.lock().join(dots);
    }

    /// Allows these again: somebody holds them after all.
    pub fn allow(&self, dots: &SlotClocks) {
        let mut refused = self.0.lock();
        if !refused.is_empty() {
            *refused = refused.minus(dots);
        }
    }

    pub fn meets(&self, ops: &[KeyedOp]) -> bool {
        let refused = self.0.lock();
        let is_refused = |keyed: &KeyedOp| refused.contains(keyed.op.dot.slot, keyed.op.dot.origin, keyed.op.dot.seq);
        !refused.is_empty() && ops.iter().any(is_refused)
    }
}
