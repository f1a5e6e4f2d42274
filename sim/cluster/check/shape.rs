//! What any single answer must be, at every level and whatever else happened.

use std::collections::BTreeSet;

use super::{Judged, name};
use crate::cluster::history::{Answer, Call, Value, What};
use crate::cluster::listing::Listing;
use crate::cluster::record::key_name;

/// Every text that a read returns was sent by somebody, to this key of this user, before the read ended (G9); a value is parts
/// followed by one text that finishes it; an answer has the form that was asked for, and is no longer; a listing names, in the order of their
/// names' bytes, keys of the user that were ever added to.
pub fn nothing_is_invented(judged: &Judged) -> Result<(), String> {
    for call in &judged.history.calls {
        if let Some(Answer::Garbled(what)) = call.answer() {
            return Err(format!("{}: {what}", name(call)));
        }
        if let Some(Answer::Keys { keys, next }) = call.answer() {
            check_listing(call, keys, *next)?;
            let ever = |key: &&u8| {
                let place = crate::cluster::history::Place {
                    user: call.place.user,
                    key: **key,
                };
                let adds = judged
                    .places
                    .get(&place)
                    .map(|case| case.adds.as_slice())
                    .unwrap_or_default();
                adds.iter()
                    .any(|add| add.write.possible && add.write.began_us < call.ended_us)
            };
            if let Some(key) = keys.iter().find(|key| !ever(key)) {
                return Err(format!("{} names key {key}, which was never added to", name(call)));
            }
        }
        if let What::Page { limit, .. } = call.what
            && call.values().len() as u64 > limit
        {
            return Err(format!("{} has {} values", name(call), call.values().len()));
        }
        for value in call.values() {
            check_value(judged, call, value)?;
        }
    }
    Ok(())
}

/// A page of a listing goes from the key that it begins behind to the one that the next begins behind.
fn check_listing(call: &Call, keys: &[u8], next: Option<u8>) -> Result<(), String> {
    let What::List(listing) = call.what else {
        return Err(format!("{} gives keys", name(call)));
    };
    let Listing { after, limit, .. } = listing;
    let names: Vec<String> = after.iter().chain(keys).map(|key| key_name(*key)).collect();
    let are_named = keys.iter().all(|key| listing.is_named(&key_name(*key)));
    let in_order = names.is_sorted_by(|one, other| one < other);
    // The next page may begin behind a key that does not show.
    let leads_on = next.is_none_or(|next| names.last().is_none_or(|last| *last <= key_name(next)));
    if are_named && in_order && leads_on && limit.is_none_or(|limit| keys.len() as u64 <= limit) {
        return Ok(());
    }
    Err(format!("{} gives {keys:?}, and goes on behind {next:?}", name(call)))
}

fn check_value(judged: &Judged, call: &Call, value: &Value) -> Result<(), String> {
    let add = |text| judged.places.get(&call.place)?.add(text);
    for (at, text) in value.iter().enumerate() {
        let Some(add) = add(*text) else {
            let from = judged.texts.get(text);
            return Err(format!("{} holds text {text}, which went to {from:?}", name(call)));
        };
        if add.write.began_us >= call.ended_us {
            return Err(format!("{} holds text {text} before it was sent", name(call)));
        }
        if !add.write.possible {
            return Err(format!("{} holds text {text}, whose add was refused", name(call)));
        }
        if add.write.finish != (at + 1 == value.len()) {
            return Err(format!(
                "{}: in value {value:?}, text {text} ends a value or should",
                name(call)
            ));
        }
    }
    Ok(())
}

/// G6: no text is in a list twice, however often its add was sent and through whichever nodes.
pub fn nothing_counts_twice(judged: &Judged) -> Result<(), String> {
    for call in &judged.history.calls {
        let mut seen = BTreeSet::new();
        if let Some(text) = call.values().iter().flatten().find(|text| !seen.insert(**text)) {
            return Err(format!("{} holds text {text} twice", name(call)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn a_list_of_what_was_added_is_fine() {
        let sample = sample()
            .part(1, 0, 1)
            .add(2, 2, 3)
            .add(3, 4, 5)
            .get(&[&[1, 2], &[3]], 6, 7);
        sample.passes(nothing_is_invented);
        sample.passes(nothing_counts_twice);
    }

    #[test]
    fn what_nobody_added_is_found() {
        sample().get(&[&[1]], 6, 7).fails(nothing_is_invented);
        sample().add(1, 8, 9).get(&[&[1]], 6, 7).fails(nothing_is_invented);
        sample()
            .add(1, 0, 1)
            .refused()
            .get(&[&[1]], 6, 7)
            .fails(nothing_is_invented);
    }

    #[test]
    fn what_belongs_to_another_user_is_found() {
        let other = sample().add(1, 0, 1).with(|call| call.place.user = 1);
        other.get(&[&[1]], 2, 3).fails(nothing_is_invented);
        let other = sample().add(1, 0, 1).with(|call| call.place.user = 1);
        other.list(&[0], 2, 3).fails(nothing_is_invented);
    }

    #[test]
    fn a_page_that_is_too_long_is_found_and_a_listing_out_of_order() {
        let check = nothing_is_invented;
        let page = |limit| sample().add(1, 0, 1).add(2, 0, 1).page((0, limit), &[&[1], &[2]], 2, 3);
        page(2).passes(check);
        page(1).fails(check);
        let of_names = |prefix, keys: &[u8], after, limit, next| {
            let mut sample = sample();
            for key in [1, 2, 10] {
                sample = sample.add(key.into(), 0, 1).with(|call| call.place.key = key);
            }
            let page = Listing {
                prefix,
                after,
                limit: Some(limit),
            };
            sample.list_page(page, keys, next, 2, 3)
        };
        let listing = |keys: &[u8], after, limit, next| of_names(None, keys, after, limit, next);
        listing(&[1, 10, 2], None, 3, None).passes(check);
        listing(&[1, 2, 10], None, 3, None).fails(check);
        listing(&[1, 10, 2], None, 2, None).fails(check);
        listing(&[10, 10], None, 3, None).fails(check);
        listing(&[1], Some(10), 3, None).fails(check);
        listing(&[2], Some(10), 1, Some(2)).passes(check);
        listing(&[], Some(10), 1, Some(1)).fails(check);
        listing(&[1, 10], None, 2, Some(1)).fails(check);
        of_names(Some(1), &[1, 10], None, 3, None).passes(check);
        of_names(Some(1), &[1, 10, 2], None, 3, None).fails(check);
    }

    #[test]
    fn a_value_without_an_end_is_found_and_one_with_two() {
        sample().part(1, 0, 1).get(&[&[1]], 2, 3).fails(nothing_is_invented);
        let two = sample().add(1, 0, 1).add(2, 2, 3).get(&[&[1, 2]], 4, 5);
        two.fails(nothing_is_invented);
    }

    #[test]
    fn a_text_that_counts_twice_is_found_in_two_values_and_in_one() {
        sample()
            .add(1, 0, 1)
            .get(&[&[1], &[1]], 2, 3)
            .fails(nothing_counts_twice);
        let parts = sample().part(1, 0, 1).add(2, 2, 3).add(3, 4, 5);
        parts.get(&[&[1, 2], &[1, 3]], 6, 7).fails(nothing_counts_twice);
    }
}
