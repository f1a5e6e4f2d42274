//! G7: a value is made of exactly the parts that were acknowledged before it and not used or cleared since.

use super::{Judged, name, texts_of};

/// In a list, for every text that finishes a value: each part that was acknowledged at quorum before this text was sent, and that no
/// clear may have covered, is in the list. (That it is in no later value is G5, that it is in no two is G6, and that nothing follows the
/// text that finishes a value is the form of a value.) A part in flight while its value is finished may go either way.
pub fn parts(judged: &Judged) -> Result<(), String> {
    for (case, read) in judged.reads().filter(|(_, read)| read.is_quorum() || read.is_last) {
        let finished_us = texts_of(read)
            .filter_map(|text| case.add(text))
            .filter(|add| add.write.finish && add.write.acked_at_quorum_us().is_some())
            .map(|add| add.write.began_us)
            .max();
        let Some(finished_us) = finished_us else { continue };
        let seen: std::collections::BTreeSet<_> = texts_of(read).collect();
        let missing = case.adds.iter().find(|add| {
            !add.write.finish
                && add.acked_at_quorum_before(finished_us)
                && add.is_safe_at(read.ended_us)
                && !seen.contains(&add.text)
        });
        if let Some(part) = missing {
            return Err(format!(
                "{} lacks part {}, acknowledged before a value in it was finished",
                name(read),
                part.text
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
    fn a_part_that_was_acknowledged_before_is_in_the_value() {
        let both = || sample().part(1, 0, 1).add(2, 2, 3);
        both().get(&[&[1, 2]], 4, 5).passes(parts);
        both().get(&[&[2]], 4, 5).fails(parts);
    }

    #[test]
    fn a_part_in_flight_may_go_either_way() {
        let both = || sample().part(1, 0, 3).add(2, 2, 5);
        both().get(&[&[1, 2]], 6, 7).passes(parts);
        both().get(&[&[2]], 6, 7).passes(parts);
    }

    #[test]
    fn a_part_that_may_have_been_cleared_may_be_missing() {
        let cleared = sample().part(1, 0, 1).clear(0, 2).unanswered().add(2, 3, 4);
        cleared.get(&[&[2]], 5, 6).passes(parts);
        let before = sample().clear(0, 1).part(1, 2, 3).add(2, 4, 5);
        before.get(&[&[2]], 6, 7).fails(parts);
    }
}
