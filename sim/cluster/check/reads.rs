//! G4 and G8: what a quorum read shows, and what it must not show any more.

use std::collections::BTreeSet;

use super::{Add, Case, Judged, name, texts_of};
use crate::cluster::history::{Answer, Call, Place, What};

/// G4: a quorum read shows every value whose last text was known before it began, unless a clear that began before it ended may
/// have covered it. A count is no smaller than what must be there and no larger than what may be, and neither is what a page says of it; a
/// listing names every key that must have a value, between where it begins and where the next page does.
pub fn what_is_acknowledged_is_seen(judged: &Judged) -> Result<(), String> {
    for (case, read) in judged.reads().filter(|(_, read)| read.is_quorum()) {
        let seen: BTreeSet<_> = texts_of(read).collect();
        if let Some(add) = must_be_seen(case, read).find(|add| !seen.contains(&add.text)) {
            return Err(format!(
                "{} lacks {}, known since {:?} µs",
                name(read),
                add.text,
                add.known_us
            ));
        }
    }
    for call in judged.history.calls.iter().filter(|call| call.is_quorum()) {
        match call.answer() {
            Some(Answer::Count(count)) => check_count(judged, call, *count)?,
            Some(Answer::Keys { keys, next }) => check_keys(judged, call, keys, *next)?,
            _ => {}
        }
    }
    let mut quorum = judged.reads_and_pages().filter(|(_, read)| read.is_quorum());
    quorum.try_for_each(|(case, read)| check_page(case, read))
}

/// A page that is not full ends the list, so it says how long this is; at the front, it is the list.
fn check_page(case: &Case, page: &Call) -> Result<(), String> {
    let What::Page { offset, limit } = page.what else {
        return Ok(());
    };
    let (least, most) = bounds(case, page);
    let len = page.values().len() as u64;
    let is_too_short = len < limit && offset + len < least;
    let is_too_long = len > 0 && offset + len > most;
    if is_too_short || is_too_long {
        return Err(format!(
            "{} has {len} values, of {least} to {most} in the list",
            name(page)
        ));
    }
    let seen: BTreeSet<_> = texts_of(page).collect();
    let lacking = must_be_seen(case, page).find(|add| offset == 0 && len < limit && !seen.contains(&add.text));
    match lacking {
        Some(add) => Err(format!(
            "{} lacks {}, known since {:?} µs",
            name(page),
            add.text,
            add.known_us
        )),
        None => Ok(()),
    }
}

fn must_be_seen<'c>(case: &'c Case, read: &Call) -> impl Iterator<Item = &'c Add> {
    let (began_us, ended_us) = (read.began_us, read.ended_us);
    let known = move |add: &&Add| add.write.finish && add.known_us.is_some_and(|known| known < began_us);
    case.adds
        .iter()
        .filter(known)
        .filter(move |add| add.is_safe_at(ended_us))
}

fn check_count(judged: &Judged, call: &Call, count: u64) -> Result<(), String> {
    let Some(case) = judged.places.get(&call.place) else {
        return if count == 0 {
            Ok(())
        } else {
            Err(format!("{} is {count}", name(call)))
        };
    };
    let (least, most) = bounds(case, call);
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(format!("{} is {count}, not {least} to {most}", name(call)))
}

/// How many values there must be, and may be, while the call is at work.
fn bounds(case: &Case, call: &Call) -> (u64, u64) {
    let least = must_be_seen(case, call).count() as u64;
    let may = |add: &&Add| {
        add.write.finish
            && add.write.possible
            && add.write.began_us < call.ended_us
            && add.gone_us.is_none_or(|gone| gone >= call.began_us)
    };
    let most = case.adds.iter().filter(may).count() as u64;
    (least, most)
}

fn check_keys(judged: &Judged, call: &Call, keys: &[u8], next: Option<u8>) -> Result<(), String> {
    let What::List(listing) = call.what else {
        return Ok(());
    };
    let of_user = judged.places.iter().filter(|(place, _)| place.user == call.place.user);
    for (Place { key, .. }, case) in of_user {
        if listing.asks_for(*key, next)
            && !keys.contains(key)
            && let Some(add) = must_be_seen(case, call).next()
        {
            return Err(format!("{} lacks key {key}, which holds {}", name(call), add.text));
        }
    }
    Ok(())
}

