//! What was cleared takes no space for long.

use super::Judged;
use crate::cluster::history::{HeldKind, HeldOp};

/// Some time after all keys were cleared at all replicas, no disk holds a text or a clear of them: nothing but the request ids, which are to
/// be remembered for an hour, and go when it has passed.
pub fn cleared_space_is_reclaimed(judged: &Judged) -> Result<(), String> {
    let Some(reclaimed_us) = judged.history.reclaimed_us else {
        return Ok(());
    };
    let forgotten_us = judged.history.forgotten_us.unwrap_or(u64::MAX);
    for survey in judged
        .history
        .surveys
        .iter()
        .filter(|survey| survey.at_us >= reclaimed_us)
    {
        let is_remembered = survey.at_us < forgotten_us;
        let takes_space = |op: &&HeldOp| op.place.is_some() && !(is_remembered && op.kind == HeldKind::Spent);
        let left: Vec<&HeldOp> = survey.ops.iter().filter(takes_space).collect();
        if let Some(first) = left.first() {
            return Err(format!(
                "all was cleared, and node {} still holds {} ops at {} µs: {first:?}",
                survey.node,
                left.len(),
                survey.at_us
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn what_is_left_of_cleared_keys_is_found() {
        let check = cleared_space_is_reclaimed;
        let held = || {
            let mut sample = sample().survey(0, 5, &[1]);
            sample.history.reclaimed_us = Some(4);
            sample
        };
        held().fails(check);
        held().with_held(|op| op.kind = HeldKind::Clear).fails(check);
        held().with_held(|op| op.kind = HeldKind::Spent).passes(check);
        held().with_held(|op| op.place = None).passes(check);
        let mut forgotten = held();
        forgotten.history.forgotten_us = Some(5);
        forgotten.with_held(|op| op.kind = HeldKind::Spent).fails(check);
        let mut later = held();
        later.history.reclaimed_us = Some(6);
        later.passes(check);
    }
}
