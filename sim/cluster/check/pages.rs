//! Whatever way a list is read, it is the same list.

use super::{Case, Judged, name};
use crate::cluster::history::{Answer, Call, Place, Value, What};
use crate::cluster::listing::Listing;

/// When nothing changes any more, a page is its piece of the list that a quorum read gave before, a count is its length, and a listing names, from the key
/// that it begins behind to the one that the next page begins behind, exactly the keys whose lists have values.
pub fn all_ways_to_read_agree(judged: &Judged) -> Result<(), String> {
    let Some(settled_us) = judged.history.settled_us else {
        return Ok(());
    };
    let nothing = Case::default();
    for call in judged.history.calls.iter().filter(|call| call.is_last) {
        let case = judged.places.get(&call.place).unwrap_or(&nothing);
        let list = || list_before(case, settled_us, call);
        let expected = match (&call.what, call.answer()) {
            (What::Page { offset, limit }, Some(Answer::Values(values))) => list()
                .map(|list| piece(list, *offset, *limit))
                .is_none_or(|piece| piece == *values),
            (What::Count, Some(Answer::Count(count))) => list().is_none_or(|list| list.len() as u64 == *count),
            (What::List(listing), Some(Answer::Keys { keys, next })) => {
                names_the_keys(judged, settled_us, call, (*listing, *next), keys)
            }
            _ => true,
        };
        if !expected {
            let list = list().map(<[Value]>::len);
            return Err(format!(
                "{} gives {:?}, where nothing changes any more and the list has {list:?} values",
                name(call),
                call.outcome
            ));
        }
    }
    Ok(())
}

/// What the last quorum read of it before this call gave.
fn list_before<'c>(case: &Case<'c>, settled_us: u64, call: &Call) -> Option<&'c [Value]> {
    let mut reads = case.reads.iter().rev();
    let read = reads.find(|read| read.is_quorum() && read.began_us >= settled_us && read.ended_us <= call.began_us);
    read?.list()
}

fn piece(list: &[Value], offset: u64, limit: u64) -> &[Value] {
    let from = list.len().min(offset as usize);
    &list[from..list.len().min(from + limit as usize)]
}

fn names_the_keys(
    judged: &Judged,
    settled_us: u64,
    call: &Call,
    (listing, next): (Listing, Option<u8>),
    keys: &[u8],
) -> bool {
    let mut of_user = judged.places.iter().filter(|(place, _)| place.user == call.place.user);
    of_user.all(|(Place { key, .. }, case)| {
        let list = list_before(case, settled_us, call).filter(|_| listing.asks_for(*key, next));
        list.is_none_or(|list| keys.contains(key) != list.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, sample};
    use super::*;
    use crate::cluster::history::{Level, TextId};

    fn settled() -> Sample {
        let mut sample = sample().add(1, 0, 1).add(2, 0, 1).add(3, 0, 1);
        sample.history.settled_us = Some(2);
        sample.get(&[&[1], &[2], &[3]], 2, 3)
    }

    fn page(at: (u64, u64), values: &[&[TextId]]) -> Sample {
        settled().page(at, values, 4, 5).last_on(1)
    }

    #[test]
    fn a_page_is_its_piece_of_the_list() {
        let check = all_ways_to_read_agree;
        page((0, 2), &[&[1], &[2]]).passes(check);
        page((2, 2), &[&[3]]).passes(check);
        page((4, 2), &[]).passes(check);
        page((2, 2), &[&[1]]).fails(check);
        page((0, 2), &[&[1]]).fails(check);
        page((1, 1), &[]).fails(check);
        page((4, 2), &[&[3]]).fails(check);
    }

    #[test]
    fn what_may_still_change_is_not_compared() {
        let check = all_ways_to_read_agree;
        let wrong = || page((0, 2), &[&[1]]);
        wrong().with(|call| call.is_last = false).passes(check);
        wrong().with(|call| call.began_us = 2).passes(check);
        let mut early = wrong();
        early.history.settled_us = Some(3);
        early.passes(check);
        early.history.settled_us = None;
        early.passes(check);
    }

    #[test]
    fn a_count_is_the_length_of_the_list() {
        let check = all_ways_to_read_agree;
        settled().count(3, 4, 5).last_on(1).passes(check);
        settled().count(2, 4, 5).last_on(1).fails(check);
        settled().count(2, 4, 5).at(Level::One).passes(check);
    }

    #[test]
    fn a_listing_names_exactly_the_keys_that_have_values() {
        let check = all_ways_to_read_agree;
        let list = |keys: &[u8]| settled().list(keys, 4, 5).last_on(1);
        list(&[0]).passes(check);
        list(&[]).fails(check);
        let page = |after, keys: &[u8], next| {
            let listing = Listing {
                after,
                limit: Some(1),
                ..Listing::default()
            };
            settled().list_page(listing, keys, next, 4, 5).last_on(1)
        };
        page(None, &[0], Some(0)).passes(check);
        page(None, &[], Some(0)).fails(check);
        page(Some(0), &[], None).passes(check);
        let empty = || {
            let mut sample = sample().add(1, 0, 1).clear(2, 3);
            sample.history.settled_us = Some(4);
            sample.get(&[], 4, 5)
        };
        empty().list(&[], 6, 7).last_on(1).passes(check);
        empty().list(&[0], 6, 7).last_on(1).fails(check);
    }
}
