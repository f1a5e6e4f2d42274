//! A dot names one op, for ever and everywhere; so does a stamp.

use std::collections::BTreeMap;

use kv_storage::core::op::Dot;
use kv_storage::core::slot::SlotId;
use kv_storage::core::stamp::Stamp;

use super::Judged;
use crate::cluster::history::{HeldKind, HeldOp};

/// In all surveys of all nodes, ops with one dot are of one key and have one time, one request id and one content (what is left of a
/// cleared op has none); and no stamp belongs to two dots.
pub fn a_dot_names_one_op(judged: &Judged) -> Result<(), String> {
    let mut named: BTreeMap<Dot, &HeldOp> = BTreeMap::new();
    // Each shard stamps with a clock of its own, so a stamp is unique within a slot.
    let mut stamped: BTreeMap<(SlotId, Stamp), Dot> = BTreeMap::new();
    for survey in &judged.history.surveys {
        for op in &survey.ops {
            let other = named.entry(op.dot).or_insert(op);
            if !is_same(other, op) {
                return Err(format!(
                    "one dot, two ops: {other:?}, and {op:?} on node {} at {} µs",
                    survey.node, survey.at_us
                ));
            }
            if other.kind == HeldKind::Spent {
                *other = op;
            }
            let stamp = Stamp {
                time: op.time,
                origin: op.dot.origin,
            };
            let dot = *stamped.entry((op.dot.slot, stamp)).or_insert(op.dot);
            if dot != op.dot {
                return Err(format!("{stamp:?} belongs to {dot:?} and to {:?}", op.dot));
            }
        }
    }
    Ok(())
}

fn is_same(one: &HeldOp, other: &HeldOp) -> bool {
    let is_spent = one.kind == HeldKind::Spent || other.kind == HeldKind::Spent;
    (one.name, one.time, one.request) == (other.name, other.time, other.request)
        && (is_spent || (one.kind, one.digest) == (other.kind, other.digest))
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn a_dot_that_means_another_op_elsewhere_or_later_is_found() {
        let check = a_dot_names_one_op;
        let one = || sample().survey(0, 1, &[7]);
        one().survey(1, 1, &[7]).survey(0, 2, &[7]).passes(check);
        let changed = |change: fn(&mut HeldOp)| one().survey(1, 1, &[7]).with_held(change);
        changed(|op| op.digest += 1).fails(check);
        changed(|op| op.time.0 += 1).fails(check);
        changed(|op| op.name += 1).fails(check);
        changed(|op| op.kind = HeldKind::Part).fails(check);
        changed(|op| op.dot.seq += 1).fails(check);
        let left = |op: &mut HeldOp| (op.kind, op.digest) = (HeldKind::Spent, 0);
        changed(left).passes(check);
        one()
            .with_held(left)
            .survey(1, 1, &[7])
            .survey(2, 1, &[7])
            .passes(check);
    }
}
