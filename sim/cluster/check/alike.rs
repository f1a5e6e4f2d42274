//! G3 on the disks: not only what readers see is alike.

use std::collections::{BTreeMap, BTreeSet};

use kv_storage::core::op::Dot;
use kv_storage::core::slot::{SYSTEM_SLOT, SlotId};
use kv_storage::types::RequestId;

use super::Judged;
use crate::cluster::history::{HeldKind, Loss, Survey};

/// Of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    /// The texts that no clear took, be they parts that no value was made of yet.
    texts: BTreeSet<Dot>,
    /// The request ids of all that was ever taken, cleared or not.
    requests: BTreeSet<RequestId>,
}

impl Held {
    fn len(&self) -> usize {
        self.texts.len() + self.requests.len()
    }

    fn has_all_of(&self, other: &Self) -> bool {
        self.texts.is_superset(&other.texts) && self.requests.is_superset(&other.requests)
    }
}

/// In the last surveys, long after the last write, as many nodes as hold a slot hold the same texts and request ids of it, and no other node holds anything else
/// (it may still have what it took when it was a replica). Which clears are left is each node's own matter. Of a disk on which flipped bits or unreadable
/// sectors are left, that nobody has read yet, nothing is asked; what was found is healed by now. And where an hour passed, nothing of request ids: each node forgets them when it merges. The slot of the system, where the users' records
/// lie, is held by all members.
pub fn replicas_hold_the_same(judged: &Judged) -> Result<(), String> {
    let history = judged.history;
    if !history.have_peers {
        return Ok(());
    }
    let rounds = history.surveys.chunk_by(|one, other| one.at_us == other.at_us);
    let Some(last) = rounds.last() else { return Ok(()) };
    let is_spoilt = |survey: &Survey| {
        let mut lost = history.lost_disks.iter();
        !survey.damage.is_empty() && lost.any(|lost| lost.node == survey.node && lost.loss == Loss::Bits)
    };
    let (spoilt, sound): (Vec<&Survey>, Vec<_>) = last.iter().partition(|survey| is_spoilt(survey));
    let replicas = history.replicas.saturating_sub(spoilt.len());
    for (slot, mut nodes) in by_slot(&sound, !history.hours_us.is_empty()) {
        nodes.resize(sound.len().max(nodes.len()), (u8::MAX, Held::default()));
        nodes.sort_by_key(|(_, held)| std::cmp::Reverse(held.len()));
        let replicas = if slot == SYSTEM_SLOT { sound.len() } else { replicas };
        let (first_node, most) = &nodes[0];
        for (at, (node, held)) in nodes.iter().enumerate() {
            let is_as_it_should = match at < replicas {
                true => held == most,
                false => most.has_all_of(held),
            };
            if !is_as_it_should {
                let texts: Vec<_> = most.texts.symmetric_difference(&held.texts).take(3).collect();
                let requests = most.requests.symmetric_difference(&held.requests).count();
                return Err(format!(
                    "slot {slot:?}: node {first_node} holds {} texts and {} request ids, node {node} {} and {}; not alike are {texts:?} and {requests} ids",
                    most.texts.len(),
                    most.requests.len(),
                    held.texts.len(),
                    held.requests.len()
                ));
            }
        }
    }
    Ok(())
}

