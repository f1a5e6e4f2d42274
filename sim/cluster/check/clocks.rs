//! What a disk holds or knows to be dropped only grows, and a loss of power is no damage.

use std::collections::BTreeMap;

use super::Judged;
use crate::cluster::history::{History, Loss, Survey};

/// A disk's clock covers that of each earlier survey of it, unless the disk was emptied, put back or damaged in between.
pub fn clocks_only_grow(judged: &Judged) -> Result<(), String> {
    let mut before: BTreeMap<u8, &Survey> = BTreeMap::new();
    for survey in &judged.history.surveys {
        let Some(earlier) = before.insert(survey.node, survey) else {
            continue;
        };
        let lost = judged.history.lost_disks.iter().any(|lost| {
            lost.node == survey.node
                && lost.at_us <= survey.at_us
                && (lost.loss == Loss::Bits || lost.at_us >= earlier.at_us)
        });
        if !lost && !survey.clocks.covers(&earlier.clocks) {
            return Err(format!(
                "the disk of node {} covers less at {} µs than at {} µs: {:?} is gone",
                survey.node,
                survey.at_us,
                earlier.at_us,
                earlier.clocks.minus(&survey.clocks)
            ));
        }
    }
    Ok(())
}

/// On a disk whose bits were not flipped, a power loss leaves nothing that looks damaged.
pub fn nothing_looks_damaged_that_is_not(judged: &Judged) -> Result<(), String> {
    let whole = judged
        .history
        .surveys
        .iter()
        .filter(|survey| !is_flipped(judged.history, survey));
    match whole.into_iter().find(|survey| !survey.damage.is_empty()) {
        Some(survey) => Err(format!(
            "node {} at {} µs: {:?}",
            survey.node, survey.at_us, survey.damage
        )),
        None => Ok(()),
    }
}

fn is_flipped(history: &History, survey: &Survey) -> bool {
    let mut lost = history.lost_disks.iter();
    lost.any(|lost| lost.loss == Loss::Bits && lost.node == survey.node && lost.at_us <= survey.at_us)
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn a_clock_that_shrinks_is_found_unless_the_disk_was_lost() {
        let check = clocks_only_grow;
        let clocks = |first, second| sample().survey_of_clock(0, 1, first).survey_of_clock(0, 3, second);
        clocks(5, 5).passes(check);
        clocks(5, 9).passes(check);
        clocks(5, 4).fails(check);
        clocks(5, 4).lost_disk(0, 2).passes(check);
        clocks(5, 4).lost_disk(1, 2).fails(check);
        clocks(5, 4).lost_disk(0, 9).fails(check);
    }

    #[test]
    fn damage_is_found_where_none_was_done() {
        let check = nothing_looks_damaged_that_is_not;
        let damaged = || {
            let mut sample = sample().survey(0, 3, &[]);
            sample.history.surveys[0].damage.push("torn".to_owned());
            sample
        };
        sample().survey(0, 3, &[]).passes(check);
        damaged().fails(check);
        damaged().lost_disk(0, 2).fails(check);
        let mut flipped = damaged().lost_disk(0, 2);
        flipped.history.lost_disks[0].loss = Loss::Bits;
        flipped.passes(check);
    }
}
