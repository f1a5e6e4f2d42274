//! G6: what was acknowledged is remembered, also when it was cleared since.

use std::collections::{BTreeMap, BTreeSet};

use kv_storage::types::RequestId;

use super::Judged;
use super::acknowledged::{lost_disks, not_whole};
use crate::cluster::history::{Level, Place, Survey, Write};

/// In every survey, of every add and clear with a request id that was acknowledged at quorum before it, as many disks as a quorum has hold an op with that
/// id, or what is left of one: a clear takes the text, and not the id, for the next hour. What no clear may have covered before an hour passed is held to it for ever. Disks that lost what they held count for it, as they do for what is acknowledged.
pub fn a_request_is_remembered(judged: &Judged) -> Result<(), String> {
    let needed = Level::Quorum.needed(judged.history.replicas);
    let adds = judged.places.values().flat_map(|case| &case.adds);
    let adds = adds.map(|add| (&add.write, add.may_be_gone_us));
    let clears = judged.places.values().flat_map(|case| &case.clears);
    let clears = clears.map(|clear| (clear, Some(clear.began_us)));
    let requests: Vec<(&Write, Option<u64>, u64, RequestId)> = adds
        .chain(clears)
        .filter(|(write, _)| write.with_id)
        .filter_map(|(write, may_go_us)| {
            let request = RequestId::new(&judged.history.request_id(write.op)).ok()?;
            Some((write, may_go_us, write.acked_at_quorum_us()?, request))
        })
        .collect();
    for round in judged.history.surveys.chunk_by(|one, other| one.at_us == other.at_us) {
        let at_us = round[0].at_us;
        let held = held_by(round);
        for (write, may_go_us, acked_us, request) in &requests {
            let on = held.get(&(write.place, *request)).map_or(0, BTreeSet::len);
            let is_forgotten = may_go_us.is_some_and(|may_go_us| judged.history.has_hour_passed(may_go_us, at_us));
            if *acked_us > at_us || on >= needed || is_forgotten {
                continue;
            }
            let lost = lost_disks(judged.history, write.began_us, at_us);
            let excused = if needed > 1 {
                not_whole(&lost, round)
            } else {
                lost.len()
            };
            if on + excused < needed {
                return Err(format!(
                    "request {} on {:?}, acknowledged at {acked_us} µs, is remembered on {on} disks alone at {at_us} µs, of {} replicas",
                    write.op, write.place, judged.history.replicas
                ));
            }
        }
    }
    Ok(())
}

fn held_by(round: &[Survey]) -> BTreeMap<(Place, RequestId), BTreeSet<u8>> {
    let mut held: BTreeMap<_, BTreeSet<u8>> = BTreeMap::new();
    for survey in round {
        for op in &survey.ops {
            if let (Some(place), Some(request)) = (op.place, op.request) {
                held.entry((place, request)).or_default().insert(survey.node);
            }
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, sample};
    use super::*;
    use crate::cluster::history::{HeldKind, request_id};

    /// An add with an id that was acknowledged at 1, and cleared since; what is left of it lies on these nodes.
    fn left_on(nodes: &[u8], change: impl FnOnce(Sample) -> Sample) -> Sample {
        let request = RequestId::new(&request_id(1)).ok();
        let added = sample().add(1, 0, 1).with(|call| call.with_id = true);
        (0..3).fold(change(added).clear(2, 3), |sample, node| {
            let texts: &[u64] = if nodes.contains(&node) { &[1] } else { &[] };
            let surveyed = sample.survey(node, 5, texts);
            surveyed.with_held(|op| (op.request, op.kind, op.text) = (request, HeldKind::Spent, None))
        })
    }

    #[test]
    fn what_is_left_of_an_acknowledged_request_is_on_a_quorum() {
        let check = a_request_is_remembered;
        let same = |sample| sample;
        left_on(&[0, 2], same).passes(check);
        left_on(&[2], same).fails(check);
        left_on(&[], |sample| sample.with(|call| call.with_id = false)).passes(check);
        left_on(&[], Sample::unanswered).passes(check);
        left_on(&[], |sample| sample.at(Level::One)).passes(check);
        left_on(&[], |sample| sample.with(|call| call.ended_us = 6)).passes(check);
    }

    #[test]
    fn when_an_hour_has_passed_it_may_be_forgotten() {
        let check = a_request_is_remembered;
        let hour = |at_us| {
            let mut sample = left_on(&[], |sample| sample);
            sample.history.hours_us.push(at_us);
            sample
        };
        hour(4).passes(check);
        hour(6).fails(check);
        // Of what was cleared since.
        hour(1).fails(check);
    }

    #[test]
    fn a_lost_disk_counts_for_it() {
        let check = a_request_is_remembered;
        left_on(&[2], |sample| sample.lost_disk(1, 2)).passes(check);
        left_on(&[], |sample| sample.lost_disk(1, 2)).fails(check);
        left_on(&[2], |sample| sample.lost_disk(1, 6)).fails(check);
    }
}