fn by_slot(surveys: &[&Survey], may_forget: bool) -> BTreeMap<SlotId, Vec<(u8, Held)>> {
    let mut slots: BTreeMap<SlotId, Vec<(u8, Held)>> = BTreeMap::new();
    for survey in surveys {
        let mut of_node: BTreeMap<SlotId, Held> = BTreeMap::new();
        for op in survey
            .ops
            .iter()
            .filter(|op| op.place.is_some() || op.dot.slot == SYSTEM_SLOT)
        {
            let held = of_node.entry(op.dot.slot).or_default();
            if op.stands && matches!(op.kind, HeldKind::Part | HeldKind::Value) {
                held.texts.insert(op.dot);
            }
            held.requests.extend(op.request.filter(|_| !may_forget));
        }
        for (slot, held) in of_node {
            slots.entry(slot).or_default().push((survey.node, held));
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, sample};
    use super::*;

    fn on(nodes: [&[u64]; 4]) -> Sample {
        let mut sample = sample().survey(0, 1, &[9]);
        sample.history.have_peers = true;
        (0..4).fold(sample, |sample, node| sample.survey(node, 2, nodes[usize::from(node)]))
    }

    #[test]
    fn as_many_as_there_are_replicas_hold_the_same_and_nobody_more() {
        let check = replicas_hold_the_same;
        on([&[1, 2], &[1, 2], &[], &[1, 2]]).passes(check);
        on([&[1, 2], &[1, 2], &[1], &[1, 2]]).passes(check);
        on([&[1, 2], &[1, 2], &[], &[1]]).fails(check);
        on([&[1, 2], &[1, 2], &[], &[]]).fails(check);
        on([&[1, 2], &[1, 2], &[1, 3], &[1, 2]]).fails(check);
        on([&[1, 2], &[1, 2], &[3], &[1, 2]]).fails(check);
        let mut alone = on([&[1, 2], &[], &[], &[]]);
        alone.history.have_peers = false;
        alone.passes(check);
    }

    #[test]
    fn parts_and_the_ids_of_what_was_cleared_count_and_clears_do_not() {
        let check = replicas_hold_the_same;
        let last = |change: fn(&mut crate::cluster::history::HeldOp)| {
            on([&[1], &[1], &[], &[1]]).survey(5, 2, &[7]).with_held(change)
        };
        last(|op| op.kind = HeldKind::Part).fails(check);
        last(|op| op.kind = HeldKind::Clear).passes(check);
        last(|op| op.stands = false).passes(check);
        last(|op| (op.stands, op.request) = (false, Some(RequestId([1; 16])))).fails(check);
        last(|op| op.place = None).passes(check);
    }

    #[test]
    fn when_an_hour_has_passed_each_may_forget_by_itself() {
        let request = |id: u8| move |op: &mut crate::cluster::history::HeldOp| op.request = Some(RequestId([id; 16]));
        let forgotten = || {
            let sample = sample().survey(0, 2, &[1]).with_held(request(1));
            sample.survey(1, 2, &[1]).with_held(request(1)).survey(2, 2, &[1])
        };
        let mut at_once = forgotten();
        at_once.history.have_peers = true;
        at_once.fails(replicas_hold_the_same);
        at_once.history.hours_us.push(1);
        at_once.passes(replicas_hold_the_same);
    }

    #[test]
    fn the_slot_of_the_system_is_held_by_all() {
        let check = replicas_hold_the_same;
        let records = |op: &mut crate::cluster::history::HeldOp| (op.place, op.dot.slot) = (None, SYSTEM_SLOT);
        let held_by = |nodes: &[u8]| {
            let mut sample = (0..4).fold(sample(), |sample, node| {
                let held: &[u64] = if nodes.contains(&node) { &[1] } else { &[] };
                sample.survey(node, 2, held).with_held(records)
            });
            sample.history.have_peers = true;
            sample
        };
        held_by(&[0, 1, 2, 3]).passes(check);
        held_by(&[0, 1, 3]).fails(check);
    }

    #[test]
    fn of_a_disk_with_damage_left_nothing_is_asked() {
        let check = replicas_hold_the_same;
        let mut lacking = on([&[1, 2], &[1, 2], &[], &[1]]).lost_disk(3, 1);
        lacking.fails(check);
        lacking.history.lost_disks[0].loss = Loss::Bits;
        lacking.fails(check);
        let left = lacking.history.surveys.last_mut().expect("node 3's");
        left.damage.push("a block does not check out".into());
        lacking.passes(check);
    }
}
