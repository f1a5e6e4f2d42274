//! G5: if one add was acknowledged before another was sent, it comes first in every list that has both.

use std::collections::{BTreeMap, BTreeSet};

use super::tries::TRY_US_MAX;
use super::{Add, Case, Judged, name, texts_of};
use crate::cluster::history::{Call, Level, TextId};

/// - in a list, no text stands before one that was acknowledged at quorum before it was sent, be that one answered or not (both at quorum or
///   more: at one, nobody asks what others have);
/// - adds of one batch that was acknowledged at quorum stand in the batch's order;
/// - all lists of a key, of all replicas and at all times, agree on one order of what was acknowledged at quorum before they were read, and
///   has no second try under way: of two, the earlier one counts in the end (docs/limits.md, "Order").
///
/// What may have been tried twice is held to all this where a quorum is asked, which has the try that was acknowledged, and in the lists that the replicas
/// end with. At one, a replica that has only the later try shows the add at that one's place, behind what was added meanwhile.
pub fn order(judged: &Judged) -> Result<(), String> {
    for (case, read) in judged.reads_and_pages() {
        in_real_time(case, read)?;
        within_batches(case, read)?;
    }
    judged.places.values().try_for_each(in_one_order)
}

fn in_real_time(case: &Case, read: &Call) -> Result<(), String> {
    let texts: Vec<TextId> = texts_of(read).collect();
    // From the back: what was acknowledged first among all that come later.
    let mut first: Option<(u64, TextId)> = None;
    for text in texts.into_iter().rev() {
        let Some(add) = case.add(text) else { continue };
        if let Some((acked_us, later)) = first
            && acked_us < add.write.began_us
            && add.write.level >= Level::Quorum
        {
            return Err(format!(
                "{} has {text} before {later}, which was acknowledged before {text} was sent",
                name(read)
            ));
        }
        if let Some(acked_us) = add.write.acked_at_quorum_us()
            && !may_stand_later(add, read)
            && first.is_none_or(|(first_us, _)| acked_us < first_us)
        {
            first = Some((acked_us, text));
        }
    }
    Ok(())
}

fn within_batches(case: &Case, read: &Call) -> Result<(), String> {
    let mut reached: BTreeMap<u64, usize> = BTreeMap::new();
    for add in texts_of(read).filter_map(|text| case.add(text)) {
        let Some((batch, at)) = add.write.batch else { continue };
        if add.write.acked_at_quorum_us().is_none() || may_stand_later(add, read) {
            continue;
        }
        let before = reached.insert(batch, at);
        if before.is_some_and(|before| before > at) {
            return Err(format!("{} has the adds of batch {batch} in another order", name(read)));
        }
    }
    Ok(())
}

/// Whether the read may show the add where a try put it that does not count in the end.
fn may_stand_later(add: &Add, read: &Call) -> bool {
    !add.is_one_try && !read.is_quorum() && !read.is_last
}

/// From when on the add has its place for good.
fn settled_us(add: &Add) -> Option<u64> {
    let acked_us = add.write.acked_at_quorum_us()?;
    match add.is_one_try {
        true => Some(acked_us),
        false => Some(acked_us.max(add.write.tried_until_us + TRY_US_MAX)),
    }
}

