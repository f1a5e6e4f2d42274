//! What any single answer must be, at every level and whatever else happened.

use std::collections::BTreeSet;

use super::{Judged, name, texts_of};
use crate::cluster::history::{Answer, Call, Value};

fn values(call: &Call) -> &[Value] {
    match call.answer() {
        Some(Answer::Values(values)) => values,
        _ => &[],
    }
}

/// Every text that a read returns was sent by somebody, to this key of this user, before the read ended (G9); a value is parts
/// followed by one text that finishes it; an answer has the form that was asked for; a listing names, in order, keys of the user that
/// were ever added to.
pub fn nothing_is_invented(judged: &Judged) -> Result<(), String> {
    for call in &judged.history.calls {
        if let Some(Answer::Garbled(what)) = call.answer() {
            return Err(format!("{}: {what}", name(call)));
        }
        if let Some(Answer::Keys(keys)) = call.answer() {
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
        for value in values(call) {
            check_value(judged, call, value)?;
        }
    }
    Ok(())
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
        if let Some(text) = values(call).iter().flatten().find(|text| !seen.insert(**text)) {
            return Err(format!("{} holds text {text} twice", name(call)));
        }
    }
    for (_, read) in judged.reads() {
        debug_assert_eq!(texts_of(read).count(), values(read).iter().map(Vec::len).sum::<usize>());
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
