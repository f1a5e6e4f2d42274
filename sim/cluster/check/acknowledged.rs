//! G1: what is acknowledged is on stable storage, on as many replicas as its level says; and G4, what a quorum read returned is on a quorum,
//! and what any read returned on some replica.

use std::collections::{BTreeMap, BTreeSet};

use super::{Add, Judged};
use crate::cluster::history::{History, Level, Loss, Survey, TextId};

/// In every survey, of every add that was acknowledged before it, or returned by a read, and that no clear may have covered yet: the
/// disks that hold it are at least as many as its level asks for (a quorum, if a quorum read returned it; one, if another read did). And of every add that is gone
/// for certain, at most as many disks show it as the quorum that cleared it leaves. Disks that lost what they held since the add began,
/// or have flipped bits, count for and not against it; one that was emptied only until its node says that it is whole again and votes, for it
/// must have copied by then what more than one replica had acknowledged.
pub fn what_is_acknowledged_is_durable(judged: &Judged) -> Result<(), String> {
    let surveys = &judged.history.surveys;
    for round in surveys.chunk_by(|one, other| one.at_us == other.at_us) {
        check_round(judged, round)?;
    }
    Ok(())
}

/// On which nodes a text lies, and on which it shows.
#[derive(Default)]
struct Held {
    on: BTreeSet<u8>,
    stands_on: BTreeSet<u8>,
}

fn check_round(judged: &Judged, round: &[Survey]) -> Result<(), String> {
    let Some(at_us) = round.first().map(|survey| survey.at_us) else {
        return Ok(());
    };
    let mut texts: BTreeMap<TextId, Held> = BTreeMap::new();
    for survey in round {
        for op in &survey.ops {
            if let Some(text) = op.text {
                let held = texts.entry(text).or_default();
                held.on.insert(survey.node);
                held.stands_on.extend(op.stands.then_some(survey.node));
            }
        }
    }
    let nowhere = Held::default();
    for add in judged.places.values().flat_map(|case| &case.adds) {
        let held = texts.get(&add.text).unwrap_or(&nowhere);
        let lost = lost_disks(judged.history, add.write.began_us, at_us);
        let not_whole = not_whole(&lost, round);
        check_add(judged.history.replicas, add, at_us, held, lost.len(), not_whole)?;
    }
    Ok(())
}

fn check_add(replicas: usize, add: &Add, at_us: u64, held: &Held, lost: usize, not_whole: usize) -> Result<(), String> {
    let quorum = Level::Quorum.needed(replicas);
    let acked = add.write.acked_us.filter(|acked_us| *acked_us <= at_us);
    let acked = acked.map_or(0, |_| add.write.level.needed(replicas));
    let known = add.known_us.filter(|known_us| *known_us <= at_us).map_or(0, |_| quorum);
    let shown = add.shown_us.filter(|shown_us| *shown_us <= at_us).map_or(0, |_| 1);
    let needed = acked.max(known).max(shown);
    let excused = if needed > 1 { not_whole } else { lost };
    if add.is_safe_at(at_us) && held.on.len() + excused < needed {
        return Err(format!(
            "text {} of {:?}, acknowledged at {} at {:?} µs, known at {:?} µs, shown at {:?} µs, is durable on {:?} alone at {at_us} µs, of {replicas} replicas",
            add.text,
            add.write.place,
            add.write.level.name(),
            add.write.acked_us,
            add.known_us,
            add.shown_us,
            held.on
        ));
    }
    let is_gone = add.gone_us.is_some_and(|gone_us| gone_us <= at_us);
    if is_gone && held.stands_on.len() > replicas - quorum + lost {
        return Err(format!(
            "text {} of {:?}, cleared at a quorum by {:?} µs, still stands on {:?} at {at_us} µs, of {replicas} replicas",
            add.text, add.write.place, add.gone_us, held.stands_on
        ));
    }
    Ok(())
}

/// How many of these do not vote again after they were emptied.
pub(super) fn not_whole(lost: &BTreeMap<u8, bool>, round: &[Survey]) -> usize {
    let not_whole = lost.iter().filter(|(node, emptied)| {
        let is_whole = |survey: &Survey| survey.node == **node && survey.is_whole;
        !**emptied || !round.iter().any(is_whole)
    });
    not_whole.count()
}