/// Lists agree on one order exactly if the relation "stands right before" of all of them together has no circle.
fn in_one_order(case: &Case) -> Result<(), String> {
    let mut after: BTreeMap<TextId, BTreeSet<TextId>> = BTreeMap::new();
    let mut before: BTreeMap<TextId, usize> = BTreeMap::new();
    for read in case.reads_and_pages() {
        let is_settled = |text: &TextId| {
            let settled = |add: &Add| settled_us(add).is_some_and(|settled_us| settled_us <= read.began_us);
            case.add(*text)
                .is_some_and(|add| settled(add) && !may_stand_later(add, read))
        };
        let texts: Vec<TextId> = texts_of(read).filter(is_settled).collect();
        for pair in texts.windows(2) {
            if after.entry(pair[0]).or_default().insert(pair[1]) {
                *before.entry(pair[1]).or_default() += 1;
            }
        }
        before.extend(
            texts
                .iter()
                .filter(|text| !before.contains_key(text))
                .map(|text| (*text, 0))
                .collect::<Vec<_>>(),
        );
    }
    let mut free: Vec<TextId> = before
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(text, _)| *text)
        .collect();
    let mut left = before.len();
    while let Some(text) = free.pop() {
        left -= 1;
        for next in after.get(&text).into_iter().flatten() {
            if let Some(count) = before.get_mut(next) {
                *count -= 1;
                if *count == 0 {
                    free.push(*next);
                }
            }
        }
    }
    if left == 0 {
        return Ok(());
    }
    let circle: Vec<&TextId> = before
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(text, _)| text)
        .take(10)
        .collect();
    let place = case.reads.first().map(|read| read.place);
    Err(format!("the lists of {place:?} do not agree on an order of {circle:?}"))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, sample};
    use super::super::tries::SECOND_TRY_US;
    use super::*;
    use crate::cluster::history::ANY_NODE;

    #[test]
    fn the_order_of_acknowledgement_is_kept() {
        let two = || sample().add(1, 0, 1).add(2, 2, 3);
        two().get(&[&[1], &[2]], 4, 5).passes(order);
        two().get(&[&[2], &[1]], 4, 5).fails(order);
    }

    #[test]
    fn pages_are_held_to_the_same_order() {
        let two = || sample().add(1, 0, 3).add(2, 2, 5).add(3, 6, 7);
        two().page((0, 2), &[&[3], &[1]], 8, 9).fails(order);
        let pages = || two().page((0, 2), &[&[1], &[2]], 8, 9);
        pages().page((0, 2), &[&[1], &[2]], 8, 9).passes(order);
        pages().page((0, 2), &[&[2], &[1]], 8, 9).fails(order);
        pages().get(&[&[2], &[1], &[3]], 8, 9).fails(order);
    }

    #[test]
    fn what_overlaps_may_come_in_either_order_but_in_one() {
        let two = || sample().add(1, 0, 3).add(2, 2, 5);
        two().get(&[&[1], &[2]], 6, 7).passes(order);
        two().get(&[&[2], &[1]], 6, 7).passes(order);
        two().get(&[&[2], &[1]], 6, 7).get(&[&[1], &[2]], 6, 7).fails(order);
    }

    #[test]
    fn an_add_that_was_asked_of_a_second_replica_may_move_while_the_first_is_at_work() {
        let (slow, late) = (SECOND_TRY_US, TRY_US_MAX);
        let two = || sample().add(1, 0, slow).add(2, 1, 2);
        let moved = |from: u64| {
            two()
                .get(&[&[2], &[1]], from, from + 1)
                .get(&[&[1], &[2]], late + 2, late + 3)
        };
        moved(slow + 1).passes(order);
        moved(late).fails(order);
    }

    #[test]
    fn an_add_by_a_client_that_asks_several_nodes_may_move_while_any_of_them_is_at_work() {
        let two = || sample().add(1, 0, 9).with(|call| call.node = ANY_NODE).add(2, 1, 2);
        let moved = |from: u64| {
            let late = TRY_US_MAX + 20;
            two()
                .get(&[&[2], &[1]], from, from + 1)
                .get(&[&[1], &[2]], late, late + 1)
        };
        moved(TRY_US_MAX + 8).passes(order);
        moved(TRY_US_MAX + 9).fails(order);
    }

    /// The later of two tries, stamped after what was sent once the earlier one was acknowledged.
    #[test]
    fn at_one_an_add_that_was_tried_twice_may_stand_where_its_later_try_is() {
        let slow = SECOND_TRY_US;
        let two = |acked: u64| sample().add(1, 0, acked).add(2, acked + 1, acked + 2);
        let read = |acked: u64| two(acked).get(&[&[2], &[1]], acked + 3, acked + 4);
        let at_one = |sample: Sample| sample.at(Level::One);
        at_one(read(slow)).passes(order);
        at_one(read(slow - 1)).fails(order);
        read(slow).fails(order);
        read(slow).at(Level::All).fails(order);
        read(slow).last_on(4).fails(order);
        at_one(two(slow).page((0, 2), &[&[2], &[1]], slow + 3, slow + 4)).passes(order);
        at_one(two(1).page((0, 2), &[&[2], &[1]], 4, 5)).fails(order);
        // What was sent later has no try that is earlier than that.
        let other_slow = sample().add(1, 0, 1).add(2, 2, 2 + slow);
        at_one(other_slow.get(&[&[2], &[1]], slow + 3, slow + 4)).fails(order);
        // Sent again by its client, or by a node that lost a connection.
        let again = sample().add(1, 0, 1).unanswered().add(1, 1, 2).again().add(2, 3, 4);
        at_one(again.get(&[&[2], &[1]], 5, 6)).passes(order);
        let mut cut = at_one(read(1));
        cut.history.cuts_us.push(0);
        cut.passes(order);
        at_one(read(1).trouble(0, 0, 1)).passes(order);
    }

    #[test]
    fn at_one_what_was_tried_twice_is_in_no_order_of_lists_and_batches_before_the_end() {
        let (slow, late) = (SECOND_TRY_US, 2 * TRY_US_MAX);
        let two = || sample().add(1, 0, slow).add(2, 1, 2);
        let both = |level| {
            let ordered = two().get(&[&[1], &[2]], late, late + 1);
            ordered.get(&[&[2], &[1]], late, late + 1).at(level)
        };
        both(Level::One).passes(order);
        both(Level::Quorum).fails(order);
        both(Level::One).with(|call| call.is_last = true).fails(order);
        let batch = |acked: u64| {
            let first = sample().add(1, 0, acked).with(|call| call.batch = Some((7, 0)));
            let both = first.add(2, 0, acked).with(|call| call.batch = Some((7, 1)));
            both.get(&[&[2], &[1]], acked + 1, acked + 2)
        };
        batch(slow).at(Level::One).passes(order);
        batch(slow - 1).at(Level::One).fails(order);
        batch(slow).fails(order);
    }

    #[test]
    fn three_lists_that_go_in_a_circle_are_found() {
        let three = sample().add(1, 0, 9).add(2, 0, 9).add(3, 0, 9);
        let circle = three
            .get(&[&[1], &[2]], 10, 11)
            .get(&[&[2], &[3]], 10, 11)
            .get(&[&[3], &[1]], 10, 11);
        circle.fails(order);
    }

    #[test]
    fn an_add_at_one_promises_no_order() {
        let two = || sample().add(1, 0, 1).add(2, 2, 3).at(Level::One);
        two().get(&[&[2], &[1]], 4, 5).passes(order);
    }

    #[test]
    fn an_unanswered_add_may_stand_anywhere_after_it_was_sent() {
        let two = || sample().add(1, 0, 1).unanswered().add(2, 2, 3);
        two().get(&[&[2], &[1]], 4, 5).passes(order);
        let second = || sample().add(1, 0, 1).add(2, 2, 3).unanswered();
        second().get(&[&[1], &[2]], 4, 5).passes(order);
        second().get(&[&[2], &[1]], 4, 5).fails(order);
        let at_one = sample().add(1, 0, 1).add(2, 2, 3).unanswered().at(Level::One);
        at_one.get(&[&[2], &[1]], 4, 5).passes(order);
    }

    #[test]
    fn a_batch_keeps_its_order() {
        let batch = |at| move |call: &mut Call| call.batch = Some((7, at));
        let two = || sample().add(1, 0, 1).with(batch(0)).add(2, 0, 1).with(batch(1));
        two().get(&[&[1], &[2]], 4, 5).passes(order);
        two().get(&[&[2], &[1]], 4, 5).fails(order);
        let at_one = |call: &mut Call| call.level = Level::One;
        let (first, second) = (batch(0), batch(1));
        sample()
            .add(1, 0, 1)
            .with(first)
            .with(at_one)
            .add(2, 0, 1)
            .with(second)
            .with(at_one)
            .get(&[&[2], &[1]], 4, 5)
            .passes(order);
    }
}