/// G8: what a clear covered is in no quorum read that began after the clear was acknowledged, and in no list that the replicas
/// end with; and a value that was known, and then missing from a quorum read, is in none that began later.
pub fn what_was_cleared_stays_cleared(judged: &Judged) -> Result<(), String> {
    for case in judged.places.values() {
        let quorum: Vec<&&Call> = case.reads.iter().filter(|read| read.is_quorum()).collect();
        let lists: Vec<BTreeSet<_>> = quorum.iter().map(|read| texts_of(read).collect()).collect();
        for add in case.adds.iter().filter(|add| add.known_us.is_some()) {
            let missing_us = quorum
                .iter()
                .zip(&lists)
                .filter(|(read, list)| {
                    add.write.finish
                        && add.known_us.is_some_and(|known| known < read.began_us)
                        && !list.contains(&add.text)
                })
                .map(|(read, _)| read.ended_us)
                .min();
            let gone_us = [add.gone_us, missing_us].into_iter().flatten().min();
            let Some(gone_us) = gone_us else { continue };
            let shown = case.reads_and_pages().find(|read| {
                (read.is_quorum() || read.is_last)
                    && read.began_us > gone_us
                    && texts_of(read).any(|text| text == add.text)
            });
            if let Some(read) = shown {
                return Err(format!(
                    "{} shows {} again, gone since {gone_us} µs",
                    name(read),
                    add.text
                ));
            }
        }
    }
    debug_assert!(
        judged
            .history
            .calls
            .iter()
            .all(|call| call.what != What::Clear || call.list().is_none())
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;
    use crate::cluster::history::Level;
    use crate::cluster::listing::Listing;
    use crate::cluster::plan::SECOND_US;

    #[test]
    fn an_acknowledged_add_is_seen_by_every_later_quorum_read() {
        let check = what_is_acknowledged_is_seen;
        sample().add(1, 0, 1).get(&[&[1]], 2, 3).passes(check);
        sample().add(1, 0, 1).get(&[], 2, 3).fails(check);
        sample().add(1, 0, 3).get(&[], 2, 4).passes(check);
        sample().add(1, 0, 1).get(&[], 2, 3).at(Level::One).passes(check);
        sample().add(1, 0, 1).at(Level::One).get(&[], 2, 3).passes(check);
        sample().add(1, 0, 1).unanswered().get(&[], 2, 3).passes(check);
    }

    #[test]
    fn what_one_quorum_read_returned_the_next_returns_too() {
        let check = what_is_acknowledged_is_seen;
        let seen = || sample().add(1, 0, 1).unanswered().get(&[&[1]], 2, 3);
        seen().get(&[], 4, 5).fails(check);
        seen().get(&[], 2, 5).passes(check);
        seen().clear(4, 5).unanswered().get(&[], 4, 6).passes(check);
    }

    #[test]
    fn a_clear_without_an_answer_may_cover_what_is_added_soon_after_and_nothing_later() {
        let check = what_is_acknowledged_is_seen;
        const S: u64 = SECOND_US;
        let lacks = |added: u64| {
            let cleared = sample().clear(0, S).unanswered();
            cleared.add(1, added, added + 1).get(&[], added + 2, added + 3)
        };
        lacks(12 * S).passes(check);
        lacks(14 * S).fails(check);
        lacks(14 * S).trouble(7, 5 * S, 7 * S).passes(check);
        lacks(16 * S).trouble(7, 5 * S, 7 * S).fails(check);
        let mut quick = lacks(5 * S);
        quick.passes(check);
        quick.history.calls[0].deadline_ms = 1_000;
        quick.fails(check);
        quick.history.calls[0].batch = Some((0, 0));
        quick.passes(check);
    }

    #[test]
    fn a_retry_that_was_acknowledged_counts() {
        let check = what_is_acknowledged_is_seen;
        let retried = sample().add(1, 0, 1).unanswered().add(1, 2, 3).again();
        retried.get(&[], 4, 5).fails(check);
    }

    #[test]
    fn a_count_and_a_listing_are_held_to_the_same() {
        let check = what_is_acknowledged_is_seen;
        let added = || sample().add(1, 0, 1).add(2, 0, 1).unanswered();
        added().count(1, 2, 3).passes(check);
        added().count(2, 2, 3).passes(check);
        added().count(0, 2, 3).fails(check);
        added().count(3, 2, 3).fails(check);
        added().clear(2, 3).count(0, 4, 5).passes(check);
        added().clear(2, 3).count(2, 4, 5).fails(check);
        added().list(&[0], 2, 3).passes(check);
        added().list(&[], 2, 3).fails(check);
    }

    #[test]
    fn a_page_is_held_to_what_it_says_of_the_list() {
        let check = what_is_acknowledged_is_seen;
        let added = || sample().add(1, 0, 1).add(2, 0, 1).add(3, 0, 1).unanswered();
        added().page((0, 3), &[&[1], &[2]], 2, 3).passes(check);
        added().page((0, 2), &[&[1], &[2]], 2, 3).passes(check);
        added().page((0, 2), &[&[1]], 2, 3).fails(check);
        added().page((0, 3), &[&[1], &[3]], 2, 3).fails(check);
        added().page((0, 3), &[&[1], &[3]], 2, 3).at(Level::One).passes(check);
        added().page((2, 3), &[], 2, 3).passes(check);
        added().page((1, 3), &[], 2, 3).fails(check);
        added().page((1, 3), &[&[1], &[2]], 2, 3).passes(check);
        added().page((2, 2), &[&[1], &[2]], 2, 3).fails(check);
    }

    #[test]
    fn a_page_of_a_listing_is_held_to_its_range() {
        let check = what_is_acknowledged_is_seen;
        let listing = |keys: &[u8], after, next| {
            let page = Listing {
                after,
                limit: Some(2),
                ..Listing::default()
            };
            let mut sample = sample();
            for key in [1, 2, 10] {
                sample = sample.add(key.into(), 0, 1).with(|call| call.place.key = key);
            }
            sample.list_page(page, keys, next, 2, 3)
        };
        listing(&[1, 10], None, Some(10)).passes(check);
        listing(&[1, 10], None, None).fails(check);
        listing(&[1, 2], None, Some(2)).fails(check);
        listing(&[2], Some(10), None).passes(check);
        listing(&[], Some(1), Some(10)).fails(check);
        let of_names = |keys: &[u8]| {
            let page = Listing {
                prefix: Some(1),
                ..Listing::default()
            };
            let sample = sample().add(2, 0, 1).with(|call| call.place.key = 2);
            let sample = sample.add(10, 0, 1).with(|call| call.place.key = 10);
            sample.list_page(page, keys, None, 2, 3)
        };
        of_names(&[10]).passes(check);
        of_names(&[]).fails(check);
    }

    #[test]
    fn what_was_cleared_does_not_come_back() {
        let check = what_was_cleared_stays_cleared;
        let cleared = || sample().add(1, 0, 1).clear(2, 3);
        cleared().get(&[], 4, 5).passes(check);
        cleared().get(&[&[1]], 4, 5).fails(check);
        cleared().get(&[&[1]], 2, 5).passes(check);
        cleared().get(&[&[1]], 4, 5).last_on(1).fails(check);
        cleared().get(&[&[1]], 4, 5).at(Level::One).passes(check);
        cleared().page((0, 1), &[&[1]], 4, 5).fails(check);
        cleared().page((0, 1), &[&[1]], 2, 5).passes(check);
    }

    #[test]
    fn an_add_that_the_clear_did_not_see_survives_it() {
        let check = what_was_cleared_stays_cleared;
        sample().add(1, 0, 3).clear(2, 4).get(&[&[1]], 5, 6).passes(check);
    }

    #[test]
    fn what_was_missing_once_stays_missing() {
        let check = what_was_cleared_stays_cleared;
        let doubtful = || sample().add(1, 0, 1).clear(2, 3).unanswered().get(&[], 4, 5);
        doubtful().passes(check);
        doubtful().get(&[&[1]], 6, 7).fails(check);
    }

    #[test]
    fn what_was_on_its_way_while_an_hour_passed_may_count_as_new() {
        let check = what_was_cleared_stays_cleared;
        // Acknowledged, cleared, and then sent again; that one is answered late.
        let sent_again = |hour_us: Option<u64>| {
            let added = sample().add(1, 0, 10).with(|call| call.with_id = true);
            let again = added.add(1, 30, 50).again().with(|call| call.with_id = true);
            let mut sample = again.clear(20, 25).get(&[&[1]], 60, 61);
            sample.history.hours_us.extend(hour_us);
            sample
        };
        sent_again(None).fails(check);
        sent_again(Some(40)).passes(check);
        sent_again(Some(55)).fails(check);
    }
}