/// The nodes whose disks may have lost what came after `since_us`, and whether all that befell them is that they were emptied.
pub(super) fn lost_disks(history: &History, since_us: u64, at_us: u64) -> BTreeMap<u8, bool> {
    let lost = history
        .lost_disks
        .iter()
        .filter(|lost| lost.at_us <= at_us && (lost.loss == Loss::Bits || lost.at_us >= since_us));
    lost.fold(BTreeMap::new(), |mut nodes, lost| {
        *nodes.entry(lost.node).or_insert(true) &= lost.loss == Loss::All;
        nodes
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn an_acknowledged_add_is_on_as_many_disks_as_its_level_says() {
        let check = what_is_acknowledged_is_durable;
        let held_by_one = || {
            sample()
                .add(1, 0, 1)
                .survey(0, 2, &[1])
                .survey(1, 2, &[])
                .survey(2, 2, &[])
        };
        let held_by_two = || {
            sample()
                .add(1, 0, 1)
                .survey(0, 2, &[1])
                .survey(1, 2, &[1])
                .survey(2, 2, &[])
        };
        held_by_one().fails(check);
        held_by_two().passes(check);
        let at = |level, held: &[u8]| {
            let mut sample = sample().add(1, 0, 1).at(level);
            for node in 0..3 {
                sample = sample.survey(node, 2, if held.contains(&node) { &[1] } else { &[] });
            }
            sample
        };
        at(Level::One, &[2]).passes(check);
        at(Level::One, &[]).fails(check);
        at(Level::All, &[0, 1]).fails(check);
        at(Level::All, &[0, 1, 2]).passes(check);
    }

    #[test]
    fn what_is_not_acknowledged_yet_or_may_be_cleared_may_be_missing() {
        let check = what_is_acknowledged_is_durable;
        sample().add(1, 0, 3).survey(0, 2, &[]).passes(check);
        sample().add(1, 0, 1).unanswered().survey(0, 2, &[]).passes(check);
        let cleared = sample().add(1, 0, 1).clear(1, 4).unanswered();
        cleared.survey(0, 2, &[]).passes(check);
    }

    #[test]
    fn what_a_quorum_read_returned_is_on_a_quorum() {
        let check = what_is_acknowledged_is_durable;
        let read = || sample().add(1, 0, 1).unanswered().get(&[&[1]], 2, 3);
        read().survey(0, 4, &[1]).survey(1, 4, &[]).fails(check);
        read().survey(0, 4, &[1]).survey(1, 4, &[1]).passes(check);
        read().at(Level::One).survey(0, 4, &[1]).passes(check);
    }

    #[test]
    fn what_any_read_returned_is_on_some_disk() {
        let check = what_is_acknowledged_is_durable;
        let added = sample().add(1, 0, 1).unanswered();
        let read = added
            .get(&[&[1]], 2, 4)
            .at(Level::One)
            .survey(0, 3, &[])
            .survey(1, 3, &[]);
        read.passes(check);
        read.survey(0, 5, &[]).survey(1, 5, &[]).fails(check);
    }

    #[test]
    fn a_lost_disk_counts_for_and_not_against() {
        let check = what_is_acknowledged_is_durable;
        let held_by_one = || sample().add(1, 2, 3).survey(0, 5, &[1]).survey(1, 5, &[]);
        held_by_one().lost_disk(1, 4).passes(check);
        held_by_one().lost_disk(1, 1).fails(check);
        held_by_one().lost_disk(1, 6).fails(check);
    }

    #[test]
    fn a_lost_disk_counts_only_until_its_node_votes_again() {
        let check = what_is_acknowledged_is_durable;
        let emptied = |level| sample().add(1, 2, 3).at(level).lost_disk(1, 4).survey(0, 5, &[1]);
        emptied(Level::Quorum).survey(1, 5, &[]).passes(check);
        emptied(Level::Quorum).survey(1, 5, &[]).whole().fails(check);
        emptied(Level::Quorum).survey(1, 5, &[1]).whole().passes(check);
        let by_nobody = sample().add(1, 2, 3).at(Level::One).lost_disk(1, 4);
        by_nobody.survey(1, 5, &[]).whole().passes(check);
        let mut older = emptied(Level::Quorum).survey(1, 5, &[]).whole();
        older.history.lost_disks[0].loss = Loss::Newer;
        older.passes(check);
    }

    #[test]
    fn what_is_cleared_at_a_quorum_stands_on_no_other_one() {
        let check = what_is_acknowledged_is_durable;
        let cleared = || sample().add(1, 0, 1).clear(2, 3).survey(0, 4, &[1]);
        cleared().survey(1, 4, &[]).passes(check);
        cleared().survey(1, 4, &[1]).fails(check);
    }
}
